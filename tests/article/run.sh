#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the commands of an article about debugging connectivity on GKE Dataplane V2, in its order, on a cluster that runs
# Weir, and checks that each of them does what the article says it does.
#
# Needs kubectl in the path and a cluster with two nodes, Weir as DaemonSet `cilium` in kube-system, and the image
# busybox:1.36 (a real one, or a shell with ping, wget, nc and httpd). Left out are the commands for gcloud.
set -uo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/harness.sh"

clean_up() {
	exec 3>&-
	kubectl delete --ignore-not-found --wait=false -n default pod/sender pod/log >/dev/null 2>&1
	kubectl delete --ignore-not-found networklogging default >/dev/null 2>&1
	kubectl delete --ignore-not-found -f "$HERE/logging.yaml" -f "$HERE/policies.yaml" -f "$WORK/fixtures.yaml" >/dev/null 2>&1
	rm -rf "$WORK"
}
trap clean_up EXIT

read -r NODE OTHER < <(kubectl get nodes -o 'jsonpath={.items[0].metadata.name} {.items[1].metadata.name}{"\n"}')
[ -n "${OTHER:-}" ] || { say "error: the cluster needs two nodes"; exit 2; }
sed "s/@NODE@/$NODE/; s/@OTHER@/$OTHER/" "$HERE/fixtures.yaml" >"$WORK/fixtures.yaml"
kubectl apply -f "$HERE/logging.yaml" -f "$WORK/fixtures.yaml" >&2 || exit 2
kubectl wait --for=condition=Established crd/networkloggings.networking.gke.io --timeout=30s >&2 || exit 2
kubectl create -f - >&2 <<'OBJECT' || exit 2
{"apiVersion": "networking.gke.io/v1alpha1", "kind": "NetworkLogging", "metadata": {"name": "default"},
 "spec": {"cluster": {"allow": {"log": true, "delegate": true}, "deny": {"log": true, "delegate": true}}}}
OBJECT
kubectl wait --for=condition=Ready --timeout=120s pod/streams pod/receiver >&2 || exit 2
kubectl wait --for=condition=Ready --timeout=120s -n your-namespace pod/your-pod-name >&2 || exit 2
RECEIVER=$(kubectl get pod receiver -o 'jsonpath={.status.podIP}')

. "$HERE/steps.sh"

closing_line
[ $FAILED = 0 ]
