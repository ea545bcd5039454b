// SPDX-License-Identifier: Apache-2.0
//! Policies with their peers resolved to selectors and blocks, once for all sets that they select.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::policy::PolicyDirection;
use weir_abi::{Identity, Protocol};
use weir_model::{
    LabelSelector, NamedPorts, Namespace, NetworkPolicy, PeerNamespaces, PolicyPeer, PolicyRef,
    PolicyRule, PortMatch, World,
};

use super::blocks::{BlockId, BlockKey, Blocks};
use super::cell::{PolicyNumber, PortSpec, join};
use super::selectors::{Scope, SelectorId, SelectorKey, Selectors, remove_from};

/// Both directions, in the order of their numbers.
pub(crate) const DIRECTIONS: [PolicyDirection; 2] =
    [PolicyDirection::Ingress, PolicyDirection::Egress];

/// A rule as sets take it in.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    /// It names no peers.
    pub(crate) everyone: bool,
    pub(crate) selectors: Vec<SelectorId>,
    /// Every pod: where a rule for everyone names ports, these are other numbers at each pod.
    pub(crate) named_everyone: Option<SelectorId>,
    pub(crate) blocks: Vec<BlockId>,
    /// Blocks that stand for the pods in them with a port of a name, and the protocol.
    pub(crate) named_blocks: Vec<(BlockId, Protocol)>,
    /// Ports by number, joined.
    numbers: Vec<PortSpec>,
    names: Vec<(String, Protocol)>,
}

impl CompiledRule {
    /// What the rule allows where names mean what they mean at this pod.
    pub(crate) fn ports(&self, named: &NamedPorts) -> Cow<'_, [PortSpec]> {
        if self.names.is_empty() {
            return Cow::Borrowed(&self.numbers);
        }
        let mut all = self.named(named);
        all.extend(&self.numbers);
        join(&mut all);
        Cow::Owned(all)
    }

    /// The part that names allow.
    pub(crate) fn named(&self, named: &NamedPorts) -> Vec<PortSpec> {
        let names = self.names.iter();
        let mut found: Vec<_> = names
            .flat_map(|(name, protocol)| {
                let spec = |number| PortSpec::allow(*protocol, number, number);
                named.numbers(name, *protocol).map(spec)
            })
            .collect();
        join(&mut found);
        found
    }

    /// The part that is the same at every pod.
    pub(crate) fn numbers(&self) -> &[PortSpec] {
        &self.numbers
    }
}

/// The rules of both directions, by the number of the direction.
pub(crate) type CompiledRules = [Vec<CompiledRule>; 2];

/// A policy with what is derived from it.
#[derive(Clone, Debug)]
pub(crate) struct PolicyState {
    pub(crate) source: Arc<NetworkPolicy>,
    /// Identities of this node whose sets hold it.
    pub(crate) sets: BTreeSet<Identity>,
    /// While it is in a set.
    pub(crate) rules: Option<Arc<CompiledRules>>,
}

/// All policies of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    numbers: BTreeMap<PolicyRef, PolicyNumber>,
    states: BTreeMap<PolicyNumber, PolicyState>,
    by_namespace: BTreeMap<Namespace, BTreeSet<PolicyNumber>>,
    last: u32,
}

impl Policies {
    /// The number of a policy that is known.
    pub(crate) fn number(&self, reference: &PolicyRef) -> Option<PolicyNumber> {
        self.numbers.get(reference).copied()
    }

    /// Every known name.
    pub(crate) fn references(&self) -> impl Iterator<Item = &PolicyRef> {
        self.numbers.keys()
    }

    /// A policy by its number.
    pub(crate) fn get(&self, number: PolicyNumber) -> Option<&PolicyState> {
        self.states.get(&number)
    }

    /// A policy by its number.
    pub(crate) fn get_mut(&mut self, number: PolicyNumber) -> Option<&mut PolicyState> {
        self.states.get_mut(&number)
    }

    /// The policies of a namespace.
    pub(crate) fn inside(&self, namespace: &Namespace) -> impl Iterator<Item = PolicyNumber> + '_ {
        let inside = self.by_namespace.get(namespace);
        inside.into_iter().flatten().copied()
    }

    /// Puts a policy in that is in no set yet; an earlier version must have left its sets. A version
    /// that follows another one keeps its number, so that what does not differ stays as it is.
    pub(crate) fn put(&mut self, source: Arc<NetworkPolicy>) -> PolicyNumber {
        let reference = source.reference.clone();
        let known = self.numbers.get(&reference).copied();
        let number = known.unwrap_or_else(|| {
            self.last += 1;
            PolicyNumber(self.last)
        });
        let namespace = reference.namespace.clone();
        self.by_namespace
            .entry(namespace)
            .or_default()
            .insert(number);
        self.numbers.insert(reference, number);
        let state = PolicyState {
            source,
            sets: BTreeSet::new(),
            rules: None,
        };
        self.states.insert(number, state);
        number
    }

    /// Forgets a policy that is in no set any more.
    pub(crate) fn remove(&mut self, reference: &PolicyRef) {
        if let Some(number) = self.numbers.remove(reference) {
            self.states.remove(&number);
            remove_from(&mut self.by_namespace, &reference.namespace, &number);
        }
    }
}

/// Resolves the peers of a policy.
pub(crate) fn compile_rules(
    policy: &NetworkPolicy,
    selectors: &mut Selectors,
    blocks: &mut Blocks,
    world: &World,
) -> CompiledRules {
    DIRECTIONS.map(|direction| {
        let rules = policy.rules(direction).unwrap_or_default().iter();
        let mut one = |rule| {
            let namespace = &policy.reference.namespace;
            compile_rule(rule, namespace, direction, selectors, blocks, world)
        };
        rules.map(&mut one).collect()
    })
}

fn compile_rule(
    rule: &PolicyRule,
    namespace: &Namespace,
    direction: PolicyDirection,
    selectors: &mut Selectors,
    blocks: &mut Blocks,
    world: &World,
) -> CompiledRule {
    let mut numbers = Vec::new();
    let mut names = BTreeSet::new();
    for port in &rule.ports {
        match &port.ports {
            PortMatch::All => numbers.push(PortSpec::allow(port.protocol, 0, u16::MAX)),
            PortMatch::Range(first, last) => {
                numbers.push(PortSpec::allow(port.protocol, *first, *last));
            }
            PortMatch::Named(name) => drop(names.insert((name.clone(), port.protocol))),
        }
    }
    if rule.ports.is_empty() {
        numbers.push(PortSpec::EVERYTHING);
    }
    join(&mut numbers);

    // A name is looked up at the destination: on the way in that is the set's own pod, whatever the
    // peer is.
    let names_of_peers = direction == PolicyDirection::Egress && !names.is_empty();
    let mut keys = BTreeSet::new();
    let (mut plain, mut named_blocks) = (Vec::new(), Vec::new());
    for peer in &rule.peers {
        match peer {
            PolicyPeer::Pods { namespaces, pods } => {
                let scope = match namespaces {
                    PeerNamespaces::Own => Scope::One(namespace.clone()),
                    PeerNamespaces::Selected(selector) => Scope::Matching(selector.clone()),
                };
                let pods = pods.clone();
                keys.insert(SelectorKey { scope, pods });
            }
            PolicyPeer::Block(block) => {
                if !(names_of_peers && numbers.is_empty()) {
                    plain.push(blocks.hold(BlockKey {
                        block: block.clone(),
                        named: None,
                    }));
                }
                for named in names.iter().filter(|_| names_of_peers) {
                    let id = blocks.hold(BlockKey {
                        block: block.clone(),
                        named: Some(named.clone()),
                    });
                    named_blocks.push((id, named.1));
                }
            }
        }
    }
    let everyone = rule.peers.is_empty();
    let named_everyone = (everyone && names_of_peers).then(|| {
        let every_pod = SelectorKey {
            scope: Scope::Matching(LabelSelector::default()),
            pods: LabelSelector::default(),
        };
        selectors.hold(every_pod, world)
    });
    CompiledRule {
        everyone,
        selectors: keys
            .into_iter()
            .map(|key| selectors.hold(key, world))
            .collect(),
        named_everyone,
        blocks: plain,
        named_blocks,
        numbers,
        names: names.into_iter().collect(),
    }
}

/// Gives back what [`compile_rules`] holds.
pub(crate) fn release_rules(rules: &CompiledRules, selectors: &mut Selectors, blocks: &mut Blocks) {
    for rule in rules.iter().flatten() {
        for id in rule.selectors.iter().chain(&rule.named_everyone) {
            selectors.release(*id);
        }
        let named = rule.named_blocks.iter().map(|(id, _)| id);
        for id in rule.blocks.iter().chain(named) {
            blocks.release(*id);
        }
    }
}
