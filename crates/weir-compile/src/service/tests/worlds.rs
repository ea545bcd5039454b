// SPDX-License-Identifier: Apache-2.0
//! Small worlds: few names, addresses and ports, so that things collide.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use weir_abi::Protocol;
use weir_model::{
    Change, ContainerPort, Endpoint, EndpointSlice, Family, Hints, HostPort, Ingress, IngressMode,
    Labels, Node, NodeName, Pod, PodRef, Service, ServiceName, ServicePort, ServiceRef,
    ServiceSelector, ServiceType, SlicePort, SliceRef, TargetPort, TrafficPolicy, Zone,
};

use crate::service::{ServiceSettings, TableSize};

pub(in crate::service) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(in crate::service) fn node(number: u8) -> NodeName {
    NodeName::new(&format!("n{number}")).unwrap()
}

pub(in crate::service) fn zone(number: u8) -> Zone {
    Zone::new(&format!("z{number}")).unwrap()
}

pub(in crate::service) fn service_ref(name: &str) -> ServiceRef {
    ServiceRef::new("shop", name).unwrap()
}

pub(in crate::service) fn settings() -> ServiceSettings {
    ServiceSettings {
        node: node(1),
        zone: Some(zone(1)),
        node_addresses: vec![ip("172.18.0.1"), ip("fd00:18::1"), ip("fe80::1")],
        maglev: None,
        frontends_size: 1000,
        backends_size: 400,
        service_backends_size: 1000,
        source_ranges_size: 1000,
        maglev_size: 1000,
        keep_unknown: false,
    }
}

pub(in crate::service) fn with_maglev() -> ServiceSettings {
    ServiceSettings {
        maglev: TableSize::new(13),
        ..settings()
    }
}

/// A service with one port and one address.
pub(in crate::service) fn service(name: &str, address: &str) -> Service {
    Service {
        reference: service_ref(name),
        created: 100,
        kind: ServiceType::ClusterIp,
        headless: false,
        exclusion: None,
        ports: [port("http", 80, Protocol::TCP)].into(),
        selector: ServiceSelector::new([("app", name)]).unwrap(),
        cluster_ips: [ip(address)].into(),
        external_ips: Box::default(),
        ingress: Box::default(),
        source_ranges: Box::default(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        publish_not_ready: false,
        health_check_port: None,
        allocate_node_ports: true,
        distribution: None,
        topology_mode: None,
    }
}

pub(in crate::service) fn port(name: &str, port: u16, protocol: Protocol) -> ServicePort {
    ServicePort {
        name: name.into(),
        port,
        protocol,
        target: TargetPort::Number(port),
        node_port: None,
    }
}

pub(in crate::service) fn endpoint(address: &str, on: u8) -> Endpoint {
    Endpoint {
        address: ip(address),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(node(on)),
        zone: Some(zone(on)),
        hints: None,
        pod: None,
    }
}

pub(in crate::service) fn slice(
    service: &str,
    name: &str,
    ports: &[(&str, u16)],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let family = endpoints
        .first()
        .map_or(Family::V4, |one| Family::of(one.address));
    EndpointSlice {
        reference: SliceRef::new("shop", &format!("{service}-{name}")).unwrap(),
        service: ServiceName::new(service).unwrap(),
        family,
        ports: ports
            .iter()
            .map(|(name, port)| SlicePort {
                name: (*name).into(),
                protocol: if *name == "dns" {
                    Protocol::UDP
                } else {
                    Protocol::TCP
                },
                port: Some(*port),
            })
            .collect(),
        endpoints: endpoints.into(),
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![4 => Just(Family::V4), 1 => Just(Family::V6)]
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    prop_oneof![3 => Just(TrafficPolicy::Cluster), 1 => Just(TrafficPolicy::Local)]
}

fn hints() -> impl Strategy<Value = Hints> {
    let some = |values: BTreeSet<u8>| values.into_iter();
    let numbers = || proptest::collection::btree_set(1u8..4, 0..3);
    (numbers(), numbers()).prop_map(move |(zones, nodes)| Hints {
        zones: some(zones).map(zone).collect(),
        nodes: some(nodes).map(node).collect(),
    })
}

fn any_endpoint(family: Family, hinted: bool) -> impl Strategy<Value = Endpoint> {
    let state = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.3));
    let hints = option::weighted(if hinted { 0.9 } else { 0.05 }, hints());
    (1u8..12, state, option::weighted(0.9, 1u8..4), hints).prop_map(
        move |(host, (ready, serving, terminating), on, hints)| Endpoint {
            address: match family {
                Family::V4 => IpAddr::from([10, 1, 0, host]),
                Family::V6 => ip(&format!("fd01::{host}")),
            },
            ready,
            serving,
            terminating,
            node: on.map(node),
            zone: on.map(zone),
            hints: hints.map(Arc::new),
            pod: None,
        },
    )
}

fn any_slice() -> impl Strategy<Value = EndpointSlice> {
    let ports = vec(
        prop_oneof![
            Just(("http", 8080)),
            Just(("http", 9090)),
            Just(("dns", 53))
        ],
        0..3,
    );
    (0u8..4, 0u8..3, family(), ports, any::<bool>()).prop_flat_map(
        |(service, name, family, mut ports, hinted)| {
            ports.sort_unstable();
            ports.dedup_by_key(|(name, _)| *name);
            vec(any_endpoint(family, hinted), 0..7).prop_map(move |endpoints| EndpointSlice {
                family,
                ..slice(
                    &format!("s{service}"),
                    &format!("{name}"),
                    &ports,
                    endpoints,
                )
            })
        },
    )
}

fn any_service() -> impl Strategy<Value = Service> {
    let addresses = prop_oneof![
        4 => (1u8..5).prop_map(|host| vec![IpAddr::from([10, 96, 0, host])]),
        2 => (1u8..5).prop_map(|host| vec![IpAddr::from([10, 96, 0, host]), ip(&format!("fd96::{host}"))]),
        1 => Just(Vec::new()),
    ];
    let kind = prop_oneof![
        Just(ServiceType::ClusterIp),
        Just(ServiceType::NodePort),
        Just(ServiceType::LoadBalancer),
        Just(ServiceType::ExternalName)
    ];
    let outward = (
        vec(1u8..4, 0..3),
        vec((1u8..4, any::<bool>()), 0..3),
        option::of(30_000u16..30_003),
        vec(
            prop_oneof![Just("203.0.113.0/24"), Just("10.0.0.0/8"), Just("fd00::/8")],
            0..3,
        ),
    );
    let ports = prop_oneof![
        3 => Just(vec![port("http", 80, Protocol::TCP)]),
        2 => Just(vec![port("http", 80, Protocol::TCP), port("dns", 53, Protocol::UDP)]),
        1 => Just(vec![port("dns", 80, Protocol::UDP)]),
    ];
    let rules = (
        policy(),
        policy(),
        option::weighted(0.3, 10u32..12),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    );
    (0u8..4, 0i64..3, addresses, kind, outward, ports, rules).prop_map(
        |(name, created, addresses, kind, outward, mut ports, rules)| {
            let (externals, ingress, node_port, ranges) = outward;
            let (internal_policy, external_policy, affinity, publish, headless) = rules;
            for (step, port) in (0..).zip(&mut ports) {
                port.node_port = node_port.map(|number| number + step);
            }
            Service {
                created,
                kind,
                headless,
                cluster_ips: addresses.into(),
                // One of them is a node's.
                external_ips: externals
                    .into_iter()
                    .map(|host| IpAddr::from([172, 18, 0, host]))
                    .collect(),
                ingress: ingress
                    .into_iter()
                    .map(|(host, vip)| Ingress {
                        address: IpAddr::from([198, 51, 100, host]),
                        mode: if vip {
                            IngressMode::Vip
                        } else {
                            IngressMode::Proxy
                        },
                    })
                    .collect(),
                source_ranges: ranges.iter().map(|text| text.parse().unwrap()).collect(),
                ports: ports.into(),
                internal_policy,
                external_policy,
                affinity_seconds: affinity,
                publish_not_ready: publish,
                ..service(&format!("s{name}"), "10.96.0.1")
            }
        },
    )
}

pub(in crate::service) fn pod(name: &str, on: u8, address: &str, host: HostPort) -> Pod {
    Pod {
        reference: PodRef::new("shop", name).unwrap(),
        labels: Labels::default(),
        node: Some(node(on)),
        addresses: vec![ip(address)],
        host_network: false,
        container_ports: vec![ContainerPort {
            name: None,
            port: 8080,
            protocol: Protocol::TCP,
            host: Some(host),
        }],
        created: 50,
        workload: None,
        uid: None,
        announced: false,
    }
}

fn any_pod() -> impl Strategy<Value = Pod> {
    let address = option::of(prop_oneof![
        Just(ip("127.0.0.1")),
        Just(ip("172.18.0.1")),
        Just(ip("0.0.0.0")),
        Just(ip("::"))
    ]);
    (0u8..2, 1u8..3, 20u8..23, 30_000u16..30_002, address).prop_map(
        |(name, on, host, port, address)| {
            let host_port = HostPort { port, address };
            pod(
                &format!("p{name}"),
                on,
                &format!("10.1.0.{host}"),
                host_port,
            )
        },
    )
}

fn any_node() -> impl Strategy<Value = Node> {
    (2u8..4, vec(1u8..4, 0..2)).prop_map(|(name, hosts)| Node {
        name: node(name),
        labels: Labels::default(),
        addresses: hosts
            .into_iter()
            .map(|host| IpAddr::from([172, 18, 0, host]))
            .collect(),
        uid: None,
        pod_cidrs: Vec::new(),
    })
}

pub(in crate::service) fn any_change() -> impl Strategy<Value = Change> {
    let slice_name =
        |service: u8, name: u8| SliceRef::new("shop", &format!("s{service}-{name}")).unwrap();
    prop_oneof![
        8 => any_slice().prop_map(|slice| Change::EndpointSlice(Arc::new(slice))),
        6 => any_service().prop_map(|service| Change::Service(Arc::new(service))),
        2 => (0u8..4).prop_map(|name| Change::ServiceGone(service_ref(&format!("s{name}")))),
        2 => (0u8..4, 0u8..3).prop_map(move |(service, name)| Change::EndpointSliceGone(slice_name(service, name))),
        2 => any_pod().prop_map(|pod| Change::Pod(Arc::new(pod))),
        1 => (0u8..2).prop_map(|name| Change::PodGone(PodRef::new("shop", &format!("p{name}")).unwrap())),
        1 => any_node().prop_map(|node| Change::Node(Arc::new(node))),
    ]
}

/// Batches of changes, each told at once.
pub(in crate::service) fn history() -> impl Strategy<Value = Vec<Vec<Change>>> {
    vec(vec(any_change(), 1..6), 1..12)
}
