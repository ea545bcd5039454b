// SPDX-License-Identifier: Apache-2.0
//! Compile, plan, execute; then say how it went.

use std::net::IpAddr;
use std::sync::Arc;

use weir_abi::Address;
use weir_abi::endpoint::flags::READY;
use weir_api::endpoint::EndpointState;
use weir_compile::exempt::default_exempt;
use weir_compile::{RoutingMode, Settings, compile};
use weir_model::LabelSet;

use super::{Connected, Core};
use crate::config;
use crate::endpoint::Endpoint;
use crate::error::{EndpointError, chain};

impl Core {
    /// Realizes whatever has changed and answers those who asked for it.
    pub(super) fn settle(&mut self) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        // Before the work of this node: the others have theirs to do, too.
        self.announce();
        let base = self.base_dirty;
        let (written, judged) = if self.synced && self.kernel.is_some() {
            self.realize()
        } else {
            (Ok(()), base)
        };
        self.finish_removed();
        if judged {
            self.publish();
        } else {
            self.publish_revision();
        }
        // Whoever is answered finds what was done in the snapshot.
        self.answer(&written);
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
            direct_return: config.load_balancer_mode == config::LoadBalancerMode::Dsr,
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

    /// Tells whether everything is realized, and whether anything about endpoints may differ now.
    fn realize(&mut self) -> (Result<(), String>, bool) {
        let base = std::mem::take(&mut self.base_dirty);
        let routes_differ = base && self.compile();
        let touched = std::mem::take(&mut self.touched);
        let services = self.update_services(&touched);
        let judged = self.update_policy(&touched) || base;
        let mut written = self.write_rows();
        // New pods are reachable before a service leads to them.
        written = written.and(self.write_services(services));
        let taken_over = self.take_over();
        if base {
            let attached = if taken_over {
                self.attach_all()
            } else {
                self.attach_new()
            };
            if let Err(error) = attached {
                written = written.and(Err(error));
            }
            if routes_differ {
                self.check_routes();
            }
        }
        if judged {
            self.judge_endpoints();
        }
        if written.is_ok() {
            self.realized_revision = self.revision;
        }
        (written, judged)
    }

    /// The rows of nodes and pods; tells whether the routes differ.
    fn compile(&mut self) -> bool {
        self.remember_labels();
        let endpoints: Vec<_> = self.endpoints.values().map(Endpoint::local).collect();
        let (settings, before) = (self.settings(), self.identities.clone());
        let compiled = compile(
            &self.shared.world(),
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
        routes_differ
    }

    /// The new programs take the place of those of an agent before, once their rows are there; tells whether they just
    /// did.
    fn take_over(&mut self) -> bool {
        let Some(kernel) = self.kernel.as_mut().filter(|kernel| !kernel.active) else {
            return false;
        };
        match kernel.datapath.activate() {
            Ok(activation) => {
                tracing::info!(%activation, "programs are active");
                kernel.active = true;
                for error in &activation.failed {
                    tracing::error!(error = chain(error), "a link keeps its old program");
                }
                self.attach_sockets();
                self.accelerate();
                true
            }
            Err(error) => {
                let message = chain(&error);
                self.shared.report("datapath", false, message.clone());
                tracing::error!("{message}");
                false
            }
        }
    }

    /// Keeps each pod's labels for the time when its object is not known (after a restart, while it
    /// is being deleted).
    fn remember_labels(&mut self) {
        let world = self.shared.world();
        for endpoint in self.endpoints.values_mut() {
            let Some(pod) = world.pod(&endpoint.pod) else {
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
        let directory = Arc::clone(&self.shared.directory);
        let policy = directory.policy();
        let mut failed = Vec::new();
        for endpoint in self.endpoints.values_mut() {
            let mut fail = |endpoint: &mut Endpoint, message: &str| {
                if endpoint.fail(EndpointState::NotReady, message) {
                    failed.push((endpoint.pod.clone(), message.to_owned()));
                }
            };
            let desired = |address: &IpAddr| {
                let row = policy.rows().endpoints.get(&Address::from(*address));
                row.copied()
            };
            let wanted = |address: &IpAddr| {
                let row = desired(address);
                row.is_some()
                    && self.realized.endpoints.get(&Address::from(*address)) == row.as_ref()
            };
            let addresses = &endpoint.record.addresses;
            endpoint.realized = addresses.iter().all(wanted);
            let ready = |address| desired(address).is_some_and(|row| row.flags & READY != 0);
            let allowed = addresses.iter().all(ready);
            if endpoint.record.labels.is_none() {
                endpoint.enter(
                    EndpointState::WaitingForIdentity,
                    "the pod's object has not been seen yet",
                );
            } else if !endpoint.realized {
                fail(endpoint, "its rows are not in the kernel");
            } else if !allowed {
                // Its traffic is dropped: a policy that is realized in part would be another policy.
                let message = "its policy does not fit into the maps: see `weir status`";
                fail(endpoint, message);
            } else if !endpoint.connected {
                fail(endpoint, "its link has no program");
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
        for (pod, message) in failed {
            self.remark_on_pod(&pod, message);
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
                    self.remark_on_pod(&endpoint.pod, message.clone());
                    let pod = endpoint.pod.to_string();
                    Err(EndpointError::Rows {
                        pod,
                        message: message.clone(),
                    })
                }
                (Some(endpoint), _) => Ok(Connected {
                    created: super::requests::created(endpoint),
                    accepting: self.accepting.clone(),
                }),
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
}
