// SPDX-License-Identifier: Apache-2.0
//! A container of a pod: what it runs, what it serves, what it is doing.

use serde_json::{Value, json};

use crate::{object::Object, protocol::Protocol};

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
    /// Whether it is an init container that keeps running beside the others.
    pub(crate) sidecar: bool,
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

    pub(super) fn status(&self, started: &str) -> Value {
        let state = match &self.state {
            ContainerState::Waiting => json!({"waiting": {"reason": "ContainerCreating"}}),
            ContainerState::CannotStart(reason) => json!({"waiting": {
                "reason": "CreateContainerError",
                "message": reason,
            }}),
            ContainerState::Running => json!({"running": {"startedAt": started}}),
            ContainerState::Ended(code) => json!({"terminated": {
                "exitCode": code,
                "reason": if *code == 0 { "Completed" } else { "Error" },
            }}),
        };
        json!({
            "name": self.name,
            "image": self.spec["image"].as_str().unwrap_or_default(),
            "ready": self.ready,
            "restartCount": self.restarts,
            "started": self.state == ContainerState::Running,
            "state": state,
        })
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

/// The containers of a pod before anything is started, the sidecars first.
pub(crate) fn containers_of(pod: &Object) -> Vec<Container> {
    let inits = pod.list("/spec/initContainers").iter();
    let sidecars = inits
        .filter(|init| is_sidecar(init))
        .map(|init| (init, true));
    let others = pod
        .list("/spec/containers")
        .iter()
        .map(|spec| (spec, false));
    sidecars
        .chain(others)
        .enumerate()
        .map(|(number, (spec, sidecar))| Container {
            name: spec["name"]
                .as_str()
                .map_or_else(|| number.to_string(), ToOwned::to_owned),
            state: ContainerState::Waiting,
            ready: false,
            restarts: 0,
            sidecar,
            spec: spec.clone(),
        })
        .collect()
}

/// Whether an init container keeps running.
pub(crate) fn is_sidecar(init: &Value) -> bool {
    init["restartPolicy"] == "Always"
}
