// SPDX-License-Identifier: Apache-2.0
//! Which endpoints of a service port answer, seen from this node.
//!
//! As kube-proxy decides (pkg/proxy/topology.go): ready endpoints, narrowed by hints as long as they
//! are complete and name this node or zone; where none is ready, those that are about to end and
//! still serve.

use weir_abi::{Address, Port, Protocol};
use weir_model::{Endpoint, Family, Hints, NodeName, PodName, Service, ServicePort, World, Zone};

/// How an endpoint is, from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendState {
    /// Takes connections.
    Active,
    /// About to end, still serving: takes new connections only where nobody is active.
    Terminating,
    /// Alive, but its readiness probe fails: keeps the connections that it has.
    NotReady,
    /// About to end and not serving any more.
    Ending,
}

impl BackendState {
    /// As listings name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Terminating => "terminating",
            Self::NotReady => "not-ready",
            Self::Ending => "ending",
        }
    }

    fn of(endpoint: &Endpoint, publish_not_ready: bool) -> Self {
        if endpoint.ready || publish_not_ready {
            Self::Active
        } else if !endpoint.terminating {
            Self::NotReady
        } else if endpoint.serving {
            Self::Terminating
        } else {
            Self::Ending
        }
    }

    /// Whether connections that there are go on. A datagram has no connection to lose: its sender
    /// is better off with a backend that answers.
    pub(super) fn keeps(self, protocol: Protocol) -> bool {
        match self {
            Self::Active | Self::Terminating => true,
            Self::NotReady | Self::Ending => protocol != Protocol::UDP,
        }
    }
}

/// An endpoint of a service port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) address: Address,
    pub(super) port: Port,
    pub(super) state: BackendState,
    pub(super) local: bool,
    pub(super) node: Option<&'a NodeName>,
    pub(super) zone: Option<&'a Zone>,
    pub(super) pod: Option<&'a PodName>,
    hints: Option<&'a Hints>,
    /// One of those that all clients of this node may reach.
    pub(super) cluster: bool,
    /// One of those that clients reach who may only go to this node's endpoints.
    pub(super) near: bool,
}

/// Where this node is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    pub(super) node: &'a NodeName,
    pub(super) zone: Option<&'a Zone>,
}

/// All endpoints of a service port, in the order of addresses and ports, each once.
pub(super) fn candidates<'a>(
    world: &'a World,
    service: &Service,
    port: &ServicePort,
    family: Family,
    here: Here<'_>,
) -> Vec<Candidate<'a>> {
    let slices = world
        .slices_of(&service.reference)
        .iter()
        .filter(|slice| slice.family == family);
    let mut found = Vec::new();
    for slice in slices {
        let matching = slice
            .ports
            .iter()
            .find(|one| one.name == port.name && one.protocol == port.protocol);
        let Some(number) = matching.and_then(|one| one.port) else {
            continue;
        };
        found.extend(slice.endpoints.iter().map(|endpoint| Candidate {
            address: endpoint.address.into(),
            port: Port::new(number),
            state: BackendState::of(endpoint, service.publish_not_ready),
            local: endpoint.node.as_ref() == Some(here.node),
            node: endpoint.node.as_ref(),
            zone: endpoint.zone.as_ref(),
            pod: endpoint.pod.as_ref(),
            hints: endpoint.hints.as_deref(),
            cluster: false,
            near: false,
        }));
    }
    // One that passes from slice to slice is in both for a while: the better news counts.
    found.sort_by_key(|one| (one.address, one.port, one.state));
    found.dedup_by_key(|one| (one.address, one.port));
    choose(&mut found, here);
    found
}

fn choose(all: &mut [Candidate<'_>], here: Here<'_>) {
    let narrowing = Narrowing::by_hints(all, here);
    let cluster = first_that_selects(all, |one, wanted| {
        // Hints are for good times: whoever still serves is welcome otherwise.
        one.state == wanted && (wanted != BackendState::Active || narrowing.keeps(one, here))
    });
    let near = first_that_selects(all, |one, wanted| one.local && one.state == wanted);
    for one in all {
        one.cluster = cluster.is_some_and(|wanted| {
            one.state == wanted && (wanted != BackendState::Active || narrowing.keeps(one, here))
        });
        one.near = near.is_some_and(|wanted| one.local && one.state == wanted);
    }
}

/// The best state that selects anybody.
fn first_that_selects(
    all: &[Candidate<'_>],
    selects: impl Fn(&Candidate<'_>, BackendState) -> bool,
) -> Option<BackendState> {
    [BackendState::Active, BackendState::Terminating]
        .into_iter()
        .find(|wanted| all.iter().any(|one| selects(one, *wanted)))
}

/// Whom hints leave.
#[derive(Clone, Copy)]
enum Narrowing {
    None,
    ToNode,
    ToZone,
}

impl Narrowing {
    /// Hints count only where every ready endpoint has some and one of them names this place.
    fn by_hints(all: &[Candidate<'_>], here: Here<'_>) -> Self {
        let ready = || {
            all.iter()
                .filter(|one| one.state == BackendState::Active)
                .map(|one| one.hints)
        };
        let complete = |has: fn(&Hints) -> bool| ready().all(|hints| hints.is_some_and(has));
        if complete(|hints| !hints.nodes.is_empty())
            && ready()
                .flatten()
                .any(|hints| hints.nodes.contains(here.node))
        {
            return Self::ToNode;
        }
        let in_zone = |hints: &Hints| here.zone.is_some_and(|zone| hints.zones.contains(zone));
        if complete(|hints| !hints.zones.is_empty()) && ready().flatten().any(in_zone) {
            return Self::ToZone;
        }
        Self::None
    }

    fn keeps(self, one: &Candidate<'_>, here: Here<'_>) -> bool {
        let named = |hints: &Hints| match self {
            Self::None => true,
            Self::ToNode => hints.nodes.contains(here.node),
            Self::ToZone => here.zone.is_some_and(|zone| hints.zones.contains(zone)),
        };
        matches!(self, Self::None) || one.hints.is_some_and(named)
    }
}
