// SPDX-License-Identifier: Apache-2.0
//! What is kept between changes, where everybody may look at it: the world, the compiled services and policies.
//!
//! It is not copied into snapshots, because ten thousand services would have to be copied for each that changes. The
//! loop writes, everybody else reads for a moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use weir_abi::policy::PolicyDirection;
use weir_abi::service::FrontendKey;
use weir_abi::{Address, Identity, PolicyCookie, Port, Protocol, ServiceId};
use weir_api::policy::PolicyRule;
use weir_compile::policy::{Origin, Origins, Peer, PolicyCompiler, Question, allowing, explain};
use weir_compile::service::{FrontendOwner, ServiceCompiler};
use weir_model::{IdentityTable, LabelSet, PolicyRef, World};
use weir_observe::Denial;

/// Numbers of services, and what is behind them.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    world: RwLock<World>,
    services: RwLock<ServiceCompiler>,
    /// The kernel holds what the compiler of services desires.
    pub(crate) services_in_kernel: AtomicBool,
    /// Services that have ports without a usable backend.
    pub(crate) without_backend: AtomicU64,
    policy: RwLock<PolicyCompiler>,
    /// What cookies stand for; one that means nothing any more is kept for events that are on their way.
    rules: RwLock<HashMap<PolicyCookie, Rules>>,
}

/// The rules behind a cookie.
#[derive(Debug)]
struct Rules {
    rules: Arc<[PolicyRule]>,
    retired: Option<Instant>,
}

/// How long a cookie that means nothing any more can still be asked for.
const MEMORY: Duration = Duration::from_mins(2);

impl Directory {
    /// The desired world. Hold it no longer than a look takes: changes wait for it.
    pub(crate) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, for the loop alone.
    pub(crate) fn world_mut(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// To look at.
    pub(crate) fn services(&self) -> RwLockReadGuard<'_, ServiceCompiler> {
        self.services.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the loop alone.
    pub(crate) fn services_mut(&self) -> RwLockWriteGuard<'_, ServiceCompiler> {
        self.services
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// To look at.
    pub(crate) fn policy(&self) -> RwLockReadGuard<'_, PolicyCompiler> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the loop alone.
    pub(crate) fn policy_mut(&self) -> RwLockWriteGuard<'_, PolicyCompiler> {
        self.policy.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what cookies mean now.
    pub(crate) fn note_cookies(&self, changes: Vec<(PolicyCookie, Option<Origins>)>) {
        if changes.is_empty() {
            return;
        }
        let now = Instant::now();
        let mut all = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        for (cookie, origins) in changes {
            match origins {
                Some(origins) => {
                    let rules = Rules {
                        rules: origins.iter().map(policy_rule).collect(),
                        retired: None,
                    };
                    all.insert(cookie, rules);
                }
                None => {
                    if let Some(rules) = all.get_mut(&cookie) {
                        rules.retired = Some(now);
                    }
                }
            }
        }
        let old = |rules: &Rules| {
            rules
                .retired
                .is_some_and(|since| now.saturating_duration_since(since) > MEMORY)
        };
        all.retain(|_, rules| !old(rules));
    }

    /// The rules behind a cookie.
    pub(crate) fn rules(&self, cookie: PolicyCookie) -> Option<Arc<[PolicyRule]>> {
        let all = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&cookie).map(|rules| Arc::clone(&rules.rules))
    }

    /// The policies that isolate pods of a label set in one direction.
    pub(crate) fn isolating(&self, set: &LabelSet, direction: PolicyDirection) -> Vec<PolicyRule> {
        let world = self.world();
        let policies = world.policies().filter(|policy| {
            policy.rules(direction).is_some() && policy.selects(&set.namespace, &set.labels)
        });
        policies
            .map(|policy| whole_policy(&policy.reference))
            .collect()
    }

    /// The rule that would have allowed a connection, but for what.
    pub(crate) fn nearest_miss(
        &self,
        denial: &Denial,
        identities: &IdentityTable,
    ) -> Option<String> {
        let question = question(denial, identities)?;
        let nearest = explain(&self.world(), &question).nearest?;
        Some(nearest.to_string())
    }

    /// All policies that allow a connection.
    pub(crate) fn allowing(&self, asked: &Denial, identities: &IdentityTable) -> Vec<PolicyRef> {
        let question = question(asked, identities);
        question.map_or_else(Vec::new, |question| allowing(&self.world(), &question))
    }

    /// `shop/web:http`; the number stands in the place of a name that there is not.
    pub(crate) fn service_name(&self, service: ServiceId) -> Option<Arc<str>> {
        if service == ServiceId::NONE {
            return None;
        }
        let world = self.world();
        let services = self.services();
        let owner = services.owner_of(service)?;
        let port = services.port_of(service);
        Some(named_port(owner, port, &world).into())
    }

    /// Why clients of this node find no backend; none where they do.
    pub(crate) fn no_backend(&self, service: ServiceId) -> Option<String> {
        let world = self.world();
        let services = self.services();
        let owner = services.owner_of(service)?;
        let mut frontends = services
            .listing_of(owner, &world)
            .filter(|one| one.row.service == service);
        frontends.find_map(|one| {
            let why = one.internal_reason.or(one.external_reason)?;
            Some(why.to_string())
        })
    }

    /// `svc:shop/web` for an address that is a service's alone.
    pub(crate) fn address_name(&self, address: Address) -> Option<String> {
        let services = self.services();
        let rows = services.rows();
        if !rows.addresses.contains(&address) {
            return None;
        }
        let first = FrontendKey::new(address, Port::NONE, Protocol(0));
        let (key, row) = rows.frontends.range(first..).next()?;
        let owner = services.owner_of(row.service)?;
        (key.address == address).then(|| reference(owner))
    }

    /// The service that answers at an address and port.
    pub(crate) fn frontend_name(
        &self,
        address: Address,
        port: Port,
        protocol: Protocol,
    ) -> Option<String> {
        let key = FrontendKey::new(address, port, protocol);
        let service = self.services().rows().frontends.get(&key)?.service;
        self.service_name(service).map(|name| name.to_string())
    }
}

fn named_port(owner: &FrontendOwner, port: Option<(u16, Protocol)>, world: &World) -> String {
    let Some((number, protocol)) = port else {
        return owner.to_string();
    };
    let name = match owner {
        FrontendOwner::Service(service) => {
            let service = world.service(service);
            let mut ports = service.iter().flat_map(|service| service.ports.iter());
            let port = ports.find(|port| (port.port, port.protocol) == (number, protocol));
            let name = port.map(|port| port.name.to_string());
            name.filter(|name| !name.is_empty())
                .or(Some(number.to_string()))
        }
        FrontendOwner::Pod(pod) => {
            let pod = world.pod(pod);
            let port = pod.and_then(|pod| pod.container_ports.get(usize::from(number)));
            port.map(|port| port.port.to_string())
        }
    };
    match name {
        Some(name) => format!("{owner}:{name}"),
        None => owner.to_string(),
    }
}

/// What the policies of one side are asked.
fn question<'a>(asked: &Denial, identities: &'a IdentityTable) -> Option<Question<'a>> {
    let node = |own| Peer::Node { own, pod: None };
    let peer = match identities.set(asked.peer) {
        Some(set) => Peer::Pod(set),
        None if asked.peer == Identity::HOST => node(true),
        None if asked.peer == Identity::REMOTE_NODE => node(false),
        None => Peer::Outside,
    };
    Some(Question {
        subject: identities.set(asked.subject)?,
        direction: asked.direction,
        peer,
        peer_address: Some(asked.peer_address.to_ip()),
        protocol: asked.protocol,
        port: asked.port,
    })
}

/// What others are told of an origin.
pub(crate) fn policy_rule(origin: &Origin) -> PolicyRule {
    match origin {
        Origin::OwnNode => PolicyRule {
            kind: "Implicit".to_owned(),
            namespace: String::new(),
            name: "own node".to_owned(),
            rule: None,
        },
        Origin::Rule {
            policy,
            direction: _,
            rule,
        } => PolicyRule {
            rule: Some(*rule),
            ..whole_policy(policy)
        },
    }
}

/// The same for a policy as a whole.
pub(crate) fn whole_policy(policy: &PolicyRef) -> PolicyRule {
    PolicyRule {
        kind: "NetworkPolicy".to_owned(),
        namespace: policy.namespace.to_string(),
        name: policy.name.to_string(),
        rule: None,
    }
}

/// As commands take it.
fn reference(owner: &FrontendOwner) -> String {
    match owner {
        FrontendOwner::Service(service) => format!("svc:{service}"),
        FrontendOwner::Pod(pod) => pod.to_string(),
    }
}
