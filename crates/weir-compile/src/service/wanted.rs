// SPDX-License-Identifier: Apache-2.0
//! What a service, or a pod with host ports, asks for: frontends and the backends behind them.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::ipcache::PrefixKey;
use weir_abi::service::{FrontendKey, FrontendKind, flags};
use weir_abi::{Address, Port, Protocol};
use weir_model::{Family, Pod, Service, ServicePort, TrafficPolicy, World};

use super::ServiceSettings;
use super::choice::{BackendState, Candidate, Here, candidates};
use super::rows::ServiceBackend;
use crate::prefix::prefix_key;

/// What tells the groups of one owner apart, and one and the same group over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey {
    /// A service's port, or the place of a pod's container port.
    pub(super) number: u16,
    pub(super) protocol: Protocol,
    pub(super) family: Family,
    /// The outward frontends of a service whose inward one keeps to this node: what may stick to a
    /// client differs, so they are apart.
    pub(super) aside: bool,
}

/// Frontends that share their backends: a service port of one family, under one number. Families
/// are apart because a socket sticks to its backend before its family shows.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) key: GroupKey,
    pub(super) frontends: Vec<(FrontendKey, FrontendKind)>,
    /// In the order of addresses and ports, like the next two.
    pub(super) internal: Vec<(Address, Port)>,
    pub(super) external: Vec<(Address, Port)>,
    pub(super) members: Vec<ServiceBackend>,
    /// Who may use the frontends of load balancers; none: everybody.
    pub(super) ranges: Option<Vec<PrefixKey>>,
    pub(super) affinity: u32,
    pub(super) internal_local: bool,
    pub(super) external_local: bool,
}

impl Wanted {
    /// Leaves out what only outward frontends need, where others have got them all.
    pub(super) fn without_outward(&mut self) {
        self.external.clear();
        for member in &mut self.members {
            member.flags &= !ServiceBackend::EXTERNAL;
        }
    }

    /// Bits of [`flags`] for one of the frontends.
    pub(super) fn flags(&self, kind: FrontendKind) -> u8 {
        let bit = |set: bool, bit| if set { bit } else { 0 };
        let inward = kind == FrontendKind::ClusterIp;
        let restricted = kind == FrontendKind::LoadBalancer && self.ranges.is_some();
        bit(self.external_local && !inward, flags::EXTERNAL_LOCAL)
            | bit(self.internal_local && inward, flags::INTERNAL_LOCAL)
            | bit(restricted, flags::SOURCE_RANGES)
    }
}

/// What a service asks for.
pub(super) fn of_service(
    world: &World,
    service: &Service,
    settings: &ServiceSettings,
) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    if !service.is_served() {
        return wanted;
    }
    // Without an address of a family, a service has no business in it: nothing outward either.
    for address in &service.cluster_ips {
        let family = Family::of(*address);
        for port in &service.ports {
            let found = candidates(world, service, port, family, settings.here());
            of_port(service, port, *address, &found, settings, &mut wanted);
        }
    }
    wanted
}

fn of_port(
    service: &Service,
    port: &ServicePort,
    address: IpAddr,
    found: &[Candidate<'_>],
    settings: &ServiceSettings,
    wanted: &mut Vec<Wanted>,
) {
    let family = Family::of(address);
    let key = |address: IpAddr, number| {
        FrontendKey::new(address.into(), Port::new(number), port.protocol)
    };
    let inward = (key(address, port.port), FrontendKind::ClusterIp);
    let mut outward: Vec<(FrontendKey, FrontendKind)> = Vec::new();
    let balancers = service.load_balancer_ips();
    outward.extend(balancers.map(|ip| (key(ip, port.port), FrontendKind::LoadBalancer)));
    let externals = service.external_ips.iter();
    outward.extend(externals.map(|ip| (key(*ip, port.port), FrontendKind::ExternalIps)));
    if let Some(number) = service.node_port(port) {
        let nodes = settings.served_addresses();
        outward.extend(nodes.map(|ip| (key(ip, number), FrontendKind::NodePort)));
    }
    outward.retain(|(key, _)| key.address.is_v4() == (family == Family::V4) && *key != inward.0);
    outward.sort_by_key(|(key, _)| *key);
    // Of one address under two titles the first counts: that of the load balancer is the strictest.
    outward.dedup_by_key(|(key, _)| *key);

    let internal_local = service.internal_policy == TrafficPolicy::Local;
    let external_local = service.external_policy == TrafficPolicy::Local;
    let group = GroupKey {
        number: port.port,
        protocol: port.protocol,
        family,
        aside: false,
    };
    let frontends = vec![inward];
    let ranges = || ranges(service, family);
    let build = |key, frontends: Vec<_>, internal, external, ranges| {
        let (internal, external): (Selects, Selects) = (internal, external);
        Wanted {
            key,
            frontends,
            internal: chosen(found, internal),
            external: chosen(found, external),
            members: members(found, port.protocol, internal, external),
            ranges,
            affinity: service.affinity_seconds.unwrap_or_default(),
            internal_local,
            external_local,
        }
    };
    // Clients of this node reach every endpoint at outward addresses: the service's own policy for
    // them is about traffic that comes from outside (kube-proxy calls it a short-circuit).
    let arriving: Selects = if external_local { near } else { cluster };
    if outward.is_empty() {
        let internal: Selects = if internal_local { near } else { cluster };
        wanted.push(build(group, frontends, internal, nobody, None));
    } else if internal_local {
        wanted.push(build(group, frontends, near, nobody, None));
        let aside = GroupKey {
            aside: true,
            ..group
        };
        wanted.push(build(aside, outward, cluster, arriving, ranges()));
    } else {
        let frontends = frontends.into_iter().chain(outward).collect();
        wanted.push(build(group, frontends, cluster, arriving, ranges()));
    }
}

type Selects = fn(&Candidate<'_>) -> bool;

fn cluster(one: &Candidate<'_>) -> bool {
    one.cluster
}

fn near(one: &Candidate<'_>) -> bool {
    one.near
}

fn nobody(_: &Candidate<'_>) -> bool {
    false
}

fn chosen(found: &[Candidate<'_>], selects: Selects) -> Vec<(Address, Port)> {
    let chosen = found.iter().filter(|one| selects(one));
    chosen.map(|one| (one.address, one.port)).collect()
}

fn members(
    found: &[Candidate<'_>],
    protocol: Protocol,
    internal: Selects,
    external: Selects,
) -> Vec<ServiceBackend> {
    let member = |one: &Candidate<'_>| {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let terminating = match one.state {
            BackendState::Active | BackendState::NotReady => false,
            BackendState::Terminating | BackendState::Ending => true,
        };
        let flags = bit(internal(one), ServiceBackend::INTERNAL)
            | bit(external(one), ServiceBackend::EXTERNAL)
            | bit(terminating, ServiceBackend::TERMINATING)
            | bit(one.local, ServiceBackend::LOCAL);
        ServiceBackend {
            address: one.address,
            port: one.port,
            flags,
        }
    };
    let kept = found
        .iter()
        .filter(|one| internal(one) || external(one) || one.state.keeps(protocol));
    kept.map(member).collect()
}

/// The ranges of one family. A list that names the other family only lets nobody in here: who writes
/// a list wants nobody else.
fn ranges(service: &Service, family: Family) -> Option<Vec<PrefixKey>> {
    let of_family = |range: &&IpNet| Family::of(range.addr()) == family;
    let ranges = service.source_ranges.iter();
    (!service.source_ranges.is_empty()).then(|| {
        ranges
            .filter(of_family)
            .map(|range| prefix_key(*range))
            .collect()
    })
}

/// What a pod of this node asks for by host ports.
pub(super) fn of_pod(pod: &Pod, settings: &ServiceSettings) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    // On the host's network, the pod itself listens there.
    if pod.host_network || pod.node.as_ref() != Some(&settings.node) {
        return wanted;
    }
    for (number, port) in (0..u16::MAX).zip(&pod.container_ports) {
        let Some(host) = port.host else { continue };
        for family in Family::ALL {
            let backend = pod.addresses.iter().find(|ip| Family::of(**ip) == family);
            let Some(backend) = backend else { continue };
            let place = (Address::from(*backend), Port::new(port.port));
            let addresses: Vec<IpAddr> = match host.address {
                Some(ip) if !ip.is_unspecified() => vec![ip],
                Some(ip) => settings
                    .served_addresses()
                    .filter(|own| Family::of(*own) == Family::of(ip))
                    .collect(),
                None => settings.served_addresses().collect(),
            };
            let of_family = addresses.into_iter().filter(|ip| Family::of(*ip) == family);
            let frontend = |ip: IpAddr| {
                let key = FrontendKey::new(ip.into(), Port::new(host.port), port.protocol);
                (key, FrontendKind::HostPort)
            };
            let flags = ServiceBackend::INTERNAL | ServiceBackend::EXTERNAL | ServiceBackend::LOCAL;
            wanted.push(Wanted {
                key: GroupKey {
                    number,
                    protocol: port.protocol,
                    family,
                    aside: false,
                },
                frontends: of_family.map(frontend).collect(),
                internal: vec![place],
                external: vec![place],
                members: vec![ServiceBackend {
                    address: place.0,
                    port: place.1,
                    flags,
                }],
                ranges: None,
                affinity: 0,
                internal_local: false,
                external_local: true,
            });
        }
    }
    wanted
}

impl ServiceSettings {
    pub(super) fn here(&self) -> Here<'_> {
        Here {
            node: &self.node,
            zone: self.zone.as_ref(),
        }
    }

    /// The addresses of this node at which its ports are reached.
    fn served_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.node_addresses.iter().copied().filter(|ip| {
            !Address::from(*ip).is_link_local() && !ip.is_loopback() && !ip.is_unspecified()
        })
    }
}
