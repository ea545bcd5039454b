// SPDX-License-Identifier: Apache-2.0
//! A picture of the node for everybody who reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_abi::endpoint::flags;
use weir_abi::{Address, MacAddress};
use weir_api::endpoint::{
    Addressing, Endpoint as Shown, EndpointHealth, EndpointIdentity, EndpointState, EndpointStatus,
    ExternalIdentifiers, HealthLevel, Networking, PolicyStatus,
};
use weir_api::status::IpamPool;

use super::Core;
use crate::endpoint::Endpoint;
use crate::snapshot::Snapshot;

impl Core {
    /// Makes a picture for everybody else.
    pub(super) fn publish(&self) {
        let pools = self.ipam.pools().map(|(range, used, capacity)| IpamPool {
            cidr: range.to_string(),
            used,
            capacity,
        });
        let mut interfaces: BTreeMap<_, _> = self.network.names.clone();
        interfaces.extend(self.endpoints.values().map(|endpoint| {
            let index = weir_abi::IfIndex(endpoint.record.host_index);
            (index, endpoint.record.host_interface.clone())
        }));
        self.shared.publish(Snapshot {
            nodes: Arc::new(self.shared.world().nodes().cloned().collect()),
            compiled: Arc::clone(&self.compiled),
            identities: Arc::new(self.identities.clone()),
            endpoints: Arc::new(self.endpoints.values().map(|one| self.show(one)).collect()),
            interfaces: Arc::new(interfaces),
            namespaces: Arc::new(self.namespaces()),
            devices: self.network.shown(),
            pools: pools.collect(),
            revision: self.realized_revision,
            policy_revisions: self.policy_revisions(),
            maps: self
                .kernel
                .as_ref()
                .map(|kernel| Arc::clone(&kernel.datapath.maps)),
            dry_run: self
                .kernel
                .as_ref()
                .map(|kernel| Arc::clone(&kernel.dry_run)),
        });
    }

    fn namespaces(&self) -> BTreeMap<u64, String> {
        let pods = self.endpoints.values();
        let mut all: BTreeMap<_, _> = pods
            .filter_map(|one| Some((one.cookie?, one.pod.to_string())))
            .collect();
        let own = format!("node/{}", self.shared.node);
        all.insert(self.constants.namespace, own);
        all
    }

    /// The same picture, of a later revision: nothing that it shows differs.
    pub(super) fn publish_revision(&self) {
        self.shared.publish(Snapshot {
            revision: self.realized_revision,
            policy_revisions: self.policy_revisions(),
            ..Snapshot::clone(&self.shared.snapshot())
        });
    }

    fn show(&self, endpoint: &Endpoint) -> Shown {
        let record = &endpoint.record;
        let row = record
            .addresses
            .first()
            .and_then(|address| self.compiled.rows.endpoints.get(&Address::from(*address)));
        let identity = row.map_or(weir_abi::Identity::UNKNOWN, |row| row.identity);
        let level = |good: bool| {
            if good {
                HealthLevel::Ok
            } else {
                HealthLevel::Failure
            }
        };
        let overall = match endpoint.state {
            EndpointState::Ready => HealthLevel::Ok,
            EndpointState::WaitingForIdentity
            | EndpointState::WaitingToRegenerate
            | EndpointState::Regenerating => HealthLevel::Pending,
            EndpointState::Restoring => HealthLevel::Bootstrap,
            EndpointState::Disconnecting | EndpointState::Disconnected => HealthLevel::Disabled,
            EndpointState::NotReady | EndpointState::Invalid => HealthLevel::Failure,
        };
        let pending = overall != HealthLevel::Ok && overall != HealthLevel::Failure;
        let part = |good: bool| {
            if pending && !good {
                overall
            } else {
                level(good)
            }
        };
        let of_family = |v4: bool| {
            let mut found = record.addresses.iter().filter(move |ip| ip.is_ipv4() == v4);
            found.next().map(ToString::to_string)
        };
        let named_ports =
            self.shared
                .world()
                .pod(&endpoint.pod)
                .map_or_else(BTreeMap::new, |pod| {
                    let named = pod.container_ports.iter().filter_map(|port| {
                        Some((
                            port.name.clone()?,
                            format!("{}/{}", port.port, port.protocol),
                        ))
                    });
                    named.collect()
                });
        Shown {
            id: record.id,
            status: EndpointStatus {
                state: endpoint.state,
                external_identifiers: ExternalIdentifiers {
                    container_id: record.container_id.clone(),
                    k8s_namespace: record.namespace.clone(),
                    k8s_pod_name: record.pod.clone(),
                    pod_name: endpoint.pod.to_string(),
                },
                identity: EndpointIdentity {
                    id: identity.0,
                    labels: self.identities.display_labels(identity),
                },
                networking: Networking {
                    addressing: vec![Addressing {
                        ipv4: of_family(true),
                        ipv6: of_family(false),
                    }],
                    mac: endpoint.mac().to_string(),
                    host_mac: MacAddress::GATEWAY.to_string(),
                    interface_index: record.host_index,
                    interface_name: record.host_interface.clone(),
                    container_interface_name: record.interface.clone(),
                },
                health: EndpointHealth {
                    overall_health: overall,
                    bpf: part(endpoint.connected),
                    policy: part(endpoint.realized),
                    connected: endpoint.connected,
                },
                policy: self.policy_of(endpoint),
                named_ports,
                log: endpoint.log.iter().cloned().collect(),
            },
        }
    }

    /// What policy has to do with an endpoint, as far as its row says.
    fn policy_of(&self, endpoint: &Endpoint) -> PolicyStatus {
        let policy = self.shared.directory.policy();
        let address = endpoint.record.addresses.first();
        let row = address.and_then(|ip| policy.rows().endpoints.get(&Address::from(*ip)));
        let Some(row) = row else {
            return PolicyStatus::default();
        };
        PolicyStatus {
            ingress_enforced: row.flags & flags::ENFORCE_INGRESS != 0,
            egress_enforced: row.flags & flags::ENFORCE_EGRESS != 0,
            set: row.policy_set.get(),
            ..PolicyStatus::default()
        }
    }
}
