// SPDX-License-Identifier: Apache-2.0
//! One endpoint: what is known of it, its state and what happened to it.

use std::collections::VecDeque;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use weir_abi::{EndpointId, IfIndex, MacAddress, Protocol};
use weir_api::endpoint::{EndpointState, LogEntry};
use weir_compile::LocalEndpoint;
use weir_model::{InvalidName, LabelSet, Labels, NamedPort, NamedPorts, PodRef};
use weir_net::NetNamespace;

use crate::announced::Announced;

/// Entries that an endpoint's log keeps.
const LOG: usize = 256;

/// What outlives the agent, as one JSON file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) id: u16,
    pub(crate) container_id: String,
    pub(crate) netns: String,
    /// Inode of the network namespace: paths are reused.
    pub(crate) netns_inode: u64,
    /// Name inside the pod.
    pub(crate) interface: String,
    /// Name on the node.
    pub(crate) host_interface: String,
    pub(crate) host_index: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) mtu: u32,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    /// That of the pod object, as the runtime says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    /// As last seen: what the pod is while its object is not known.
    #[serde(default)]
    pub(crate) labels: Option<Vec<(String, String)>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) named_ports: Vec<SavedPort>,
}

/// A named container port in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPort {
    name: String,
    protocol: u8,
    port: u16,
}

/// Named ports as files hold them.
pub(crate) fn saved_ports(ports: &NamedPorts) -> Vec<SavedPort> {
    let saved = ports.iter().map(|port| SavedPort {
        name: port.name.clone(),
        protocol: port.protocol.0,
        port: port.port,
    });
    saved.collect()
}

/// Named ports out of a file.
pub(crate) fn named_ports(saved: &[SavedPort]) -> NamedPorts {
    let ports = saved.iter().map(|port| NamedPort {
        name: port.name.clone(),
        protocol: Protocol(port.protocol),
        port: port.port,
    });
    ports.collect()
}

impl Record {
    /// The pod's name, proven (again: files can be edited).
    pub(crate) fn reference(&self) -> Result<PodRef, InvalidName> {
        PodRef::new(&self.namespace, &self.pod)
    }

    /// The pod's network namespace; none once it is gone, or another one is behind the path.
    pub(crate) fn namespace(&self) -> Option<NetNamespace> {
        let found = NetNamespace::open(&self.netns).ok()?;
        let same = found.inode().is_ok_and(|inode| inode == self.netns_inode);
        same.then_some(found)
    }

    /// The labels as last seen.
    pub(crate) fn label_set(&self) -> Option<LabelSet> {
        let labels = Labels::new(self.labels.clone()?).ok()?;
        Some(LabelSet {
            namespace: self.reference().ok()?.namespace,
            labels,
            ports: named_ports(&self.named_ports),
        })
    }

    /// Remembers a label set; tells whether it is another one than before.
    pub(crate) fn remember(&mut self, set: &LabelSet) -> bool {
        let labels = set.labels.iter();
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let (labels, ports) = (Some(labels.collect()), saved_ports(&set.ports));
        let differs = self.labels != labels || self.named_ports != ports;
        if differs {
            (self.labels, self.named_ports) = (labels, ports);
        }
        differs
    }
}

/// An endpoint of this node.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) record: Record,
    pub(crate) pod: PodRef,
    pub(crate) state: EndpointState,
    /// Newest first.
    pub(crate) log: VecDeque<LogEntry>,
    /// The link is there and the program is attached to it.
    pub(crate) connected: bool,
    /// Its rows are in the kernel.
    pub(crate) realized: bool,
    pub(crate) announced: Announced,
    /// The number of its network namespace; none where that cannot be asked.
    pub(crate) cookie: Option<u64>,
}

impl Endpoint {
    /// An endpoint in its first state.
    pub(crate) fn new(
        record: Record,
        pod: PodRef,
        cookie: Option<u64>,
        state: EndpointState,
        message: &str,
    ) -> Self {
        let mut endpoint = Self {
            cookie,
            record,
            pod,
            state,
            log: VecDeque::new(),
            connected: false,
            realized: false,
            announced: Announced::default(),
        };
        endpoint.note("OK", message);
        endpoint
    }

    /// Moves on; the log tells it. Staying where it is is not worth a line.
    pub(crate) fn enter(&mut self, state: EndpointState, message: &str) {
        if self.state != state {
            self.state = state;
            self.note("OK", message);
        }
    }

    /// Something failed; the log tells it once, and so does this.
    pub(crate) fn fail(&mut self, state: EndpointState, message: &str) -> bool {
        let known = self.state == state
            && self
                .log
                .front()
                .is_some_and(|entry| entry.message == message);
        if !known {
            self.state = state;
            self.note("Failure", message);
            tracing::warn!(endpoint = self.record.id, pod = %self.pod, reason = message, "endpoint not ready");
        }
        !known
    }

    /// Writes a line without a change of state.
    pub(crate) fn note(&mut self, code: &str, message: &str) {
        self.log.push_front(LogEntry {
            timestamp: crate::time::now(),
            code: code.to_owned(),
            state: self.state,
            message: message.to_owned(),
        });
        self.log.truncate(LOG);
    }

    pub(crate) fn id(&self) -> EndpointId {
        EndpointId(self.record.id)
    }

    pub(crate) fn mac(&self) -> MacAddress {
        MacAddress(self.record.mac)
    }

    /// As the compiler wants it.
    pub(crate) fn local(&self) -> LocalEndpoint {
        LocalEndpoint {
            id: self.id(),
            pod: self.pod.clone(),
            interface: IfIndex(self.record.host_index),
            mac: self.mac(),
            addresses: self.record.addresses.clone(),
            labels: self.record.label_set(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(id: u16) -> Record {
        Record {
            id,
            container_id: format!("c{id}"),
            netns: "/proc/1/ns/net".to_owned(),
            netns_inode: 1,
            interface: "eth0".to_owned(),
            host_interface: format!("weir{id:08x}"),
            host_index: 100 + u32::from(id),
            mac: [2, 0, 0, 0, 0, 1],
            addresses: vec!["10.1.0.1".parse().unwrap()],
            mtu: 1450,
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            uid: None,
            labels: Some(vec![("app".to_owned(), "web".to_owned())]),
            named_ports: vec![SavedPort {
                name: "http".to_owned(),
                protocol: 6,
                port: 8080,
            }],
        }
    }

    #[test]
    fn a_file_without_named_ports_is_read() {
        let mut file = serde_json::to_value(record(5)).unwrap();
        file.as_object_mut().unwrap().remove("namedPorts").unwrap();
        let mut old: Record = serde_json::from_value(file).unwrap();
        assert!(old.label_set().unwrap().ports.is_empty());
        let set = record(5).label_set().unwrap();
        assert!(old.remember(&set) && !old.remember(&set));
        assert_eq!(old, record(5));
    }

    #[test]
    fn the_log_is_a_ring_of_256_with_the_newest_first() {
        let record = record(5);
        let pod = record.reference().unwrap();
        let state = EndpointState::WaitingForIdentity;
        let mut endpoint = Endpoint::new(record, pod, None, state, "created");
        for number in 0..300 {
            endpoint.note("OK", &number.to_string());
        }
        assert_eq!(endpoint.log.len(), 256);
        assert_eq!(endpoint.log.front().unwrap().message, "299");
        endpoint.enter(EndpointState::WaitingForIdentity, "nothing new");
        assert_eq!(endpoint.log.front().unwrap().message, "299");
        for _ in 0..2 {
            endpoint.fail(EndpointState::NotReady, "broken");
        }
        assert_eq!(endpoint.log.get(1).unwrap().message, "299");
    }
}
