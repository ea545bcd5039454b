// SPDX-License-Identifier: Apache-2.0
//! What the rows must come to, by another way: sets of plain addresses, and the rules as the
//! documentation of Kubernetes has them, one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::service::{BackendRun, FrontendKind, backend_flags, flags};
use weir_abi::{Address, Protocol};
use weir_model::{Endpoint, Family, Pod, Service, ServicePort, ServiceType, TrafficPolicy, World};

use crate::prefix::prefix_of_key;
use crate::service::{ServiceRows, ServiceSettings};

pub(super) type Sockets = BTreeSet<(IpAddr, u16)>;
pub(super) type Key = (IpAddr, u16, Protocol);

/// A frontend as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) kind: FrontendKind,
    pub(super) internal: Sockets,
    pub(super) external: Sockets,
    /// Those that a client that sticks may go on using, by scope; and those that keep connections.
    pub(super) sticky_internal: Sockets,
    pub(super) sticky_external: Sockets,
    pub(super) keeping: Sockets,
    pub(super) affinity: u32,
    pub(super) external_local: bool,
    pub(super) internal_local: bool,
    pub(super) ranges: Option<BTreeSet<IpNet>>,
}

pub(super) type View = BTreeMap<Key, Seen>;

/// Reads the rows as the programs do.
pub(super) fn read(rows: &ServiceRows) -> View {
    let mut view = View::new();
    for (key, row) in &rows.frontends {
        let sockets = |run: &BackendRun| -> Sockets {
            let places = run.first..run.first + run.count;
            let found: Sockets = places
                .clone()
                .map(|place| rows.backends.get(place))
                .inspect(|backend| assert_eq!(backend.service, row.service, "{key:?}"))
                .map(|backend| (backend.address.to_ip(), backend.port.get()))
                .collect();
            assert_eq!(found.len(), places.len(), "twice in one run: {key:?}");
            found
        };
        let having = |bit: u32| -> Sockets {
            rows.service_backends
                .of(row.service)
                .iter()
                .filter(|one| u32::from(one.flags) & bit == bit)
                .map(|one| (one.address.to_ip(), one.port.get()))
                .collect()
        };
        let kind = FrontendKind::from_number(row.kind).unwrap();
        let ranges = rows.source_ranges.iter();
        let ranges = ranges
            .filter(|range| range.service == row.service)
            .map(|range| {
                let length = range.length - 32;
                prefix_of_key(&weir_abi::ipcache::PrefixKey {
                    length,
                    address: range.address,
                })
                .unwrap()
            })
            .collect();
        let seen = Seen {
            kind,
            internal: sockets(&row.internal),
            external: sockets(&row.external),
            sticky_internal: having(backend_flags::INTERNAL),
            sticky_external: if kind == FrontendKind::ClusterIp {
                Sockets::new()
            } else {
                having(backend_flags::EXTERNAL)
            },
            keeping: having(0),
            affinity: row.affinity_timeout,
            external_local: row.flags & flags::EXTERNAL_LOCAL != 0,
            internal_local: row.flags & flags::INTERNAL_LOCAL != 0,
            ranges: (row.flags & flags::SOURCE_RANGES != 0).then_some(ranges),
        };
        view.insert((key.address.to_ip(), key.port.get(), key.protocol), seen);
    }
    view
}

/// The addresses that belong to services alone.
pub(super) fn addresses(
    world: &World,
    view: &View,
    settings: &ServiceSettings,
) -> BTreeSet<Address> {
    let nodes: BTreeSet<IpAddr> = world
        .nodes()
        .flat_map(|node| node.addresses.iter())
        .chain(&settings.node_addresses)
        .copied()
        .collect();
    view.iter()
        .filter(|(_, seen)| !matches!(seen.kind, FrontendKind::NodePort | FrontendKind::HostPort))
        .filter(|((address, ..), _)| !nodes.contains(address))
        .map(|((address, ..), _)| Address::from(*address))
        .collect()
}

/// What the world asks for.
pub(super) fn evaluate(world: &World, settings: &ServiceSettings) -> View {
    // In the order of those who may keep what they claim.
    let mut owners: Vec<((bool, i64), u8, String, View)> = Vec::new();
    for service in world.services() {
        let age = (service.created == 0, service.created);
        let view = of_service(world, service, settings);
        owners.push((age, 0, service.reference.to_string(), view));
    }
    for pod in world.pods() {
        let age = (pod.created == 0, pod.created);
        owners.push((age, 1, pod.reference.to_string(), of_pod(pod, settings)));
    }
    owners.sort_by(|one, other| (one.0, one.1, &one.2).cmp(&(other.0, other.1, &other.2)));
    let mut all = View::new();
    for (_, _, _, view) in owners {
        for (key, seen) in view {
            all.entry(key).or_insert(seen);
        }
    }
    all
}

fn of_service(world: &World, service: &Service, settings: &ServiceSettings) -> View {
    let mut view = View::new();
    let ignored = service.headless
        || service.exclusion.is_some()
        || service.kind == ServiceType::ExternalName;
    if ignored {
        return view;
    }
    for family in Family::ALL {
        let of_family = |ip: &IpAddr| Family::of(*ip) == family;
        let Some(own) = service.cluster_ips.iter().copied().find(|ip| of_family(ip)) else {
            continue;
        };
        for port in &service.ports {
            let set = Endpoints::of(world, service, port, family, settings);
            let local_only = service.internal_policy == TrafficPolicy::Local;
            let inside = if local_only {
                set.local()
            } else {
                set.cluster()
            };
            let base = Seen {
                kind: FrontendKind::ClusterIp,
                internal: inside.clone(),
                external: Sockets::new(),
                sticky_internal: inside,
                sticky_external: Sockets::new(),
                keeping: set.keeping(port.protocol),
                affinity: service.affinity_seconds.unwrap_or(0),
                external_local: false,
                internal_local: local_only,
                ranges: None,
            };
            let arriving = match service.external_policy {
                TrafficPolicy::Local => set.local(),
                TrafficPolicy::Cluster => set.cluster(),
            };
            let outward = |kind| Seen {
                kind,
                internal: set.cluster(),
                external: arriving.clone(),
                sticky_internal: set.cluster(),
                sticky_external: arriving.clone(),
                external_local: service.external_policy == TrafficPolicy::Local,
                internal_local: false,
                ranges: (kind == FrontendKind::LoadBalancer && !service.source_ranges.is_empty())
                    .then(|| {
                        let ranges = service.source_ranges.iter().copied();
                        ranges.filter(|range| of_family(&range.addr())).collect()
                    }),
                ..base.clone()
            };
            let mut put = |ip: IpAddr, number: u16, seen: Seen| {
                if of_family(&ip) {
                    view.entry((ip, number, port.protocol)).or_insert(seen);
                }
            };
            put(own, port.port, base.clone());
            for ip in service.load_balancer_ips() {
                put(ip, port.port, outward(FrontendKind::LoadBalancer));
            }
            for ip in &service.external_ips {
                put(*ip, port.port, outward(FrontendKind::ExternalIps));
            }
            let has_node_ports = matches!(
                service.kind,
                ServiceType::NodePort | ServiceType::LoadBalancer
            );
            for ip in &settings.node_addresses {
                let link_local = ip.to_string().starts_with("fe80");
                if let (true, false, Some(number)) = (has_node_ports, link_local, port.node_port) {
                    put(*ip, number, outward(FrontendKind::NodePort));
                }
            }
        }
    }
    view
}

fn of_pod(pod: &Pod, settings: &ServiceSettings) -> View {
    let mut view = View::new();
    if pod.node.as_ref() != Some(&settings.node) || pod.host_network {
        return view;
    }
    for port in &pod.container_ports {
        let Some(host) = port.host else { continue };
        for backend in &pod.addresses {
            let mut addresses: Vec<IpAddr> = settings.node_addresses.clone();
            addresses.retain(|ip| !ip.to_string().starts_with("fe80"));
            match host.address {
                Some(ip) if ip.is_unspecified() => {
                    addresses.retain(|own| own.is_ipv4() == ip.is_ipv4());
                }
                Some(ip) => addresses = vec![ip],
                None => {}
            }
            addresses.retain(|ip| ip.is_ipv4() == backend.is_ipv4());
            let only = Sockets::from([(*backend, port.port)]);
            for ip in addresses {
                let seen = Seen {
                    kind: FrontendKind::HostPort,
                    internal: only.clone(),
                    external: only.clone(),
                    sticky_internal: only.clone(),
                    sticky_external: only.clone(),
                    keeping: only.clone(),
                    affinity: 0,
                    external_local: true,
                    internal_local: false,
                    ranges: None,
                };
                view.insert((ip, host.port, port.protocol), seen);
            }
        }
    }
    view
}

/// The endpoints of one service port, each once, in its best state.
struct Endpoints<'a> {
    all: BTreeMap<(IpAddr, u16), &'a Endpoint>,
    publish: bool,
    settings: &'a ServiceSettings,
}

impl<'a> Endpoints<'a> {
    fn of(
        world: &'a World,
        service: &Service,
        port: &ServicePort,
        family: Family,
        settings: &'a ServiceSettings,
    ) -> Self {
        let mut set = Self {
            all: BTreeMap::new(),
            publish: service.publish_not_ready,
            settings,
        };
        for slice in world.slices_of(&service.reference) {
            for slice_port in &slice.ports {
                let fits = slice.family == family
                    && (&slice_port.name, slice_port.protocol) == (&port.name, port.protocol);
                let Some(number) = slice_port.port.filter(|_| fits) else {
                    continue;
                };
                for endpoint in &slice.endpoints {
                    let key = (endpoint.address, number);
                    let better = |old: &Endpoint| set.rank(endpoint) < set.rank(old);
                    if set.all.get(&key).is_none_or(|old| better(old)) {
                        set.all.insert(key, endpoint);
                    }
                }
            }
        }
        set
    }

    fn is_ready(&self, one: &Endpoint) -> bool {
        one.ready || self.publish
    }

    fn is_fallback(&self, one: &Endpoint) -> bool {
        !self.is_ready(one) && one.terminating && one.serving
    }

    fn rank(&self, one: &Endpoint) -> u8 {
        if self.is_ready(one) {
            0
        } else if self.is_fallback(one) {
            1
        } else if one.terminating {
            3
        } else {
            2
        }
    }

    fn is_local(&self, one: &Endpoint) -> bool {
        one.node.as_ref() == Some(&self.settings.node)
    }

    fn select(&self, wanted: impl Fn(&Endpoint) -> bool) -> Sockets {
        let found = self.all.iter().filter(|(_, one)| wanted(one));
        found.map(|(socket, _)| *socket).collect()
    }

    fn cluster(&self) -> Sockets {
        let ready: Vec<&Endpoint> = self
            .all
            .values()
            .copied()
            .filter(|one| self.is_ready(one))
            .collect();
        if ready.is_empty() {
            return self.select(|one| self.is_fallback(one));
        }
        let nodes = |one: &Endpoint| {
            one.hints
                .iter()
                .flat_map(|hints| hints.nodes.to_vec())
                .collect::<Vec<_>>()
        };
        let zones = |one: &Endpoint| {
            one.hints
                .iter()
                .flat_map(|hints| hints.zones.to_vec())
                .collect::<Vec<_>>()
        };
        let for_node = |one: &Endpoint| nodes(one).contains(&self.settings.node);
        let for_zone = |one: &Endpoint| {
            let here = self.settings.zone.as_ref();
            here.is_some_and(|here| zones(one).contains(here))
        };
        if ready.iter().all(|one| !nodes(one).is_empty()) && ready.iter().any(|one| for_node(one)) {
            return self.select(|one| self.is_ready(one) && for_node(one));
        }
        if ready.iter().all(|one| !zones(one).is_empty()) && ready.iter().any(|one| for_zone(one)) {
            return self.select(|one| self.is_ready(one) && for_zone(one));
        }
        self.select(|one| self.is_ready(one))
    }

    fn local(&self) -> Sockets {
        let ready = self.select(|one| self.is_local(one) && self.is_ready(one));
        if ready.is_empty() {
            self.select(|one| self.is_local(one) && self.is_fallback(one))
        } else {
            ready
        }
    }

    fn keeping(&self, protocol: Protocol) -> Sockets {
        self.select(|one| protocol != Protocol::UDP || self.rank(one) < 2)
    }
}
