// SPDX-License-Identifier: Apache-2.0
//! Why a service port has no backend: what a person would find out by hand.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};

use weir_model::{
    Family, Namespace, Pod, Service, ServicePort, ServiceSelector, TargetPort, World,
};

use super::choice::{BackendState, Candidate};

/// The reason, as a sentence that names what to look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoBackend {
    #[error("the service has no selector, and no {} endpoint slice names an endpoint", family.name())]
    NoEndpoints { family: Family },
    #[error("selector {selector} matches no running pod in namespace {namespace}")]
    NoPodMatches {
        selector: ServiceSelector,
        namespace: Namespace,
    },
    #[error(
        "selector {selector} matches {pods} {}, none of which has an {} address yet",
        plural(*pods, "pod"), family.name()
    )]
    NoPodHasAddress {
        selector: ServiceSelector,
        pods: usize,
        family: Family,
    },
    #[error(
        "selector {selector} matches {pods} {}, but no {} endpoint slice names them yet",
        plural(*pods, "pod"), family.name()
    )]
    NoSliceNamesPods {
        selector: ServiceSelector,
        pods: usize,
        family: Family,
    },
    #[error("no endpoint slice has port {}{}{}", quoted(name), named_target(target.as_deref()), known_ports(known))]
    NoSuchPort {
        name: String,
        /// The container port's name that the service port leads to, where it has one.
        target: Option<String>,
        /// What the slices have.
        known: Vec<String>,
    },
    #[error("{} not ready", counted_are(*not_ready))]
    NotReady { not_ready: usize },
    #[error("{} ending and {} no more", counted_are(*ending), if *ending == 1 { "serves" } else { "serve" })]
    Ending { ending: usize },
    #[error("{} not ready, {} more ending", counted_are(*not_ready), ending)]
    NotReadyOrEnding { not_ready: usize, ending: usize },
    #[error(
        "the traffic policy is Local and no usable endpoint is on this node ({elsewhere} elsewhere)"
    )]
    NotHere { elsewhere: usize },
    #[error("a map is full: see the problems of this node")]
    NoRoom,
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

fn counted_are(count: usize) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{count} {} {verb}", plural(count, "endpoint"))
}

fn quoted(name: &str) -> String {
    if name.is_empty() {
        "without a name".to_owned()
    } else {
        format!("`{name}`")
    }
}

fn named_target(target: Option<&str>) -> String {
    target.map_or_else(String::new, |target| {
        format!(" (targetPort `{target}` must be the name of a container port)")
    })
}

fn known_ports(known: &[String]) -> String {
    if known.is_empty() {
        ": they have none".to_owned()
    } else {
        format!(": they have {}", known.join(", "))
    }
}

/// Finds reasons in one world; pods are sorted by namespace once.
pub(super) struct Reasons<'a> {
    world: &'a World,
    pods: OnceCell<BTreeMap<&'a Namespace, Vec<&'a Pod>>>,
}

impl<'a> Reasons<'a> {
    pub(super) const fn new(world: &'a World) -> Self {
        Self {
            world,
            pods: OnceCell::new(),
        }
    }

    fn pods_in(&self, namespace: &Namespace) -> &[&'a Pod] {
        let all = self.pods.get_or_init(|| {
            let mut all: BTreeMap<_, Vec<&Pod>> = BTreeMap::new();
            for pod in self.world.pods() {
                let list = all.entry(&pod.reference.namespace).or_default();
                list.push(pod);
            }
            all
        });
        all.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// Why none of the endpoints that were found takes connections.
    pub(super) fn of(
        &self,
        service: &Service,
        port: &ServicePort,
        family: Family,
        found: &[Candidate<'_>],
        keeps_local: bool,
    ) -> NoBackend {
        if found.is_empty() {
            return self.nobody(service, port, family);
        }
        let count = |wanted| found.iter().filter(|one| one.state == wanted).count();
        let usable = count(BackendState::Active) + count(BackendState::Terminating);
        let (not_ready, ending) = (count(BackendState::NotReady), count(BackendState::Ending));
        if found
            .iter()
            .any(|one| if keeps_local { one.near } else { one.cluster })
        {
            NoBackend::NoRoom
        } else if usable > 0 {
            NoBackend::NotHere { elsewhere: usable }
        } else if ending == 0 {
            NoBackend::NotReady { not_ready }
        } else if not_ready == 0 {
            NoBackend::Ending { ending }
        } else {
            NoBackend::NotReadyOrEnding { not_ready, ending }
        }
    }

    /// Why no slice has an endpoint for this port.
    fn nobody(&self, service: &Service, port: &ServicePort, family: Family) -> NoBackend {
        let slices = self.world.slices_of(&service.reference).iter();
        let filled: Vec<_> = slices
            .filter(|slice| slice.family == family && !slice.endpoints.is_empty())
            .collect();
        if !filled.is_empty() {
            let ports = filled.iter().flat_map(|slice| slice.ports.iter());
            let known: BTreeSet<String> = ports
                .map(|port| format!("{} {}", quoted(&port.name), port.protocol))
                .collect();
            let target = match &port.target {
                TargetPort::Number(_) => None,
                TargetPort::Name(name) => Some(name.to_string()),
            };
            return NoBackend::NoSuchPort {
                name: port.name.to_string(),
                target,
                known: known.into_iter().collect(),
            };
        }
        let selector = service.selector.clone();
        let namespace = service.reference.namespace.clone();
        if selector.is_empty() {
            return NoBackend::NoEndpoints { family };
        }
        let matching = self.pods_in(&namespace).iter();
        let matching: Vec<_> = matching
            .filter(|pod| selector.matches(&pod.labels))
            .collect();
        let pods = matching.len();
        let mut addresses = matching.iter().flat_map(|pod| pod.addresses.iter());
        if pods == 0 {
            NoBackend::NoPodMatches {
                selector,
                namespace,
            }
        } else if addresses.any(|address| Family::of(*address) == family) {
            NoBackend::NoSliceNamesPods {
                selector,
                pods,
                family,
            }
        } else {
            NoBackend::NoPodHasAddress {
                selector,
                pods,
                family,
            }
        }
    }
}
