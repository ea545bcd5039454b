// SPDX-License-Identifier: Apache-2.0
//! A running pod: what is known about it and the status that follows.

mod container;

use std::{net::IpAddr, sync::Arc};

use serde_json::{Value, json};
use weir_net::Family;

use super::{handle::Sandbox, store::now};
use crate::{
    config::{Node, address_of},
    object::Object,
};

pub(crate) use container::{Container, ContainerState, containers_of, is_sidecar};

/// A container that was started again so often will not become ready.
const RESTARTS_LIMIT: u32 = 5;

/// Says `false` on a pod that shall not be ready, whatever its containers do.
const READY: &str = "lab.weir.dev/ready";

/// A pod with a sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) node: String,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) container_id: String,
    pub(crate) host_network: bool,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) started: String,
    pub(crate) containers: Vec<Container>,
    pub(crate) restart_policy: RestartPolicy,
}

/// When an ended container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn of(pod: &Object) -> Self {
        match pod.text("/spec/restartPolicy") {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    pub(crate) fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// Whether a pod is kept from being ready.
pub(crate) fn is_held(pod: &Object) -> bool {
    pod.annotation(READY) == Some("false")
}

impl Pod {
    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        address_of(&self.addresses, family)
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.containers.iter().all(|container| container.ready)
    }

    pub(crate) fn phase(&self) -> &'static str {
        let over = |container: &Container| match container.state {
            ContainerState::Ended(code) => !self.restarts(container, code),
            ContainerState::Waiting | ContainerState::CannotStart(_) | ContainerState::Running => {
                false
            }
        };
        let waits = |container: &Container| {
            matches!(
                container.state,
                ContainerState::Waiting | ContainerState::CannotStart(_)
            )
        };
        let main = || {
            self.containers
                .iter()
                .filter(|container| !container.sidecar)
        };
        if main().count() > 0 && main().all(over) {
            let good = main().all(|c| c.state == ContainerState::Ended(0));
            if good { "Succeeded" } else { "Failed" }
        } else if self.containers.iter().any(waits) {
            "Pending"
        } else {
            "Running"
        }
    }

    /// Whether a container that has ended with a code is started again.
    pub(crate) fn restarts(&self, container: &Container, code: i32) -> bool {
        container.sidecar || self.restart_policy.restarts(code)
    }

    /// Whether there is nothing to wait for any more.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_ready() || self.is_hopeless() || matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Whether it will not become ready by waiting.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.containers.iter().any(|container| {
            let ends_again = !container.ready && container.restarts >= RESTARTS_LIMIT;
            ends_again || matches!(container.state, ContainerState::CannotStart(_))
        })
    }

    /// What is missing, for people.
    pub(crate) fn trouble(&self) -> String {
        let unready = self.containers.iter().filter(|container| !container.ready);
        let words: Vec<String> = unready
            .map(|container| match &container.state {
                ContainerState::Waiting => format!("container {} is not started", container.name),
                ContainerState::CannotStart(reason) => {
                    format!("container {}: {reason}", container.name)
                }
                ContainerState::Running => {
                    format!("container {} runs but is not ready", container.name)
                }
                ContainerState::Ended(code) => {
                    format!("container {} ended with code {code}", container.name)
                }
            })
            .collect();
        words.join(", ")
    }

    /// The status for the pod's object.
    pub(crate) fn status(&self, node: &Node, object: &Object) -> Value {
        let word = |good| if good { "True" } else { "False" };
        let ready = self.is_ready();
        let condition = |kind: &str, status: &str| {
            let before = object
                .list("/status/conditions")
                .iter()
                .find(|condition| condition["type"] == kind && condition["status"] == status);
            let since =
                before.map_or_else(|| json!(now()), |old| old["lastTransitionTime"].clone());
            json!({"type": kind, "status": status, "lastTransitionTime": since})
        };
        let (sidecars, others): (Vec<_>, Vec<_>) = self
            .containers
            .iter()
            .partition(|container| container.sidecar);
        let statuses = |containers: Vec<&Container>| -> Vec<Value> {
            containers
                .into_iter()
                .map(|container| container.status(&self.started))
                .collect()
        };
        let (sidecars, others) = (statuses(sidecars), statuses(others));
        let hosts: Vec<Value> = node.addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let own: Vec<Value> = self.addresses.iter().map(|ip| json!({"ip": ip})).collect();
        json!({
            "phase": self.phase(),
            "podIP": self.addresses.first(),
            "podIPs": own,
            "hostIP": node.addresses.first(),
            "hostIPs": hosts,
            "startTime": self.started,
            "conditions": [
                condition("PodScheduled", "True"),
                condition("Initialized", "True"),
                condition("ContainersReady", word(ready)),
                condition("Ready", word(ready && !is_held(object))),
            ],
            "initContainerStatuses": sidecars,
            "containerStatuses": others,
        })
    }
}
