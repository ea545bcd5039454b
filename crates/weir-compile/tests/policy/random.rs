// SPDX-License-Identifier: Apache-2.0
//! Random clusters: few names and values, so that policies and pods meet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use weir_abi::Protocol;
use weir_model::{
    Change, ContainerPort, IpBlock, LabelSelector, Labels, Namespace, NetworkPolicy, Node,
    NodeName, PeerNamespaces, Pod, PodCidr, PodRef, PolicyPeer, PolicyPort, PolicyRef, PolicyRule,
    PortMatch, Requirement,
};

use super::evaluator::Probe;

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const KEYS: [&str; 3] = ["app", "tier", "kubernetes.io/metadata.name"];
const VALUES: [&str; 4] = ["x", "y", "a", "b"];
const NODES: u8 = 2;
const PODS: u8 = 8;
const POLICIES: u8 = 6;

/// Ports that are asked for, the edges of ranges among them.
pub(crate) fn probes() -> Vec<Probe> {
    let with = |protocol, ports: &[u16]| {
        let probe = |port: &u16| Probe {
            protocol,
            port: *port,
        };
        ports.iter().map(probe).collect::<Vec<_>>()
    };
    let mut probes = with(Protocol::TCP, &[1, 79, 80, 81, 82, 443, 8080, 65_535]);
    probes.extend(with(Protocol::UDP, &[80, 81, 53]));
    probes.extend(with(Protocol::SCTP, &[80]));
    probes.extend(with(Protocol::ICMP, &[0]));
    probes
}

/// Addresses outside of the cluster; the mapped form of an IPv4 range lies inside `::/0`.
pub(crate) fn others() -> Vec<IpAddr> {
    [
        "203.0.113.10",
        "203.0.113.77",
        "10.9.9.9",
        "2001:db8::5",
        "fd00:9::9",
    ]
    .map(|text| text.parse().unwrap())
    .to_vec()
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map(select(&KEYS[..2]), select(&VALUES[..]), 0..3)
        .prop_map(|labels| Labels::new(labels).unwrap())
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let values = || {
        let values = subsequence(&VALUES[..], 1..3);
        values.prop_map(|values| values.into_iter().map(str::to_owned).collect())
    };
    let key = || select(&KEYS[..]).prop_map(str::to_owned);
    let requirement = prop_oneof![
        4 => (key(), values()).prop_map(|(key, values)| Requirement::In(key, values)),
        2 => (key(), values()).prop_map(|(key, values)| Requirement::NotIn(key, values)),
        1 => key().prop_map(Requirement::Exists),
        1 => key().prop_map(Requirement::DoesNotExist),
    ];
    vec(requirement, 0..3).prop_map(|all| LabelSelector::new(all).unwrap())
}

fn block() -> impl Strategy<Value = IpBlock> {
    const BLOCKS: [(&str, [&str; 3]); 9] = [
        (
            "0.0.0.0/0",
            ["10.0.0.0/8", "203.0.113.0/25", "10.244.1.0/24"],
        ),
        (
            "::/0",
            ["fd00:244::/32", "2001:db8::5/128", "fd00:244:1::/64"],
        ),
        (
            "10.244.0.0/16",
            ["10.244.1.0/24", "10.244.1.3/32", "10.244.2.0/25"],
        ),
        (
            "10.244.1.0/24",
            ["10.244.1.2/31", "10.244.1.4/32", "10.244.1.128/25"],
        ),
        ("10.244.1.3/32", [""; 3]),
        (
            "172.18.0.0/16",
            ["172.18.0.1/32", "172.18.0.2/32", "172.18.1.0/24"],
        ),
        (
            "203.0.113.0/24",
            ["203.0.113.64/26", "203.0.113.10/32", "203.0.113.76/30"],
        ),
        (
            "fd00:244::/32",
            ["fd00:244:1::/64", "fd00:244:2::2/128", "fd00:244:1::2/128"],
        ),
        (
            "::ffff:0:0/95",
            ["::fffe:0:0/96", "::fffe:1:0/112", "::fffe:0:0/97"],
        ),
    ];
    select(&BLOCKS[..]).prop_flat_map(|(cidr, except)| {
        let except: Vec<_> = except.into_iter().filter(|text| !text.is_empty()).collect();
        let most = except.len().min(2);
        subsequence(except, 0..=most).prop_map(move |except| {
            let net = |text: &str| text.parse().unwrap();
            IpBlock::new(net(cidr), except.iter().map(|text| net(text))).unwrap()
        })
    })
}

fn peer() -> impl Strategy<Value = PolicyPeer> {
    let namespaces = option::of(selector())
        .prop_map(|selector| selector.map_or(PeerNamespaces::Own, PeerNamespaces::Selected));
    prop_oneof![
        2 => (namespaces, selector())
            .prop_map(|(namespaces, pods)| PolicyPeer::Pods { namespaces, pods }),
        1 => block().prop_map(PolicyPeer::Block),
    ]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![4 => Just(Protocol::TCP), 2 => Just(Protocol::UDP), 1 => Just(Protocol::SCTP)]
}

fn port() -> impl Strategy<Value = PolicyPort> {
    let ports = prop_oneof![
        1 => Just(PortMatch::All),
        3 => select(&[80, 81, 443, 8080][..]).prop_map(|port| PortMatch::Range(port, port)),
        2 => (select(&[1, 80, 81][..]), select(&[81, 443, u16::MAX][..]))
            .prop_map(|(first, last)| PortMatch::Range(first, last)),
        3 => select(&["http", "dns"][..]).prop_map(|name| PortMatch::Named(name.to_owned())),
    ];
    (protocol(), ports).prop_map(|(protocol, ports)| PolicyPort { protocol, ports })
}

fn rules() -> impl Strategy<Value = Option<Vec<PolicyRule>>> {
    let rule = (vec(peer(), 0..3), vec(port(), 0..3))
        .prop_map(|(peers, ports)| PolicyRule { peers, ports });
    option::weighted(0.7, vec(rule, 0..3))
}

pub(crate) fn policy() -> impl Strategy<Value = NetworkPolicy> {
    (
        select(&NAMESPACES[..]),
        0..POLICIES,
        selector(),
        rules(),
        rules(),
    )
        .prop_map(
            |(namespace, number, pod_selector, ingress, egress)| NetworkPolicy {
                reference: PolicyRef::new(namespace, &format!("p{number}")).unwrap(),
                pod_selector,
                // A policy is about one direction at least.
                ingress: if egress.is_none() {
                    Some(ingress.unwrap_or_default())
                } else {
                    ingress
                },
                egress,
                annotations: BTreeMap::new(),
                refused: None,
            },
        )
}

fn container_ports() -> impl Strategy<Value = Vec<ContainerPort>> {
    let name = option::weighted(0.8, select(&["http", "dns"][..]));
    let port = (name, select(&[80, 81, 8080][..]), protocol());
    let port = port.prop_map(|(name, port, protocol)| ContainerPort {
        name: name.map(str::to_owned),
        port,
        protocol,
        host: None,
    });
    vec(port, 0..3)
}

pub(crate) fn node_name(number: u8) -> NodeName {
    NodeName::new(&format!("n{number}")).unwrap()
}

/// A pod has the same addresses whenever it is on the same node.
pub(crate) fn pod() -> impl Strategy<Value = Pod> {
    let name = (select(&NAMESPACES[..]), 0..PODS);
    let host = prop::bool::weighted(0.1);
    (name, labels(), 1..=NODES, container_ports(), host).prop_map(
        |((namespace, number), labels, node, container_ports, host_network)| {
            let place = NAMESPACES.iter().position(|one| *one == namespace).unwrap();
            let last = 2 + usize::from(number) * NAMESPACES.len() + place;
            let addresses = if host_network {
                node_addresses(node)
            } else {
                [
                    format!("10.244.{node}.{last}"),
                    format!("fd00:244:{node}::{last:x}"),
                ]
                .map(|text| text.parse().unwrap())
                .to_vec()
            };
            Pod {
                reference: PodRef::new(namespace, &format!("pod{number}")).unwrap(),
                labels,
                node: Some(node_name(node)),
                addresses,
                host_network,
                container_ports,
                created: i64::from(number) + 1,
                workload: None,
                uid: None,
                announced: false,
            }
        },
    )
}

pub(crate) fn node_addresses(number: u8) -> Vec<IpAddr> {
    [format!("172.18.0.{number}"), format!("fd00:18::{number}")]
        .map(|text| text.parse().unwrap())
        .to_vec()
}

pub(crate) fn nodes() -> Vec<Change> {
    let node = |number| {
        let cidrs = [
            format!("10.244.{number}.0/24"),
            format!("fd00:244:{number}::/64"),
        ];
        Change::Node(Arc::new(Node {
            name: node_name(number),
            labels: Labels::default(),
            addresses: node_addresses(number),
            uid: None,
            pod_cidrs: cidrs
                .iter()
                .map(|text| PodCidr::parse(text).unwrap())
                .collect(),
        }))
    };
    (1..=NODES).map(node).collect()
}

/// A change of one object.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let namespace = || select(&NAMESPACES[..]).prop_map(|name| Namespace::new(name).unwrap());
    prop_oneof![
        6 => pod().prop_map(|pod| Change::Pod(Arc::new(pod))),
        2 => pod().prop_map(|pod| Change::PodGone(pod.reference)),
        6 => policy().prop_map(|policy| Change::NetworkPolicy(Arc::new(policy))),
        2 => policy().prop_map(|policy| Change::NetworkPolicyGone(policy.reference)),
        2 => (namespace(), labels()).prop_map(|(name, labels)| Change::Namespace(name, labels)),
        1 => namespace().prop_map(Change::NamespaceGone),
    ]
}

/// A cluster in which something happens already.
pub(crate) fn cluster() -> impl Strategy<Value = Vec<Change>> {
    vec(change(), 10..50).prop_map(|changes| {
        let mut all = nodes();
        all.extend(changes);
        all
    })
}
