// SPDX-License-Identifier: Apache-2.0
//! What the programs make of rows, and a cluster of nodes that hold such rows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weir_abi::endpoint::flags::{ENFORCE_EGRESS, ENFORCE_INGRESS, READY};
use weir_abi::ipcache::PrefixKey;
use weir_abi::policy::{PeerKind, PolicyDirection, PolicyKey, PortRule, rule_flags};
use weir_abi::{
    Address, BlockGroup, EndpointId, Identity, IfIndex, MacAddress, PolicyCookie, Protocol,
};
use weir_compile::{
    Compiled, LocalEndpoint, NodeIndices, Plan, PolicyCompiler, PolicyDelta, PolicyInput,
    PolicyLimits, RoutingMode, Rows, Settings, compile, plan, plan_delta,
};
use weir_model::{Change, IdentityTable, LabelSet, NodeName, Touched, World};

use super::evaluator::Probe;

/// Who an address is to policy: identity and group, as the programs find them.
pub(crate) type Party = (Identity, BlockGroup);

/// Rows as the programs read them.
pub(crate) struct Kernel<'a> {
    rows: &'a Rows,
    /// Lengths of prefixes, longest first.
    lengths: Vec<u32>,
}

impl<'a> Kernel<'a> {
    pub(crate) fn new(rows: &'a Rows) -> Self {
        let lengths: BTreeSet<u32> = rows.ipcache.keys().map(|key| key.length).collect();
        Self {
            rows,
            lengths: lengths.into_iter().rev().collect(),
        }
    }

    pub(crate) fn party(&self, address: Address) -> Party {
        if let Some(row) = self.rows.endpoints.get(&address) {
            return (row.identity, row.blocks);
        }
        for length in &self.lengths {
            let cut =
                u128::from_be_bytes(address.0) & u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let key = PrefixKey {
                length: *length,
                address: Address(cut.to_be_bytes()),
            };
            if let Some(row) = self.rows.ipcache.get(&key) {
                return (row.identity, row.blocks);
            }
        }
        (Identity::WORLD, BlockGroup::NONE)
    }

    /// What the programs say: whether a side lets a connection pass, and the rule that decided.
    pub(crate) fn side(
        &self,
        direction: PolicyDirection,
        own: Address,
        (identity, group): Party,
        probe: Probe,
    ) -> (bool, PolicyCookie) {
        let own = self.rows.endpoints.get(&own);
        let Some(own) = own.filter(|row| row.flags & READY != 0) else {
            return (false, PolicyCookie::NONE);
        };
        let bit = match direction {
            PolicyDirection::Ingress => ENFORCE_INGRESS,
            PolicyDirection::Egress => ENFORCE_EGRESS,
        };
        let from_own_node = direction == PolicyDirection::Ingress && identity == Identity::HOST;
        if own.flags & bit == 0 || from_own_node {
            return (true, PolicyCookie::NONE);
        }
        let mut best: Option<PortRule> = None;
        for (kind, number) in [
            (PeerKind::Any, 0),
            (PeerKind::Identity, identity.0),
            (PeerKind::Blocks, group.0),
        ] {
            if kind == PeerKind::Blocks && number == 0 {
                continue;
            }
            let mut key = PolicyKey::new(own.policy_set, direction, kind, number);
            while let Some(row) = self.rows.policy.get(&key) {
                assert_eq!((row.set, row.peer), (key.set, key.peer), "another's row");
                for rule in row.rules.iter().take(usize::from(row.count)) {
                    if !matches(rule, probe) {
                        continue;
                    }
                    let rank = |rule: &PortRule| (rule.precedence, rule.flags & rule_flags::DENY);
                    if best.as_ref().is_none_or(|best| rank(rule) > rank(best)) {
                        best = Some(*rule);
                    }
                }
                key.part += 1;
                if row.continues == 0 {
                    break;
                }
            }
        }
        match best {
            Some(rule) => (rule.flags & rule_flags::DENY == 0, rule.cookie),
            None => (false, PolicyCookie::NONE),
        }
    }
}

fn matches(rule: &PortRule, probe: Probe) -> bool {
    if rule.protocol.0 != 0 && rule.protocol != probe.protocol {
        return false;
    }
    let every = (rule.first_port, rule.last_port) == (0, u16::MAX);
    let has_ports = [Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&probe.protocol);
    every || (has_ports && (rule.first_port..=rule.last_port).contains(&probe.port))
}

/// One node with what it keeps between changes.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: NodeName,
    pub(crate) identities: IdentityTable,
    indices: NodeIndices,
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) policy: PolicyCompiler,
    pub(crate) realized: Rows,
    pub(crate) limits: PolicyLimits,
    pub(crate) service_addresses: BTreeSet<Address>,
    /// Endpoints keep their number while the pod is there.
    numbers: BTreeMap<IpAddr, u16>,
    /// The links of endpoints by their number, where there are real ones.
    pub(crate) links: Vec<IfIndex>,
}

pub(crate) const LIMITS: PolicyLimits = PolicyLimits {
    policy: 100_000,
    policy_hits: 100_000,
    ipcache: 100_000,
};

impl Node {
    pub(crate) fn new(name: &NodeName) -> Self {
        Self {
            name: name.clone(),
            identities: IdentityTable::default(),
            indices: NodeIndices::default(),
            compiled: Arc::default(),
            policy: PolicyCompiler::new(),
            realized: Rows::default(),
            limits: LIMITS,
            service_addresses: BTreeSet::new(),
            numbers: BTreeMap::new(),
            links: Vec::new(),
        }
    }

    /// The agent is started again: it knows what is in files and in the kernel, nothing else.
    pub(crate) fn restart(&mut self) {
        self.policy = PolicyCompiler::restore(&self.realized);
        self.indices = NodeIndices::restore(&self.realized.nodes);
        let pairs: Vec<_> = self
            .identities
            .iter()
            .map(|(n, s)| (n, s.clone()))
            .collect();
        self.identities = IdentityTable::restore(pairs);
        self.compiled = Arc::default();
    }

    fn endpoints(&mut self, world: &World) -> Vec<LocalEndpoint> {
        let own = |pod: &&Arc<weir_model::Pod>| pod.node.as_ref() == Some(&self.name);
        let pods: Vec<_> = world.pods().filter(own).cloned().collect();
        let pods = pods
            .iter()
            .filter(|pod| !pod.host_network && !pod.addresses.is_empty());
        pods.map(|pod| {
            let next = u16::try_from(self.numbers.len() + 2).unwrap();
            let number = *self.numbers.entry(pod.addresses[0]).or_insert(next);
            LocalEndpoint {
                id: EndpointId(number),
                pod: pod.reference.clone(),
                interface: self
                    .links
                    .get(usize::from(number))
                    .copied()
                    .unwrap_or(IfIndex(u32::from(number))),
                mac: MacAddress([2, 0, 0, 0, 0, 1]),
                addresses: pod.addresses.clone(),
                labels: Some(LabelSet::of(pod)),
            }
        })
        .collect()
    }

    /// What the agent does with a batch of changes, up to the plan.
    pub(crate) fn update(&mut self, world: &World, touched: &Touched) -> (PolicyDelta, Plan) {
        let base_changed = touched.all || !touched.pods.is_empty() || !touched.nodes.is_empty();
        if base_changed || self.compiled.rows.is_empty() {
            let settings = Settings {
                node: self.name.clone(),
                routing: RoutingMode::Tunnel,
                direct_return: false,
                masquerade: true,
                non_masquerade: Vec::new(),
                node_addresses: Vec::new(),
                pod_mtu: 1450,
                endpoints_size: 65_535,
                ipcache_size: self.limits.ipcache,
                masquerade_exempt_size: 1000,
                nodes_size: 1000,
            };
            let endpoints = self.endpoints(world);
            let (identities, indices) = (&mut self.identities, &mut self.indices);
            let compiled = compile(world, &settings, &endpoints, identities, indices);
            self.compiled = Arc::new(compiled);
        }
        let input = PolicyInput {
            world,
            base: &self.compiled,
            identities: &self.identities,
            service_addresses: &self.service_addresses,
            limits: self.limits,
        };
        let delta = self.policy.update(&input, touched);
        let plan = if touched.all {
            plan(&self.realized, self.policy.rows())
        } else {
            plan_delta(&self.realized, self.policy.rows(), &delta.changes)
        };
        (delta, plan)
    }

    /// Carries a plan out.
    pub(crate) fn execute(&mut self, plan: &Plan) {
        for operation in &plan.operations {
            self.realized.apply(operation);
        }
    }
}

/// A world and the nodes in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    started: bool,
}

impl Cluster {
    pub(crate) fn new(changes: impl IntoIterator<Item = Change>) -> Self {
        let mut cluster = Self::default();
        cluster.apply(changes);
        cluster
    }

    /// Applies changes and has every node follow; what each of them did.
    pub(crate) fn apply(
        &mut self,
        changes: impl IntoIterator<Item = Change>,
    ) -> Vec<(NodeName, Rows, PolicyDelta, Plan)> {
        let mut touched = Touched::default();
        for change in changes {
            self.world.apply_noting(change, &mut touched);
        }
        touched.all |= !std::mem::replace(&mut self.started, true);
        self.follow(&touched)
    }

    pub(crate) fn follow(&mut self, touched: &Touched) -> Vec<(NodeName, Rows, PolicyDelta, Plan)> {
        for node in self.world.nodes() {
            let name = node.name.clone();
            self.nodes
                .entry(name)
                .or_insert_with(|| Node::new(&node.name));
        }
        let mut done = Vec::new();
        for (name, node) in &mut self.nodes {
            let before = node.realized.clone();
            let (delta, plan) = node.update(&self.world, touched);
            node.execute(&plan);
            done.push((name.clone(), before, delta, plan));
        }
        done
    }

    pub(crate) fn restart(&mut self) {
        self.started = false;
        for node in self.nodes.values_mut() {
            node.restart();
        }
    }
}
