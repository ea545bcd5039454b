// SPDX-License-Identifier: Apache-2.0
//! What must be true when the killing is over.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::json;

use super::{BACK_SECONDS, NAMESPACE, READY_SECONDS, SETTLED_SECONDS};
use crate::cluster::checks::until_none;
use crate::cluster::control_plane::kubectl;
use crate::cluster::place::{Node, Place};
use crate::cluster::pods::{self, NAME_SERVER, Pod};
use crate::cluster::processes::{run as run_command, succeeds, wait_for};
use crate::cluster::remains::Before;

/// Waits until API server, nodes and agents are all well.
pub(super) fn recover(place: &Place) -> Result<Vec<String>> {
    wait_for("the API server", BACK_SECONDS, || {
        succeeds(kubectl(place).args(["get", "--raw", "/readyz"]))
    })?;
    until_none("nodes and system pods to be ready", SETTLED_SECONDS, || {
        let pods = pods::pods(place, Some("kube-system"))?;
        let wrong = pods.iter().filter(|pod| !pod.ready);
        let mut found: Vec<String> = wrong
            .map(|pod| format!("pod {} is not ready", pod.full_name()))
            .collect();
        let ready = nodes_ready(place);
        found.extend((!ready).then(|| "a node is not ready".to_owned()));
        Ok(found)
    })
}

fn nodes_ready(place: &Place) -> bool {
    succeeds(
        kubectl(place)
            .args(["wait", "--for=condition=Ready", "nodes", "--all"])
            .arg("--timeout=1s"),
    )
}

/// Deletes the pods that come and go; the answer is what is left of them.
pub(super) fn remove_churn(place: &Place, before: &Before) -> Result<Vec<String>> {
    run_command(
        kubectl(place)
            .args(["delete", "pods", "--selector=app=churn"])
            .args(["--namespace", NAMESPACE])
            .arg(format!("--timeout={SETTLED_SECONDS}s")),
    )?;
    until_none("everything to settle", SETTLED_SECONDS, || {
        before.differences(place)
    })
}

/// Pods that are others than they were, or whose containers have been started again.
pub(super) fn changed(before: &[Pod], now: &[Pod]) -> Vec<String> {
    let mut found = Vec::new();
    for pod in before {
        match now.iter().find(|one| one.uid == pod.uid) {
            None => found.push(format!("{} is gone", pod.full_name())),
            Some(one) if one.restarts > pod.restarts || one.addresses != pod.addresses => {
                found.push(format!(
                    "{} was started again: {} restarts, at {:?} and before at {:?}",
                    pod.full_name(),
                    one.restarts,
                    one.addresses,
                    pod.addresses
                ));
            }
            Some(one) if !one.running => found.push(format!("{} has ended", pod.full_name())),
            Some(_) => {}
        }
    }
    found
}

/// One more pod on each node, each asked by all the others.
pub(super) fn connect_anew(place: &Place, nodes: &[Node]) -> Result<Vec<String>> {
    let command = json!(["bash", "-c", NAME_SERVER]);
    let new: Vec<_> = nodes
        .iter()
        .map(|node| {
            pods::pod(
                NAMESPACE,
                &format!("new-{node}"),
                "churn",
                &node.to_string(),
                &command,
            )
        })
        .collect();
    pods::create(place, &new)?;
    pods::wait_ready(place, NAMESPACE, READY_SECONDS)?;
    let names: BTreeSet<String> = nodes.iter().map(|node| format!("new-{node}")).collect();
    let new: Vec<Pod> = pods::pods(place, Some(NAMESPACE))?
        .into_iter()
        .filter(|pod| names.contains(&pod.name))
        .collect();
    let mut found = Vec::new();
    for pod in &new {
        found.extend(pods::ask_names(place, pod, &new)?);
    }
    Ok(found)
}
