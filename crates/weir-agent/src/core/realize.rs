// SPDX-License-Identifier: Apache-2.0
//! Compile, plan, execute; then say how it went.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_abi::{Address, MacAddress};
use weir_api::endpoint::{
    Addressing, Endpoint as Shown, EndpointHealth, EndpointIdentity, EndpointState, EndpointStatus,
    ExternalIdentifiers, HealthLevel, Networking, PolicyStatus,
};
use weir_api::status::IpamPool;
use weir_compile::exempt::default_exempt;
use weir_compile::{RoutingMode, Settings, compile, plan};
use weir_datapath::execute;
use weir_model::LabelSet;

use super::Core;
use crate::config;
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, chain};
use crate::shared::Snapshot;

impl Core {
    /// Realizes whatever has changed and answers those who asked for it.
    pub(super) fn settle(&mut self) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        let written = if self.synced && self.kernel.is_some() {
            self.realize()
        } else {
            Ok(())
        };
        self.finish_removed();
        self.answer(&written);
        self.publish();
    }

    fn settings(&self) -> Settings {
        let config = &self.shared.config;
        let size = |map: &weir_abi::map::MapInfo| match &self.kernel {
            Some(kernel) => {
                let raw = kernel.datapath.maps.by_name(map.name);
                raw.map_or(map.default_size, |table| table.info().size)
            }
            None => map.default_size,
        };
        Settings {
            node: self.shared.node.clone(),
            routing: match config.routing_mode {
                config::RoutingMode::Tunnel => RoutingMode::Tunnel,
                config::RoutingMode::Native => RoutingMode::Native,
            },
            masquerade: config.masquerade,
            non_masquerade: config
                .non_masquerade_cidrs
                .clone()
                .unwrap_or_else(default_exempt),
            node_addresses: self.network.addresses.iter().map(|(_, ip)| *ip).collect(),
            pod_mtu: u32::from(self.network.pod_mtu),
            endpoints_size: size(&weir_abi::map::ENDPOINTS),
            ipcache_size: size(&weir_abi::map::IPCACHE),
            masquerade_exempt_size: size(&weir_abi::map::MASQUERADE_EXEMPT),
            nodes_size: size(&weir_abi::map::NODES),
        }
    }

    fn realize(&mut self) -> Result<(), String> {
        self.remember_labels();
        let endpoints: Vec<_> = self.endpoints.values().map(Endpoint::local).collect();
        let (settings, before) = (self.settings(), self.identities.clone());
        let compiled = compile(
            &self.world,
            &settings,
            &endpoints,
            &mut self.identities,
            &mut self.indices,
        );
        // On disk before it is in a map: a number must not mean something else after a crash.
        if self.identities != before
            && let Err(error) = self.store.save_identities(&self.identities)
        {
            tracing::error!(error = chain(&error), "identities are not saved");
        }
        for problem in compiled
            .problems
            .iter()
            .filter(|one| !self.compiled.problems.contains(one))
        {
            tracing::warn!("{problem}");
        }
        let problems: Vec<_> = compiled.problems.iter().map(ToString::to_string).collect();
        let message = if problems.is_empty() {
            format!(
                "{} rows for {} endpoints",
                compiled.rows.len(),
                endpoints.len()
            )
        } else {
            problems.join("; ")
        };
        self.shared.report("world", problems.is_empty(), message);
        let routes_differ = self.compiled.routes != compiled.routes;
        self.compiled = Arc::new(compiled);

        let mut written = self.write_rows();
        self.take_over();
        if let Err(error) = self.attach_all() {
            written = written.and(Err(error));
        }
        if routes_differ {
            self.check_routes();
        }
        self.judge_endpoints();
        if written.is_ok() {
            self.realized_revision = self.revision;
        }
        written
    }

    fn write_rows(&mut self) -> Result<(), String> {
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        let plan = plan(&self.realized, &self.compiled.rows);
        if plan.is_empty() {
            self.shared.ran("map-sync", Ok("nothing to do".to_owned()));
            self.shared.report(
                "maps",
                true,
                format!("{} rows as desired", self.realized.len()),
            );
            return Ok(());
        }
        let changes = plan.changes().count();
        let outcome = execute(&kernel.datapath.maps, &plan);
        let failed: Vec<_> = outcome
            .failures
            .iter()
            .map(|failure| failure.operation)
            .collect();
        for operation in plan
            .changes()
            .filter(|operation| !failed.contains(operation))
        {
            self.realized.apply(operation);
            tracing::debug!("{operation}");
        }
        let ipcache = weir_abi::map::IPCACHE.name;
        let mappings = plan
            .changes()
            .filter(|operation| operation.map() == ipcache)
            .count();
        if mappings > 0 {
            self.shared
                .events
                .agent("ipcache-updated", &format!("{mappings} prefixes"));
        }
        match outcome.failures.first() {
            None => {
                self.shared
                    .ran("map-sync", Ok(format!("{changes} rows written")));
                self.shared.report(
                    "maps",
                    true,
                    format!("{} rows as desired", self.realized.len()),
                );
                Ok(())
            }
            Some(first) => {
                let (count, cause) = (outcome.failures.len(), chain(&first.error));
                let message = format!(
                    "{count} of {changes} rows refused, the first: {}: {cause}",
                    first.operation
                );
                self.shared.ran("map-sync", Err(message.clone()));
                self.shared.report("maps", false, message.clone());
                Err(message)
            }
        }
    }

    /// The new programs take the place of those of an agent before, once their rows are there.
    fn take_over(&mut self) {
        let Some(kernel) = self.kernel.as_mut().filter(|kernel| !kernel.active) else {
            return;
        };
        match kernel.datapath.activate() {
            Ok(activation) => {
                tracing::info!(%activation, "programs are active");
                kernel.active = true;
                for error in &activation.failed {
                    tracing::error!(error = chain(error), "a link keeps its old program");
                }
                self.attach_sockets();
            }
            Err(error) => {
                let message = chain(&error);
                self.shared.report("datapath", false, message.clone());
                tracing::error!("{message}");
            }
        }
    }

    /// Keeps each pod's labels for the time when its object is not known (after a restart, while it
    /// is being deleted).
    fn remember_labels(&mut self) {
        for endpoint in self.endpoints.values_mut() {
            let Some(pod) = self.world.pod(&endpoint.pod) else {
                continue;
            };
            let known = endpoint.record.labels.is_some();
            if endpoint.record.remember(&LabelSet::of(pod)) {
                let message = if known {
                    "labels changed"
                } else {
                    "identity resolved"
                };
                endpoint.enter(EndpointState::WaitingToRegenerate, message);
                if let Err(error) = self.store.save_endpoint(&endpoint.record) {
                    endpoint.note("Warning", &chain(&error));
                }
            }
        }
    }

    /// Moves every endpoint to the state that its rows and its link say.
    pub(super) fn judge_endpoints(&mut self) {
        for endpoint in self.endpoints.values_mut() {
            let wanted = |address: &std::net::IpAddr| {
                let key = Address::from(*address);
                let row = self.compiled.rows.endpoints.get(&key);
                row.is_some() && self.realized.endpoints.get(&key) == row
            };
            endpoint.realized = endpoint.record.addresses.iter().all(wanted);
            if endpoint.record.labels.is_none() {
                endpoint.enter(
                    EndpointState::WaitingForIdentity,
                    "the pod's object has not been seen yet",
                );
            } else if !endpoint.realized {
                endpoint.fail(EndpointState::NotReady, "its rows are not in the kernel");
            } else if !endpoint.connected {
                endpoint.fail(EndpointState::NotReady, "its link has no program");
            } else if endpoint.state != EndpointState::Ready {
                endpoint.enter(EndpointState::Regenerating, "rows are being written");
                endpoint.enter(EndpointState::Ready, "rows are in the kernel");
                let (id, pod) = (endpoint.record.id, &endpoint.pod);
                let count = &self.shared.counts.regenerations;
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.shared
                    .events
                    .agent("endpoint-regenerated", &format!("endpoint {id} {pod}"));
            }
        }
        let total = self.endpoints.len();
        let ready = self
            .endpoints
            .values()
            .filter(|one| one.state == EndpointState::Ready)
            .count();
        let failed = self
            .endpoints
            .values()
            .filter(|one| matches!(one.state, EndpointState::NotReady | EndpointState::Invalid));
        let names: Vec<_> = failed.map(|one| one.pod.to_string()).collect();
        let message = if names.is_empty() {
            format!("{ready} of {total} ready")
        } else {
            format!("{ready} of {total} ready, not so: {}", names.join(", "))
        };
        self.shared.report("endpoints", names.is_empty(), message);
    }

    fn answer(&mut self, written: &Result<(), String>) {
        for (id, since, reply) in std::mem::take(&mut self.created) {
            let answer = match (self.endpoints.get(&id), written) {
                (None, _) => Err(EndpointError::Unknown(id.to_string())),
                (Some(endpoint), Err(message)) if !(endpoint.realized && endpoint.connected) => {
                    let pod = endpoint.pod.to_string();
                    Err(EndpointError::Rows {
                        pod,
                        message: message.clone(),
                    })
                }
                (Some(endpoint), _) => Ok(super::requests::created(endpoint)),
            };
            if answer.is_ok() {
                self.shared
                    .counts
                    .creation_seconds
                    .observe(since.elapsed().as_secs_f64());
            }
            // A caller that has gone away asks again; creation is idempotent.
            let _ = reply.send(answer);
        }
        for reply in std::mem::take(&mut self.deleted) {
            let _ = reply.send(Ok(()));
        }
    }

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
            world: Arc::clone(&self.world),
            compiled: Arc::clone(&self.compiled),
            identities: Arc::new(self.identities.clone()),
            endpoints: Arc::new(self.endpoints.values().map(|one| self.show(one)).collect()),
            interfaces: Arc::new(interfaces),
            devices: self.network.shown(),
            pools: pools.collect(),
            revision: self.realized_revision,
            maps: self
                .kernel
                .as_ref()
                .map(|kernel| Arc::clone(&kernel.datapath.maps)),
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
        let named_ports = self
            .world
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
                policy: PolicyStatus {
                    ingress_enforced: false,
                    egress_enforced: false,
                    set: 0,
                    ingress_policies: Vec::new(),
                    egress_policies: Vec::new(),
                    realized: Vec::new(),
                },
                named_ports,
                log: endpoint.log.iter().cloned().collect(),
            },
        }
    }
}
