# SPDX-License-Identifier: Apache-2.0
# The article's steps. Commands stand as they are printed there; the words that it leaves to its reader are filled in by
# `block` and `watch`.

# --- 1: is it running?
block 'agent pods' <<'EOT'
kubectl get pods -n kube-system -l k8s-app=cilium
EOT
running_on_every_node() { [ "$(grep -c ' 1/1 .* Running ' "$OUT")" = "$(kubectl get nodes -o name | wc -l)" ]; }
check 'an agent runs on every node' running_on_every_node

block 'agent status' <<'EOT'
kubectl exec -n kube-system $(kubectl get pods -n kube-system -l k8s-app=cilium -o jsonpath='{.items[0].metadata.name}') -- cilium status
EOT
check 'the status is good' succeeded
check 'every component is Ok' lacks ':  +(Failure|Warning|Error|Degraded)'
several_ok() { [ "$(grep -cE ':  +Ok' "$OUT")" -ge 4 ]; }
check 'components are listed with Ok' several_ok

# --- 2: the log of the agent of one node
block 'the agent of a node, and its log' "gke-your-cluster-default-pool-abc123=$NODE" <<'EOT'
NODE_NAME="gke-your-cluster-default-pool-abc123"
CILIUM_POD=$(kubectl get pods -n kube-system -l k8s-app=cilium \
  --field-selector spec.nodeName=$NODE_NAME \
  -o jsonpath='{.items[0].metadata.name}')

# Check Cilium agent logs
kubectl logs -n kube-system $CILIUM_POD --tail=100
EOT
check 'there is a log' shows 'agent start'
check 'no program was refused, no endpoint is not ready' lacks 'BPF program compilation failed|endpoint not ready'
# A service that was just made has no backend for a moment, and the log says so; one that is gone will not get any.
backends_came_back() {
	local service
	for service in $(sed -nE 's/.*Unable to find a healthy backend for service ([^ :]+).*/\1/p' "$OUT"); do
		kubectl get service -n "${service%%/*}" "${service##*/}" >/dev/null 2>&1 || continue
		tac "$OUT" | grep -m1 -F "service $service" | grep -q 'has a healthy backend again' || return 1
	done
}
check 'no service is without a healthy backend' backends_came_back

# --- 3: pod to pod
# A shell in a terminal, which stays open as that of a reader would.
mkfifo "$WORK/typed"
say '==> a shell in the pod sender'
script -qfec 'kubectl run sender --image=busybox:1.36 --rm -it --restart=Never -- sh' /dev/null \
	<"$WORK/typed" >>"$WORK/terminal" 2>&1 &
exec 3>"$WORK/typed"
kubectl wait --for=create pod/sender --timeout=60s >/dev/null 2>&1
check 'the pod sender runs' kubectl wait --for=condition=Ready pod/sender --timeout=60s

# typed COMMAND: into that terminal; its output is what the next lines of the terminal are.
typed() {
	TITLE="in the pod sender: $1"
	say "==> $TITLE"
	printf '%s; echo ended with $?\n' "$1" >&3
	until_so 30 grep -qE '^ended with [0-9]+' "$WORK/terminal"
	tr -d '\r' <"$WORK/terminal" >"$OUT"
	: >"$WORK/terminal"
	sed 's/^/    /' "$OUT" >&2
}
typed "ping -c 3 $RECEIVER"
check 'the ping is answered' shows '3 packets transmitted, 3 (packets )?received'
typed "wget -T 5 -O- http://$RECEIVER:8080/healthz"
check 'the pod answers over HTTP' shows 'healthy$'

block 'endpoints of the node' <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium endpoint list
EOT
check 'they are ready' shows ' ready'
check 'none is not-ready or disconnecting' lacks 'not-ready|disconnecting'
block 'the endpoint of a pod' <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium endpoint list | grep your-pod-name
EOT
check 'the line names the pod and its state' shows 'your-pod-name.* ready|ready .*your-pod-name'

block 'regenerating an endpoint' <<'EOT'
EP_ID=$(kubectl exec -n kube-system $CILIUM_POD -- cilium endpoint list -o json | \
  python3 -c "import json,sys; data=json.load(sys.stdin); print([e['id'] for e in data if 'your-pod' in str(e)])")

# Regenerate the endpoint's BPF programs
kubectl exec -n kube-system $CILIUM_POD -- cilium endpoint regenerate $EP_ID
EOT
check 'it is accepted with the list that Python prints' succeeded
check 'it says so' shows 'Endpoint [0-9]+ successfully regenerated'
NUMBER=${EP_ID//[^0-9]/}

# --- 4: services
block 'services' <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium service list
EOT
check 'there are some' succeeded
block 'one service' <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium service list | grep your-service
EOT
POD=$(kubectl get pod -n your-namespace your-pod-name -o 'jsonpath={.status.podIP}')
check 'it shows the pods behind the service' shows "$POD:8080"
block 'its endpoints, as Kubernetes knows them' <<'EOT'
kubectl get endpoints your-service -n your-namespace

# Force a service map refresh
kubectl exec -n kube-system $CILIUM_POD -- cilium service update
EOT
check 'the same pods are there' shows "$POD:8080"
check 'services are written anew' succeeded

# --- 5: watching packets; policies give something to drop
kubectl apply -f "$HERE/policies.yaml" >&2
denied() { kubectl exec -n default streams -- sh -c "echo | timeout 1 nc -w 1 $POD 8080"; }
allowed() { kubectl exec -n your-namespace your-pod-name -- ping -c 1 -W 1 "$(kubectl get pod streams -o 'jsonpath={.status.podIP}')"; }
both() { allowed; denied; }

LOOK_FOR='xx drop' watch 'all traffic' 30 both <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium monitor
EOT
check 'drops and forwarded packets are shown' eval 'shows "xx drop" && shows "^-> "'
LOOK_FOR='POLICY_DENIED' watch 'drops' 30 both <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium monitor --type drop
EOT
check 'the reason is told' shows 'xx drop .*POLICY_DENIED'
check 'nothing but drops is shown' lacks '^-> '
LOOK_FOR='your-pod-name' watch 'one pod' 30 both "EP_ID=$NUMBER" <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium monitor --from-endpoint EP_ID
EOT
check 'its packets are shown' shows 'your-pod-name\) -> '
check 'nobody else sends there' lacks '\(default/streams\) -> '
LOOK_FOR="$POD" watch 'one address' 30 both "IP_ADDRESS=$POD" <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium monitor --related-to IP_ADDRESS
EOT
only_that_address() { ! grep -E '^(->|xx)' "$OUT" | grep -vqF "$POD"; }
check 'packets of that address are shown' shows "$POD"
check 'and no others' only_that_address

# --- 6: policies
block 'what would happen to a packet' <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium policy trace \
  --src-k8s-pod default:sender \
  --dst-k8s-pod default:receiver \
  --dport 8080
EOT
check 'it is allowed' eval 'succeeded && shows "[Aa]llowed|ALLOWED"'
check 'the policy that allows it is named' shows 'receiver-takes-8080'
block 'what would happen to another packet' <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium policy trace --src-k8s-pod default:sender --dst-k8s-pod default:receiver --dport 9090
EOT
check 'it is denied, and the exit status says so' eval '[ "$STATUS" = 1 ] && shows "[Dd]enied|DENIED"'
block 'all policies' <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium policy get
EOT
check 'they are listed' eval 'shows your-policy && shows receiver-takes-8080 && shows Revision'
block 'the log of policies is asked for' <<'EOT'
kubectl apply -f - <<'MANIFEST'
# Enable network policy logging for a specific policy
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: your-policy
  namespace: your-namespace
  annotations:
    policy.network.gke.io/enable-logging: "true"
MANIFEST
EOT
check 'the policy is accepted' succeeded
# The node's file, which gcloud would be asked for.
kubectl run log --image=busybox:1.36 --restart=Never --overrides='{"spec": {"nodeName": "'"$NODE"'", "containers": [
  {"name": "log", "image": "busybox:1.36", "command": ["sleep", "3600"], "volumeMounts": [{"name": "log", "mountPath": "/log"}]}],
  "volumes": [{"name": "log", "hostPath": {"path": "/var/log/network"}}], "terminationGracePeriodSeconds": 0}}' >/dev/null
kubectl wait --for=condition=Ready pod/log --timeout=60s >&2
logged() {
	denied
	kubectl exec log -- cat /log/policy_action.log >"$OUT" 2>&1
	grep '"disposition":"deny"' "$OUT" | grep '"pod_name":"your-pod-name"' | grep -q '"pod_name":"streams"'
}
check 'denials are in the log of the node' until_so 60 logged

# --- 7: maps
block 'entries of maps' <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium bpf ct list global | wc -l
kubectl exec -n kube-system $CILIUM_POD -- cilium bpf nat list | wc -l
EOT
two_numbers() { [ "$(grep -cE '^[0-9]+$' "$OUT")" = 2 ] && [ "$(head -n 1 "$OUT")" -gt 0 ]; }
check 'the lines are the entries' two_numbers
block 'the size of connection tracking' <<'EOT'
kubectl exec -n kube-system $CILIUM_POD -- cilium status --verbose | grep -i "ct-"
EOT
check 'it is found, with a number' shows '[0-9]+'

# --- 8: agents are started again
# Each number arrives once and in order, or the connection is broken.
stream() { # ADDRESS PORT
	kubectl exec streams -- nc "$1" "$2" >"$WORK/stream-$2" 2>&1 &
}
goes_on() { # PORT
	local before=$(tail -n 1 "$WORK/stream-$1")
	until_so 20 eval "[ \"\$(tail -n 1 $WORK/stream-$1)\" -gt ${before:-0} ]"
}
unbroken() {
	cp "$WORK/stream-$1" "$WORK/arrived"
	seq 1 "$(wc -l <"$WORK/arrived")" | cmp - <(head -n "$(wc -l <"$WORK/arrived")" "$WORK/arrived")
}
stream "$RECEIVER" 9000
stream "$(kubectl get service receiver -o 'jsonpath={.spec.clusterIP}')" 9001
check 'two connections run' eval 'until_so 20 test -s "$WORK/stream-9000" && until_so 20 test -s "$WORK/stream-9001"'
agents_ready() { kubectl rollout status daemonset cilium -n kube-system --timeout=120s; }

OLD=$CILIUM_POD
block 'an agent is started again' <<'EOT'
kubectl delete pod $CILIUM_POD -n kube-system
EOT
check 'its pod is deleted' succeeded
check 'another one takes its place' agents_ready
new_agent() { kubectl get pods -n kube-system -l k8s-app=cilium --field-selector "spec.nodeName=$NODE" -o 'jsonpath={.items[0].metadata.name}'; }
check 'it is another one' eval '[ "$(new_agent)" != "$OLD" ]'
check 'the connection goes on' goes_on 9000
check 'the connection through a service goes on' goes_on 9001
block 'all agents are started again' <<'EOT'
kubectl rollout restart daemonset cilium -n kube-system
EOT
check 'it is taken' succeeded
check 'all come back' agents_ready
check 'the connection goes on after that' goes_on 9000
check 'the connection through a service goes on after that' goes_on 9001
check 'nothing of the one was lost' unbroken 9000
check 'nothing of the other was lost' unbroken 9001
typed "wget -T 5 -O- http://$RECEIVER:8080/healthz"
check 'new connections are made as before' shows 'healthy$'

# --- 9: known issues
block 'the traffic policy of a service' <<'EOT'
kubectl get svc your-service -o jsonpath='{.spec.externalTrafficPolicy}'
EOT
check 'it is told' shows '^Local$'
printf 'exit\n' >&3
