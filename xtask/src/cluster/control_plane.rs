// SPDX-License-Identifier: Apache-2.0
//! etcd, API server, controller manager and scheduler: plain processes in the namespace `control`.

use std::process::Command;

use anyhow::Result;

use super::network::inside;
use super::place::{CONTROL_PLANE, POD_RANGES, Place, SERVICE_RANGES};
use super::processes::{start, succeeds, wait_for};
use super::programs;

/// The name under which the process is recorded.
pub(super) const API_SERVER_NAME: &str = "kube-apiserver";

/// Starts everything; returns when the API server is ready.
pub(super) fn start_all(place: &Place) -> Result<()> {
    start_api_server(place)?;
    start_controllers(place)
}

/// Starts the API server with its store; returns when it is ready.
pub(super) fn start_api_server(place: &Place) -> Result<()> {
    let state = place.state().display().to_string();
    launch(
        place,
        "etcd",
        &format!(
            "--data-dir={state}/etcd --listen-client-urls=http://127.0.0.1:2379 \
             --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380 \
             --initial-advertise-peer-urls=http://127.0.0.1:2380 --initial-cluster=default=http://127.0.0.1:2380"
        ),
    )?;
    launch_api_server(place)?;
    wait_for("the API server to be ready", 90, || {
        succeeds(kubectl(place).args(["get", "--raw", "/readyz"]))
    })
}

/// Starts the API server alone, also again after its end; does not wait until it is ready.
pub(super) fn launch_api_server(place: &Place) -> Result<()> {
    let state = place.state().display().to_string();
    let keys = place.keys().display().to_string();
    // Aggregator routing: this host has nobody who translates addresses of services, so pods are reached directly.
    launch(
        place,
        API_SERVER_NAME,
        &format!(
            "--etcd-servers=http://127.0.0.1:2379 --advertise-address={} --service-cluster-ip-range={SERVICE_RANGES} \
             --tls-cert-file={keys}/api.crt --tls-private-key-file={keys}/api.key --cert-dir={state} \
             --client-ca-file={keys}/ca.crt --token-auth-file={keys}/tokens.csv \
             --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged \
             --service-account-issuer=https://kubernetes.default.svc.cluster.local \
             --service-account-key-file={keys}/accounts.pub --service-account-signing-key-file={keys}/accounts.key \
             --enable-aggregator-routing --kubelet-preferred-address-types=InternalIP \
             --proxy-client-cert-file={keys}/proxy.crt --proxy-client-key-file={keys}/proxy.key \
             --requestheader-client-ca-file={keys}/proxy.crt --requestheader-username-headers=X-Remote-User \
             --requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra-",
            CONTROL_PLANE.v4
        ),
    )
}

fn start_controllers(place: &Place) -> Result<()> {
    let state = place.state().display().to_string();
    let keys = place.keys().display().to_string();
    launch(
        place,
        "kube-controller-manager",
        &format!(
            "--kubeconfig={} --leader-elect=false --cert-dir={state} \
             --use-service-account-credentials --service-account-private-key-file={keys}/accounts.key \
             --root-ca-file={keys}/ca.crt --cluster-signing-cert-file={keys}/ca.crt --cluster-signing-key-file={keys}/ca.key \
             --allocate-node-cidrs --cluster-cidr={POD_RANGES} --node-cidr-mask-size-ipv4=24 --node-cidr-mask-size-ipv6=64 \
             --service-cluster-ip-range={SERVICE_RANGES}",
            place.kubeconfig("controller-manager").display()
        ),
    )?;
    launch(
        place,
        "kube-scheduler",
        &format!(
            "--kubeconfig={} --leader-elect=false --cert-dir={state}",
            place.kubeconfig("scheduler").display()
        ),
    )
}

fn launch(place: &Place, name: &str, arguments: &str) -> Result<()> {
    let mut program = inside(place, "control", &programs::path(name).to_string_lossy());
    program.args(arguments.split_whitespace());
    start(place, name, &mut program).map(drop)
}

/// `kubectl` as the administrator, from outside the cluster.
pub(crate) fn kubectl(place: &Place) -> Command {
    let mut kubectl = inside(place, "world", &programs::path("kubectl").to_string_lossy());
    kubectl.arg("--kubeconfig").arg(place.kubeconfig("admin"));
    kubectl
}
