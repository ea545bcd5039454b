// SPDX-License-Identifier: Apache-2.0
//! What many policies cost: from a changed object to its plan, and from cold.
//!
//! `cargo run --release -p weir-compile --example policy_cost -- [POLICIES] [LOCAL PODS] [OTHER PODS] [NAMESPACES]`

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_abi::{EndpointId, IfIndex, MacAddress, Protocol};
use weir_compile::{
    Compiled, LocalEndpoint, NodeIndices, Plan, PolicyCompiler, PolicyInput, PolicyLimits,
    RoutingMode, Rows, Settings, compile, plan, plan_delta,
};
use weir_model::{
    Change, ContainerPort, IdentityTable, IpBlock, LabelSelector, LabelSet, Labels, Namespace,
    NetworkPolicy, Node, NodeName, PeerNamespaces, Pod, PodCidr, PodRef, PolicyPeer, PolicyPort,
    PolicyRef, PolicyRule, PortMatch, Requirement, Touched, World,
};

/// Label sets of the pods of a namespace.
const APPS: usize = 10;
/// Pods of another node.
const PER_NODE: usize = 100;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| {
        let text = arguments.next();
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let size = Size {
        policies: number(1000),
        local: number(250),
        others: number(5000),
        namespaces: number(50),
    };
    println!(
        "{} policies, {} local pods, {} others, {} namespaces",
        size.policies, size.local, size.others, size.namespaces
    );
    let mut node = Agent::new(&size);
    let start = memory();
    let took = node.follow(&Touched::everything());
    println!(
        "cold: {took}; {} rows ({} of policy), {} problems, {} KiB",
        node.realized.len(),
        node.realized.policy.len(),
        node.policy.problems().len(),
        memory() - start
    );
    let found = node.realized.clone();
    let begin = Instant::now();
    node.policy = PolicyCompiler::restore(&found);
    let took = node.follow(&Touched::everything());
    println!("restart: {:?} in all, {took}", begin.elapsed());

    let number = std::cell::Cell::new(0);
    let next = || {
        number.set(number.get() + 1);
        number.get()
    };
    node.measure("a policy's port changes", |size| {
        let index = next() * 7 % size.policies;
        let mut policy = policy(size, index);
        let other = u16::try_from(9000 + index % 50).unwrap_or(9000);
        for rule in policy.ingress.iter_mut().flatten() {
            rule.ports = vec![port(other)];
        }
        Change::NetworkPolicy(Arc::new(policy))
    });
    node.measure("a policy goes and comes", |size| {
        let policy = policy(size, next() / 2 * 11 % size.policies);
        if number.get().is_multiple_of(2) {
            Change::NetworkPolicyGone(policy.reference)
        } else {
            Change::NetworkPolicy(Arc::new(policy))
        }
    });
    node.measure("a policy with an ipBlock of its own comes", |size| {
        let index = next() % size.policies;
        let block = format!("100.{}.{}.0/24", index / 200, index % 200);
        let mut policy = policy(size, index);
        policy.egress = Some(vec![PolicyRule {
            peers: vec![PolicyPeer::Block(block_of(&block))],
            ports: Vec::new(),
        }]);
        Change::NetworkPolicy(Arc::new(policy))
    });
    node.measure("a policy for all addresses comes", |size| {
        let index = next() % size.policies;
        let except = format!("100.{}.{}.0/24", index / 200, index % 200);
        let mut policy = policy(size, index);
        let block = IpBlock::new("0.0.0.0/0".parse().unwrap_or_default(), [net(&except)]);
        policy.egress = Some(vec![PolicyRule {
            peers: block.map(PolicyPeer::Block).into_iter().collect(),
            ports: Vec::new(),
        }]);
        Change::NetworkPolicy(Arc::new(policy))
    });
    node.measure("a namespace's label changes", |size| {
        let index = next();
        let labels = Labels::new([("team", format!("t{}", index % 7))]).unwrap_or_default();
        Change::Namespace(namespace(index % size.namespaces), labels)
    });
    node.measure("a pod of another node changes its label", |size| {
        let index = next();
        let mut pod = pod(size, size.local + index * 13 % size.others);
        pod.labels = Labels::new([("app", format!("new{}", index % 97))]).unwrap_or_default();
        Change::Pod(Arc::new(pod))
    });
    node.measure("a local pod changes its label", |size| {
        let index = next();
        let mut pod = pod(size, index * 13 % size.local);
        pod.labels = Labels::new([("app", format!("new{}", index % 97))]).unwrap_or_default();
        Change::Pod(Arc::new(pod))
    });
}

struct Size {
    policies: usize,
    local: usize,
    others: usize,
    namespaces: usize,
}

fn namespace(index: usize) -> Namespace {
    Namespace::new(&format!("ns{index}")).unwrap_or_else(|error| unreachable!("{error}"))
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap_or_default()
}

fn block_of(text: &str) -> IpBlock {
    IpBlock::new(net(text), []).unwrap_or_else(|error| unreachable!("{error}"))
}

fn node_name(index: usize) -> NodeName {
    NodeName::new(&format!("n{index}")).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Node 0 is the local one and has a wide range; each other one has a /24.
fn pod(size: &Size, index: usize) -> Pod {
    let (node, address) = if index < size.local {
        (0, format!("10.0.{}.{}", index / 250, index % 250 + 2))
    } else {
        let (node, place) = (
            (index - size.local) / PER_NODE + 1,
            (index - size.local) % PER_NODE,
        );
        (
            node,
            format!("10.{}.{}.{}", 1 + node / 250, node % 250, place + 2),
        )
    };
    let space = index % size.namespaces;
    let app = index / size.namespaces % APPS;
    Pod {
        reference: PodRef::new(&format!("ns{space}"), &format!("pod{index}"))
            .unwrap_or_else(|error| unreachable!("{error}")),
        labels: Labels::new([
            ("app", format!("app{app}")),
            ("tier", format!("t{}", app % 3)),
        ])
        .unwrap_or_default(),
        node: Some(node_name(node)),
        addresses: address.parse::<IpAddr>().into_iter().collect(),
        host_network: false,
        container_ports: vec![ContainerPort {
            name: Some("http".to_owned()),
            port: 8080,
            protocol: Protocol::TCP,
            host: None,
        }],
        created: 1,
        workload: None,
        uid: None,
        announced: false,
    }
}

fn port(number: u16) -> PolicyPort {
    PolicyPort {
        protocol: Protocol::TCP,
        ports: PortMatch::Range(number, number),
    }
}

fn app(number: usize) -> LabelSelector {
    let values = BTreeSet::from([format!("app{number}")]);
    LabelSelector::new([Requirement::In("app".to_owned(), values)]).unwrap_or_default()
}

/// Of ten policies one isolates the namespace, one opens an app to everybody, the others let apps of
/// their own or of all namespaces in, or out to addresses.
fn policy(size: &Size, index: usize) -> NetworkPolicy {
    let space = index % size.namespaces;
    let kind = index / size.namespaces % 10;
    let pods = |namespaces, pods| PolicyPeer::Pods { namespaces, pods };
    let all = || PeerNamespaces::Selected(LabelSelector::default());
    let team = || {
        let values = BTreeSet::from(["t1".to_owned()]);
        let team = Requirement::In("team".to_owned(), values);
        PeerNamespaces::Selected(LabelSelector::new([team]).unwrap_or_default())
    };
    let rule = |peer: Option<PolicyPeer>, ports: Vec<PolicyPort>| {
        Some(vec![PolicyRule {
            peers: peer.into_iter().collect(),
            ports,
        }])
    };
    let (ingress, egress) = match kind {
        0 => (Some(Vec::new()), Some(Vec::new())),
        1 => (rule(None, vec![port(8080)]), None),
        2 => (
            rule(Some(pods(all(), app(kind))), vec![port(8080), port(9090)]),
            None,
        ),
        3 => (rule(Some(pods(team(), app(kind))), Vec::new()), None),
        4 => (
            None,
            rule(
                Some(PolicyPeer::Block(block_of("203.0.113.0/24"))),
                vec![port(443)],
            ),
        ),
        5 => (
            None,
            rule(
                Some(PolicyPeer::Block(block_of("0.0.0.0/0"))),
                vec![port(443)],
            ),
        ),
        6 => (
            None,
            rule(Some(pods(all(), LabelSelector::default())), vec![port(53)]),
        ),
        _ => (
            rule(Some(pods(PeerNamespaces::Own, app(kind))), vec![port(80)]),
            None,
        ),
    };
    let pod_selector = if kind == 0 {
        LabelSelector::default()
    } else {
        app(index % APPS)
    };
    NetworkPolicy {
        reference: PolicyRef::new(&format!("ns{space}"), &format!("p{index}"))
            .unwrap_or_else(|error| unreachable!("{error}")),
        pod_selector,
        ingress,
        egress,
        annotations: BTreeMap::new(),
        refused: None,
    }
}

/// What the agent keeps.
struct Agent<'a> {
    size: &'a Size,
    world: World,
    identities: IdentityTable,
    indices: NodeIndices,
    compiled: Arc<Compiled>,
    policy: PolicyCompiler,
    realized: Rows,
}

/// How long the parts took.
struct Took {
    base: Duration,
    policy: Duration,
    plan: Duration,
    operations: usize,
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            base,
            policy,
            plan,
            operations,
        } = self;
        write!(
            f,
            "base rows {base:?}, policy {policy:?}, plan {plan:?}, {operations} operations"
        )
    }
}

impl<'a> Agent<'a> {
    fn new(size: &'a Size) -> Self {
        let mut world = World::default();
        for index in 0..=size.others.div_ceil(PER_NODE) {
            let cidr = match index {
                0 => "10.0.0.0/16".to_owned(),
                index => format!("10.{}.{}.0/24", 1 + index / 250, index % 250),
            };
            world.apply(Change::Node(Arc::new(Node {
                name: node_name(index),
                labels: Labels::default(),
                addresses: format!("172.16.{}.{}", index / 250, index % 250 + 1)
                    .parse()
                    .into_iter()
                    .collect(),
                uid: None,
                pod_cidrs: PodCidr::parse(&cidr).into_iter().collect(),
            })));
        }
        for index in 0..size.namespaces {
            let labels = Labels::new([("team", format!("t{}", index % 7))]).unwrap_or_default();
            world.apply(Change::Namespace(namespace(index), labels));
        }
        for index in 0..size.local + size.others {
            world.apply(Change::Pod(Arc::new(pod(size, index))));
        }
        for index in 0..size.policies {
            world.apply(Change::NetworkPolicy(Arc::new(policy(size, index))));
        }
        Self {
            size,
            world,
            identities: IdentityTable::default(),
            indices: NodeIndices::default(),
            compiled: Arc::default(),
            policy: PolicyCompiler::new(),
            realized: Rows::default(),
        }
    }

    fn follow(&mut self, touched: &Touched) -> Took {
        let begin = Instant::now();
        if touched.all || !touched.pods.is_empty() || !touched.nodes.is_empty() {
            let settings = Settings {
                node: node_name(0),
                routing: RoutingMode::Tunnel,
                direct_return: false,
                masquerade: true,
                non_masquerade: Vec::new(),
                node_addresses: Vec::new(),
                pod_mtu: 1450,
                endpoints_size: 65_535,
                ipcache_size: 512_000,
                masquerade_exempt_size: 16_384,
                nodes_size: 16_384,
            };
            let local = self
                .world
                .pods()
                .filter(|pod| pod.node.as_ref() == Some(&node_name(0)));
            let endpoints: Vec<_> = (2..)
                .zip(local)
                .map(|(id, pod)| LocalEndpoint {
                    id: EndpointId(id),
                    pod: pod.reference.clone(),
                    interface: IfIndex(u32::from(id)),
                    mac: MacAddress([2; 6]),
                    addresses: pod.addresses.clone(),
                    labels: Some(LabelSet::of(pod)),
                })
                .collect();
            let (identities, indices) = (&mut self.identities, &mut self.indices);
            let compiled = compile(&self.world, &settings, &endpoints, identities, indices);
            self.compiled = Arc::new(compiled);
        }
        let base = begin.elapsed();
        let begin = Instant::now();
        let input = PolicyInput {
            world: &self.world,
            base: &self.compiled,
            identities: &self.identities,
            service_addresses: &BTreeSet::new(),
            limits: PolicyLimits {
                policy: weir_abi::map::POLICY.default_size,
                policy_hits: weir_abi::map::POLICY_HITS.default_size,
                ipcache: 512_000,
            },
        };
        let delta = self.policy.update(&input, touched);
        let policy = begin.elapsed();
        let begin = Instant::now();
        let Plan { operations } = if touched.all {
            plan(&self.realized, self.policy.rows())
        } else {
            plan_delta(&self.realized, self.policy.rows(), &delta.changes)
        };
        let plan = begin.elapsed();
        for operation in &operations {
            self.realized.apply(operation);
        }
        Took {
            base,
            policy,
            plan,
            operations: operations.len(),
        }
    }

    /// Makes many changes one by one.
    fn measure(&mut self, name: &str, mut change: impl FnMut(&Size) -> Change) {
        // What was measured before leaves nothing behind.
        *self = Agent::new(self.size);
        self.follow(&Touched::everything());
        let mut times = Vec::new();
        let (mut operations, mut policy) = (0, Vec::new());
        for _ in 0..300 {
            let mut touched = Touched::default();
            let change = change(self.size);
            if !self.world.apply_noting(change, &mut touched) {
                continue;
            }
            let took = self.follow(&touched);
            times.push(took.base + took.policy + took.plan);
            policy.push(took.policy + took.plan);
            operations += took.operations;
        }
        times.sort();
        policy.sort();
        let at = |times: &[Duration], part: usize| {
            times
                .get(times.len().saturating_sub(1) * part / 100)
                .copied()
                .unwrap_or_default()
        };
        println!(
            "{name}: {} changes, median {:?}, p99 {:?}, most {:?} (policy and plan alone: p99 {:?}), {} operations each",
            times.len(),
            at(&times, 50),
            at(&times, 99),
            at(&times, 100),
            at(&policy, 99),
            operations / times.len().max(1)
        );
    }
}

/// Resident memory in KiB.
fn memory() -> usize {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}
