// SPDX-License-Identifier: Apache-2.0
//! Takes away the taint that kept pods off this node until it had a network.
//!
//! Weir puts none on: the kubelet's own `not-ready` does. But nodes are registered with one where
//! another plugin must not connect the first pods, and it stays until the agent that is meant
//! removes it.

use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use weir_model::NodeName;

use super::kind::Kind;
use super::raw::Raw;
use super::{ApiAccess, reason_of};

/// Keys of taints that wait for this agent: Weir's own, and that of clusters which ran Cilium.
const KEYS: [&str; 2] = ["weir.dev/agent-not-ready", "node.cilium.io/agent-not-ready"];
/// When it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

impl ApiAccess {
    /// Tells once whether there was such a taint; returns when there is none any more.
    pub fn remove_taints(&self, node: &NodeName, mut removed: impl FnMut(&str)) {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            loop {
                match self.without_taints(node).await {
                    Ok(keys) => {
                        for key in keys {
                            removed(&key);
                        }
                        return;
                    }
                    Err(reason) => tracing::debug!(reason, "the node's taints are not known"),
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
    }

    /// The keys that were removed.
    async fn without_taints(&self, node: &NodeName) -> Result<Vec<String>, String> {
        let config = self.config().await.map_err(|error| error.to_string())?;
        let client = Client::try_from(config).map_err(|error| reason_of(&error))?;
        let nodes: Api<Raw> = Api::all_with(client, &Kind::Node.resource());
        let object = match nodes.get(node.as_str()).await {
            Ok(object) => object,
            // Without the right to look, nobody expects the agent to remove anything.
            Err(Error::Api(status)) if status.code == 403 => return Ok(Vec::new()),
            Err(error) => return Err(reason_of(&error)),
        };
        let Some((patch, keys)) = patch(&object.value) else {
            return Ok(Vec::new());
        };
        nodes
            .patch(
                node.as_str(),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await
            .map(|_| keys)
            .map_err(|error| reason_of(&error))
    }
}

/// What has to change, for this version of the object alone: somebody else may be at its taints too.
fn patch(node: &Value) -> Option<(Value, Vec<String>)> {
    let taints = node["spec"]["taints"].as_array()?;
    let (ours, others): (Vec<&Value>, Vec<&Value>) = taints
        .iter()
        .partition(|taint| KEYS.iter().any(|key| taint["key"] == *key));
    if ours.is_empty() {
        return None;
    }
    let keys = ours.iter().filter_map(|taint| taint["key"].as_str());
    let keys = keys.map(str::to_owned).collect();
    let version = &node["metadata"]["resourceVersion"];
    let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": others}});
    Some((patch, keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_taints_that_wait_for_the_agent_go() {
        let taint = |key: &str| json!({"key": key, "effect": "NoExecute"});
        let node = |keys: &[&str]| {
            let taints: Vec<Value> = keys.iter().map(|key| taint(key)).collect();
            json!({"metadata": {"resourceVersion": "7"}, "spec": {"taints": taints}})
        };
        let cilium = "node.cilium.io/agent-not-ready";
        let (found, keys) = patch(&node(&["a", cilium, "node.kubernetes.io/not-ready"])).unwrap();
        assert_eq!(keys, [cilium]);
        assert_eq!(
            found,
            json!({"metadata": {"resourceVersion": "7"},
                   "spec": {"taints": [taint("a"), taint("node.kubernetes.io/not-ready")]}})
        );
        assert_eq!(patch(&node(&[KEYS[0]])).unwrap().1, [KEYS[0]]);
        assert_eq!(patch(&node(&["node.kubernetes.io/not-ready"])), None);
        assert_eq!(patch(&json!({"spec": {}})), None);
    }
}
