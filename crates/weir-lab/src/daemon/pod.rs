// SPDX-License-Identifier: Apache-2.0
//! A running pod: what is known about it and the status that follows.

use std::{net::IpAddr, sync::Arc};

use serde_json::{Value, json};
use weir_net::Family;

use super::{handle::Sandbox, store::now};
use crate::{
    config::{Node, address_of},
    object::Object,
    protocol::Protocol,
};

/// A container that was started again so often will not become ready.
const RESTARTS_LIMIT: u32 = 5;

/// What a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContainerState {
    /// Not started yet.
    Waiting,
    /// It cannot be started, for the given reason.
    CannotStart(String),
    Running,
    Ended(i32),
}

/// A container of a running pod.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) state: ContainerState,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// The container as the pod's specification has it.
    pub(crate) spec: Value,
}

impl Container {
    /// What it runs, unless the built-in server.
    pub(crate) fn argv(&self) -> Option<Vec<String>> {
        let words = |field: &str| {
            self.spec[field]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|word| word.as_str().map(ToOwned::to_owned))
                .collect::<Vec<_>>()
        };
        let command = words("command");
        if command.is_empty() {
            None
        } else {
            Some([command, words("args")].concat())
        }
    }

    /// The ports of the built-in server.
    pub(crate) fn ports(&self) -> Vec<(Protocol, u16)> {
        self.spec["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|port| {
                let protocol = match port["protocol"].as_str().unwrap_or("TCP") {
                    "TCP" => Protocol::Tcp,
                    "UDP" => Protocol::Udp,
                    "SCTP" => Protocol::Sctp,
                    _ => return None,
                };
                Some((
                    protocol,
                    u16::try_from(port["containerPort"].as_u64()?).ok()?,
                ))
            })
            .collect()
    }

    /// The number behind a port's name or number.
    pub(crate) fn port(&self, port: &Value) -> Option<u16> {
        if let Some(number) = port.as_u64() {
            return u16::try_from(number).ok();
        }
        let ports = self.spec["ports"].as_array()?;
        let port = ports.iter().find(|known| known["name"] == *port)?;
        u16::try_from(port["containerPort"].as_u64()?).ok()
    }
}

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

/// The containers of a pod before anything is started.
pub(crate) fn containers_of(pod: &Object) -> Vec<Container> {
    pod.list("/spec/containers")
        .iter()
        .enumerate()
        .map(|(number, spec)| Container {
            name: spec["name"]
                .as_str()
                .map_or_else(|| number.to_string(), ToOwned::to_owned),
            state: ContainerState::Waiting,
            ready: false,
            restarts: 0,
            spec: spec.clone(),
        })
        .collect()
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
            ContainerState::Ended(code) => !self.restart_policy.restarts(code),
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
        if !self.containers.is_empty() && self.containers.iter().all(over) {
            let good = self
                .containers
                .iter()
                .all(|c| c.state == ContainerState::Ended(0));
            if good { "Succeeded" } else { "Failed" }
        } else if self.containers.iter().any(waits) {
            "Pending"
        } else {
            "Running"
        }
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
    pub(crate) fn status(&self, node: &Node, old: Option<&Value>) -> Value {
        let ready = if self.is_ready() { "True" } else { "False" };
        let condition = |kind: &str, status: &str| {
            let before = old
                .and_then(|status| status["conditions"].as_array())
                .into_iter()
                .flatten()
                .find(|condition| condition["type"] == kind && condition["status"] == status);
            let since =
                before.map_or_else(|| json!(now()), |old| old["lastTransitionTime"].clone());
            json!({"type": kind, "status": status, "lastTransitionTime": since})
        };
        let statuses: Vec<Value> = self
            .containers
            .iter()
            .map(|container| {
                let state = match &container.state {
                    ContainerState::Waiting => json!({"waiting": {"reason": "ContainerCreating"}}),
                    ContainerState::CannotStart(reason) => json!({"waiting": {
                        "reason": "CreateContainerError",
                        "message": reason,
                    }}),
                    ContainerState::Running => json!({"running": {"startedAt": self.started}}),
                    ContainerState::Ended(code) => json!({"terminated": {
                        "exitCode": code,
                        "reason": if *code == 0 { "Completed" } else { "Error" },
                    }}),
                };
                json!({
                    "name": container.name,
                    "image": container.spec["image"].as_str().unwrap_or_default(),
                    "ready": container.ready,
                    "restartCount": container.restarts,
                    "started": container.state == ContainerState::Running,
                    "state": state,
                })
            })
            .collect();
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
                condition("ContainersReady", ready),
                condition("Ready", ready),
            ],
            "containerStatuses": statuses,
        })
    }
}
