// SPDX-License-Identifier: Apache-2.0
//! What is kept between changes, where everybody may look at it: the compiled services and policies.
//!
//! It is not copied into snapshots, because ten thousand services would have to be copied for each that changes. The
//! loop writes, everybody else reads for a moment.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use weir_abi::service::FrontendKey;
use weir_abi::{Address, PolicyCookie, Port, Protocol, ServiceId};
use weir_api::policy::PolicyRule;
use weir_compile::policy::{Origin, Origins, PolicyCompiler};
use weir_compile::service::{FrontendOwner, ServiceCompiler};
use weir_model::PolicyRef;

/// Numbers of services, and what is behind them.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    services: RwLock<ServiceCompiler>,
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

    /// `shop/web`
    pub(crate) fn service_name(&self, service: ServiceId) -> Option<Arc<str>> {
        if service == ServiceId::NONE {
            return None;
        }
        let services = self.services();
        services
            .owner_of(service)
            .map(|owner| owner.to_string().into())
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
        let services = self.services();
        let owner = services.frontend_at(address, port, protocol)?;
        Some(owner.to_string())
    }
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
