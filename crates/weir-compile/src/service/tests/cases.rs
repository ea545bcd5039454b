// SPDX-License-Identifier: Apache-2.0
//! Single behaviours, each in its smallest world.

use std::net::IpAddr;
use std::sync::Arc;

use weir_abi::service::{FrontendKey, FrontendKind};
use weir_abi::{Address, Port, Protocol};
use weir_model::{
    Change, Endpoint, EndpointSlice, Exclusion, Hints, HostPort, Ingress, IngressMode, PodRef,
    Service, ServiceType, TrafficPolicy,
};

use super::evaluate::{Seen, evaluate, read};
use super::steps::Node;
use super::worlds::{endpoint, ip, node, pod, port, service, service_ref, settings, slice, zone};
use crate::Operation;
use crate::service::{FrontendOwner, HealthCheck};

const VIP: &str = "10.96.0.1";

fn told(service: Service) -> Change {
    Change::Service(Arc::new(service))
}

fn sliced(slice: EndpointSlice) -> Change {
    Change::EndpointSlice(Arc::new(slice))
}

fn terminating(endpoint: Endpoint) -> Endpoint {
    Endpoint {
        ready: false,
        terminating: true,
        ..endpoint
    }
}

fn unready(endpoint: Endpoint) -> Endpoint {
    Endpoint {
        ready: false,
        serving: false,
        ..endpoint
    }
}

impl Node {
    /// A node with a service `web` at the usual address.
    fn with(service: Service, endpoints: Vec<Endpoint>) -> Self {
        let mut node = Self::new(settings());
        node.update([
            told(service),
            sliced(slice("web", "a", &[("http", 8080)], endpoints)),
        ]);
        node
    }

    fn seen(&self, address: &str, port: u16, protocol: Protocol) -> Option<Seen> {
        let view = read(&self.kernel);
        assert_eq!(view, evaluate(&self.world, &self.settings));
        view.get(&(ip(address), port, protocol)).cloned()
    }

    /// The last numbers of the addresses that clients of this node and of others reach.
    fn reached(&self, address: &str, port: u16) -> (Vec<u8>, Vec<u8>) {
        let seen = self.seen(address, port, Protocol::TCP).unwrap();
        let last = |(address, _): &(IpAddr, u16)| Address::from(*address).0[15];
        let inside = seen.internal.iter().map(last).collect();
        (inside, seen.external.iter().map(last).collect())
    }
}

fn web() -> Service {
    service("web", VIP)
}

#[test]
fn endpoints_of_all_slices_count_once_with_the_port_of_their_slice() {
    let mut node = Node::with(
        web(),
        vec![endpoint("10.1.0.1", 1), unready(endpoint("10.1.0.2", 1))],
    );
    let other = vec![endpoint("10.1.0.1", 1), endpoint("10.1.0.3", 2)];
    node.update([sliced(slice("web", "b", &[("http", 8080)], other))]);
    assert_eq!(node.reached(VIP, 80), (vec![1, 3], vec![]));
    // The same name of a port, another number: as pods with a named targetPort have it.
    let named = vec![endpoint("10.1.0.1", 1)];
    node.update([sliced(slice("web", "b", &[("http", 9090)], named))]);
    let seen = node.seen(VIP, 80, Protocol::TCP).unwrap();
    let sockets = [(ip("10.1.0.1"), 8080), (ip("10.1.0.1"), 9090)];
    assert_eq!(seen.internal, sockets.into());
}

#[test]
fn ports_and_protocols_are_apart() {
    let mut both = web();
    both.ports = [
        port("http", 80, Protocol::TCP),
        port("dns", 80, Protocol::UDP),
    ]
    .into();
    let mut node = Node::new(settings());
    let endpoints = vec![endpoint("10.1.0.1", 1)];
    let ports = [("http", 8080), ("dns", 5353)];
    node.update([told(both), sliced(slice("web", "a", &ports, endpoints))]);
    let udp = node.seen(VIP, 80, Protocol::UDP).unwrap();
    assert_eq!(udp.internal, [(ip("10.1.0.1"), 5353)].into());
    node.update([told(web())]);
    assert_eq!(node.seen(VIP, 80, Protocol::UDP), None);
    assert_eq!(node.reached(VIP, 80).0, [1]);
}

#[test]
fn a_service_that_is_not_for_us_has_no_rows() {
    let mut node = Node::with(web(), vec![endpoint("10.1.0.1", 1)]);
    for exclusion in [Exclusion::OtherProxy("x".into()), Exclusion::HeadlessLabel] {
        let mut excluded = web();
        excluded.exclusion = Some(exclusion);
        node.update([told(excluded)]);
        assert!(node.kernel.is_empty());
        node.update([told(web())]);
        assert_eq!(node.reached(VIP, 80).0, [1]);
    }
}

#[test]
fn a_type_that_changes_takes_its_addresses_along() {
    let mut node = Node::with(web(), vec![endpoint("10.1.0.1", 1)]);
    let mut outward = web();
    outward.kind = ServiceType::LoadBalancer;
    outward.ports[0].node_port = Some(30_080);
    let ingress = |text, mode| Ingress {
        address: ip(text),
        mode,
    };
    outward.ingress = [
        ingress("198.51.100.1", IngressMode::Vip),
        ingress("198.51.100.2", IngressMode::Proxy),
    ]
    .into();
    outward.source_ranges = [
        "203.0.113.0/24".parse().unwrap(),
        "fd00::/8".parse().unwrap(),
    ]
    .into();
    outward.affinity_seconds = Some(60);
    node.update([told(outward.clone())]);
    let balancer = node.seen("198.51.100.1", 80, Protocol::TCP).unwrap();
    assert_eq!(balancer.kind, FrontendKind::LoadBalancer);
    assert_eq!(
        balancer.ranges,
        Some(["203.0.113.0/24".parse().unwrap()].into())
    );
    assert_eq!(balancer.affinity, 60);
    assert_eq!(node.seen("198.51.100.2", 80, Protocol::TCP), None);
    let of_node = node.seen("172.18.0.1", 30_080, Protocol::TCP).unwrap();
    assert_eq!(
        (of_node.kind, of_node.ranges),
        (FrontendKind::NodePort, None)
    );
    assert_eq!(node.reached("172.18.0.1", 30_080), (vec![1], vec![1]));
    // The service has no address of the other family, and link-local ones are nobody's.
    assert_eq!(read(&node.kernel).len(), 3);

    outward.kind = ServiceType::ExternalName;
    node.update([told(outward)]);
    assert!(node.kernel.is_empty());
}

#[test]
fn endpoints_that_are_ending_serve_where_no_other_is_ready() {
    let mut ending = web();
    ending.kind = ServiceType::NodePort;
    ending.ports[0].node_port = Some(30_080);
    ending.external_policy = TrafficPolicy::Local;
    let endpoints = |ready: bool| {
        let last = endpoint("10.1.0.3", 2);
        let last = if ready { last } else { unready(last) };
        vec![
            terminating(endpoint("10.1.0.1", 1)),
            terminating(endpoint("10.1.0.2", 2)),
            last,
        ]
    };
    let mut node = Node::with(ending, endpoints(false));
    assert_eq!(node.reached(VIP, 80).0, [1, 2]);
    assert_eq!(node.reached("172.18.0.1", 30_080), (vec![1, 2], vec![1]));
    node.update([sliced(slice(
        "web",
        "a",
        &[("http", 8080)],
        endpoints(true),
    ))]);
    assert_eq!(node.reached("172.18.0.1", 30_080), (vec![3], vec![1]));
    // Those that end keep their connections.
    let seen = node.seen(VIP, 80, Protocol::TCP).unwrap();
    assert_eq!(seen.keeping.len(), 3);
}

#[test]
fn policies_of_the_two_scopes_are_apart() {
    let endpoints = vec![endpoint("10.1.0.1", 1), endpoint("10.1.0.2", 2)];
    let mut local = web();
    local.kind = ServiceType::NodePort;
    local.ports[0].node_port = Some(30_080);
    local.internal_policy = TrafficPolicy::Local;
    let mut node = Node::with(local.clone(), endpoints);
    assert_eq!(node.reached(VIP, 80).0, [1]);
    assert_eq!(node.reached("172.18.0.1", 30_080), (vec![1, 2], vec![1, 2]));
    local.internal_policy = TrafficPolicy::Cluster;
    local.external_policy = TrafficPolicy::Local;
    node.update([told(local)]);
    assert_eq!(node.reached(VIP, 80).0, [1, 2]);
    assert_eq!(node.reached("172.18.0.1", 30_080), (vec![1, 2], vec![1]));
}

#[test]
fn the_health_check_counts_ready_endpoints_of_this_node() {
    let mut local = web();
    local.kind = ServiceType::LoadBalancer;
    local.external_policy = TrafficPolicy::Local;
    local.health_check_port = Some(31_000);
    let endpoints = vec![
        endpoint("10.1.0.1", 1),
        endpoint("10.1.0.2", 2),
        terminating(endpoint("10.1.0.3", 1)),
    ];
    let mut node = Node::with(local.clone(), endpoints);
    let checks = |node: &Node| {
        node.compiler
            .health_checks()
            .map(|(_, check)| check.clone())
            .collect::<Vec<_>>()
    };
    let check = |local_endpoints| HealthCheck {
        port: 31_000,
        local_endpoints,
    };
    assert_eq!(checks(&node), [check(1)]);
    let ended = vec![terminating(endpoint("10.1.0.1", 1))];
    node.update([sliced(slice("web", "a", &[("http", 8080)], ended))]);
    assert_eq!(checks(&node), [check(0)]);
    local.external_policy = TrafficPolicy::Cluster;
    node.update([told(local)]);
    assert_eq!(checks(&node), []);
}

#[test]
fn hints_narrow_the_choice_while_they_are_complete() {
    let hinted = |address, on: u8, zones: &[u8], nodes: &[u8]| Endpoint {
        hints: Some(Arc::new(Hints {
            zones: zones.iter().map(|number| zone(*number)).collect(),
            nodes: nodes.iter().map(|number| node(*number)).collect(),
        })),
        ..endpoint(address, on)
    };
    let check = |endpoints: Vec<Endpoint>, expected: &[u8]| {
        let node = Node::with(web(), endpoints);
        assert_eq!(node.reached(VIP, 80).0, expected);
    };
    let (a, b) = ("10.1.0.1", "10.1.0.2");
    check(vec![hinted(a, 1, &[1], &[]), hinted(b, 2, &[2], &[])], &[1]);
    check(
        vec![hinted(a, 1, &[3], &[]), hinted(b, 2, &[2], &[])],
        &[1, 2],
    );
    check(vec![hinted(a, 1, &[1], &[]), endpoint(b, 2)], &[1, 2]);
    // PreferSameNode: the node before the zone.
    check(
        vec![hinted(a, 1, &[1], &[3]), hinted(b, 1, &[1], &[1])],
        &[2],
    );
    check(
        vec![hinted(a, 1, &[1], &[3]), hinted(b, 2, &[2], &[2])],
        &[1],
    );
    check(
        vec![hinted(a, 1, &[3], &[3]), hinted(b, 2, &[2], &[2])],
        &[1, 2],
    );
    // Those that are not ready have no say.
    check(
        vec![
            hinted(a, 1, &[1], &[]),
            unready(endpoint(b, 2)),
            hinted("10.1.0.3", 3, &[3], &[]),
        ],
        &[1],
    );
}

#[test]
fn the_older_of_two_keeps_a_frontend() {
    let mut node = Node::with(web(), vec![endpoint("10.1.0.1", 1)]);
    let older = Service {
        created: 50,
        ..service("api", VIP)
    };
    let owner = |node: &Node| {
        let owner = node
            .compiler
            .frontend_at(ip(VIP).into(), Port::new(80), Protocol::TCP);
        owner.map(ToString::to_string)
    };
    assert_eq!(owner(&node).as_deref(), Some("shop/web"));
    node.update([told(older)]);
    assert_eq!(owner(&node).as_deref(), Some("shop/api"));
    let problems: Vec<_> = node.compiler.problems().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "service shop/web claims 10.96.0.1:80/TCP, which service shop/api has: service shop/api keeps it"
        ]
    );
    node.update([Change::ServiceGone(service_ref("api"))]);
    assert_eq!(owner(&node).as_deref(), Some("shop/web"));
    assert_eq!(node.reached(VIP, 80).0, [1]);
    assert_eq!(node.compiler.problems().count(), 0);
}

#[test]
fn host_ports_of_this_nodes_pods() {
    let mut node = Node::new(settings());
    let host = |port, address: Option<&str>| HostPort {
        port,
        address: address.map(ip),
    };
    node.update([
        Change::Pod(Arc::new(pod("any", 1, "10.1.0.1", host(8081, None)))),
        Change::Pod(Arc::new(pod(
            "loop",
            1,
            "10.1.0.2",
            host(8082, Some("127.0.0.1")),
        ))),
        Change::Pod(Arc::new(pod("far", 2, "10.1.0.3", host(8083, None)))),
        Change::Pod(Arc::new(pod(
            "one",
            1,
            "10.1.0.4",
            host(8081, Some("172.18.0.99")),
        ))),
    ]);
    assert_eq!(node.reached("172.18.0.1", 8081), (vec![1], vec![1]));
    assert_eq!(node.reached("127.0.0.1", 8082).0, [2]);
    assert_eq!(node.reached("172.18.0.99", 8081).0, [4]);
    assert_eq!(read(&node.kernel).len(), 3);
    let found = node
        .compiler
        .frontend_at(ip("172.18.0.1").into(), Port::new(8081), Protocol::TCP);
    assert_eq!(
        found,
        Some(&FrontendOwner::Pod(PodRef::new("shop", "any").unwrap()))
    );
    node.update([Change::PodGone(PodRef::new("shop", "any").unwrap())]);
    assert_eq!(node.seen("172.18.0.1", 8081, Protocol::TCP), None);
}

#[test]
fn a_datagram_leaves_an_endpoint_that_is_not_ready_and_a_connection_does_not() {
    let mut both = web();
    both.ports = [
        port("http", 80, Protocol::TCP),
        port("dns", 53, Protocol::UDP),
    ]
    .into();
    let endpoints = vec![endpoint("10.1.0.1", 1), unready(endpoint("10.1.0.2", 1))];
    let mut node = Node::new(settings());
    let ports = [("http", 8080), ("dns", 5353)];
    node.update([told(both), sliced(slice("web", "a", &ports, endpoints))]);
    let keeping = |port, protocol| node.seen(VIP, port, protocol).unwrap().keeping.len();
    assert_eq!(
        (keeping(80, Protocol::TCP), keeping(53, Protocol::UDP)),
        (2, 1)
    );
}

#[test]
fn addresses_are_the_services_alone_unless_a_node_has_them() {
    let mut outward = web();
    outward.external_ips = [ip("172.18.0.1"), ip("203.0.113.250")].into();
    let mut node = Node::with(outward, vec![]);
    let addresses = |node: &Node| {
        node.kernel
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses(&node), [VIP, "203.0.113.250"]);
    // A second port changes nothing; the last one that goes takes the address along.
    node.update([told(service("api", "10.96.0.2"))]);
    assert_eq!(addresses(&node).len(), 3);
    node.update([Change::ServiceGone(service_ref("web"))]);
    assert_eq!(addresses(&node), ["10.96.0.2"]);
}

#[test]
fn a_changed_endpoint_touches_the_rows_of_its_service_alone() {
    let mut node = Node::with(
        web(),
        vec![endpoint("10.1.0.1", 1), endpoint("10.1.0.2", 2)],
    );
    node.update([
        told(service("api", "10.96.0.2")),
        sliced(slice(
            "api",
            "a",
            &[("http", 8080)],
            vec![endpoint("10.1.0.3", 1)],
        )),
    ]);
    let key = FrontendKey::new(ip(VIP).into(), Port::new(80), Protocol::TCP);
    let before = node.kernel.frontends[&key];
    let now = vec![endpoint("10.1.0.1", 1), endpoint("10.1.0.4", 2)];
    let operations = node.update([sliced(slice("web", "a", &[("http", 8080)], now))]);
    let after = node.kernel.frontends[&key];
    assert_eq!((after.id, after.service), (before.id, before.service));
    assert_ne!(after.internal, before.internal);
    assert!(matches!(
        operations[..],
        [
            Operation::UpsertBackends(3, _),
            Operation::UpsertServiceBackends(..),
            Operation::UpsertFrontend(..),
            Operation::DeleteServiceBackends(..),
            Operation::DeleteBackends(0, 2),
            Operation::Bump(_),
            Operation::Bump(_),
        ]
    ));
}
