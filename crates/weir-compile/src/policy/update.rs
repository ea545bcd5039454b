// SPDX-License-Identifier: Apache-2.0
//! From what has changed to the cells that depend on it.
//!
//! Whatever says something about a peer is taken back in exactly the words in which it was said, so
//! the order matters: endpoints leave before identities go, identities come before endpoints, and a
//! selector changes together with every cell that it is behind.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, Identity, PolicySet};
use weir_model::{LabelSet, Namespace, PolicyRef, Touched, World};

use super::cell::{PolicyNumber, PortSpec, RuleId};
use super::changes::RowChanges;
use super::rules::{CompiledRule, DIRECTIONS, compile_rules, release_rules};
use super::selectors::{SelectorId, User};
use super::sets::{CellKey, CellPeer, Set};
use super::{PolicyCompiler, PolicyDelta, PolicyInput};
use crate::Compiled;

/// What an update has come across so far.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Cells that say something else.
    pub(super) cells: BTreeSet<(Identity, CellKey)>,
    /// Sets whose endpoints need another row.
    pub(super) sets: BTreeSet<Identity>,
    /// Prefixes to look at again.
    pub(super) prefixes: BTreeSet<weir_abi::ipcache::PrefixKey>,
    pub(super) endpoints: BTreeSet<Address>,
    pub(super) changes: RowChanges,
}

impl PolicyCompiler {
    /// Takes in what has changed. The first update takes everything for changed.
    pub fn update(&mut self, input: &PolicyInput<'_>, touched: &Touched) -> PolicyDelta {
        let mut work = Work::default();
        let first = self.base.is_none();
        let all = touched.all || first;
        self.cookies.set_places(input.limits.policy_hits);

        let same_base = self
            .base
            .as_ref()
            .is_some_and(|base| Arc::ptr_eq(base, input.base));
        if !same_base {
            self.take_base(input, &mut work);
        }
        if all {
            let sets = self.selectors.identities().values();
            for namespace in &sets
                .map(|set| set.namespace.clone())
                .collect::<BTreeSet<_>>()
            {
                self.relabel(namespace, input.world, &mut work);
            }
            self.compare_policies(input.world, &mut work);
        } else {
            for namespace in &touched.namespaces {
                self.relabel(namespace, input.world, &mut work);
            }
            for reference in &touched.policies {
                self.replace_policy(reference, input.world, &mut work);
            }
        }
        let (problems, unenforced) = self.realize(input, &mut work);
        let problems_changed = self.problems != problems;
        self.problems = problems;
        self.unenforced = unenforced;
        self.base = Some(Arc::clone(input.base));
        self.found = super::Found::default();
        PolicyDelta {
            changes: work.changes,
            cookies: self.cookies.take_changes(),
            problems_changed,
        }
    }

    /// Rows without policy, identities and endpoints that differ.
    fn take_base(&mut self, input: &PolicyInput<'_>, work: &mut Work) {
        let empty = Arc::default();
        let before: Arc<Compiled> = self.base.clone().unwrap_or(empty);
        let (old, new) = (&before.rows, &input.base.rows);
        for index in differing(&old.nodes, &new.nodes) {
            set_or_remove(&mut self.rows.nodes, index, new.nodes.get(&index));
            work.changes.nodes.insert(index);
        }
        if old.masquerade_exempt != new.masquerade_exempt {
            let exempt = old
                .masquerade_exempt
                .symmetric_difference(&new.masquerade_exempt);
            work.changes.masquerade_exempt = exempt.copied().collect();
            self.rows
                .masquerade_exempt
                .clone_from(&new.masquerade_exempt);
        }
        work.prefixes.extend(differing(&old.ipcache, &new.ipcache));

        let mut moved: Vec<Address> = differing(&old.endpoints, &new.endpoints).collect();
        let identity = |rows: &crate::Rows, address: &Address| {
            let row = rows.endpoints.get(address)?;
            Some(row.identity).filter(|identity| *identity != Identity::UNKNOWN)
        };
        for address in &moved {
            if let Some(gone) = identity(old, address) {
                self.leave_set(gone, address, work);
            }
        }
        let passed = self.compare_identities(input, work);
        if !passed.is_empty() {
            let rows = new.endpoints.iter();
            let others = rows.filter(|(_, row)| passed.contains(&row.identity));
            moved.extend(others.map(|(address, _)| *address));
        }
        for address in &moved {
            if let Some(now) = identity(new, address) {
                self.join_set(now, *address, input.world, work);
            }
        }
        work.endpoints.extend(moved);
    }

    /// Tells the numbers that passed from one label set to another.
    fn compare_identities(
        &mut self,
        input: &PolicyInput<'_>,
        work: &mut Work,
    ) -> BTreeSet<Identity> {
        let known = self.selectors.identities();
        let gone = known.iter().filter(|(number, set)| {
            // A number can have passed to another set.
            input.identities.set(**number) != Some(*set)
        });
        let gone: Vec<Identity> = gone.map(|(number, _)| *number).collect();
        let new = input.identities.iter();
        let new = new.filter(|(number, set)| known.get(number) != Some(*set));
        let new: Vec<_> = new.map(|(number, set)| (number, set.clone())).collect();
        for number in gone {
            self.drop_set(number, work);
            let Some(set) = self.selectors.labels(number).cloned() else {
                continue;
            };
            for selector in self.selectors.remove_identity(number) {
                self.tell_users(selector, number, &set, false, work);
            }
            work.changes.gone.identities.insert(number);
        }
        let mut passed = BTreeSet::new();
        for (number, set) in new {
            let meaning = self
                .selectors
                .add_identity(number, set.clone(), input.world);
            for selector in meaning {
                self.tell_users(selector, number, &set, true, work);
            }
            // A number that passes from one set to the next is met by packets all the time.
            if work.changes.gone.identities.remove(&number) {
                passed.insert(number);
            } else {
                work.changes.fresh.identities.insert(number);
            }
        }
        passed
    }

    /// Tells every rule that asks a selector that an identity is meant, or no longer.
    fn tell_users(
        &mut self,
        selector: SelectorId,
        identity: Identity,
        labels: &LabelSet,
        add: bool,
        work: &mut Work,
    ) {
        let users = self.selectors.get(selector).map(|one| one.users.clone());
        for user in users.into_iter().flatten() {
            let Some(rules) = self
                .policies
                .get(user.policy)
                .and_then(|one| one.rules.clone())
            else {
                continue;
            };
            let Some(rule) = rules[user.direction as usize].get(user.rule as usize) else {
                continue;
            };
            let Some(set) = self.sets.get_mut(&user.set) else {
                continue;
            };
            speak_of_pod(set, rule, user, identity, labels, add, work);
        }
    }

    fn relabel(&mut self, namespace: &Namespace, world: &World, work: &mut Work) {
        for (selector, identity, means) in self.selectors.relabel_namespace(namespace, world) {
            let Some(labels) = self.selectors.labels(identity).cloned() else {
                continue;
            };
            self.tell_users(selector, identity, &labels, means, work);
            let users = self.selectors.get(selector).map(|one| &one.users);
            let concerned = users.into_iter().flatten().map(|user| user.set);
            let numbers = concerned.filter_map(|set| self.sets.get(&set).map(|set| set.number));
            work.changes.sets.extend(numbers);
        }
    }

    fn compare_policies(&mut self, world: &World, work: &mut Work) {
        let known: BTreeSet<PolicyRef> = self.policies.references().cloned().collect();
        let present = world.policies().map(|policy| policy.reference.clone());
        for reference in known.into_iter().chain(present).collect::<BTreeSet<_>>() {
            self.replace_policy(&reference, world, work);
        }
    }

    /// Takes a policy back and puts in its present version, if there is one.
    fn replace_policy(&mut self, reference: &PolicyRef, world: &World, work: &mut Work) {
        let number = self.policies.number(reference);
        let old = number.and_then(|number| self.policies.get(number));
        let new = world.policy(reference);
        match (old, new) {
            (None, None) => return,
            (Some(old), Some(new)) if old.source == *new => return,
            (Some(_) | None, Some(_) | None) => {}
        }
        let sets = old.map(|state| state.sets.clone()).unwrap_or_default();
        for (set, number) in sets.iter().zip(std::iter::repeat(number)) {
            if let Some(number) = number {
                self.detach(number, *set, work);
            }
        }
        let Some(new) = new else {
            self.policies.remove(reference);
            return;
        };
        let number = self.policies.put(Arc::clone(new));
        let selected = self
            .sets
            .iter()
            .filter(|(_, set)| new.selects(&set.labels.namespace, &set.labels.labels));
        for set in selected.map(|(identity, _)| *identity).collect::<Vec<_>>() {
            self.attach(number, set, world, work);
        }
    }

    /// Puts a policy into a set.
    fn attach(&mut self, number: PolicyNumber, identity: Identity, world: &World, work: &mut Work) {
        let Some(state) = self.policies.get_mut(number) else {
            return;
        };
        if state.rules.is_none() {
            let (selectors, blocks) = (&mut self.selectors, &mut self.blocks);
            let rules = compile_rules(&state.source, selectors, blocks, world);
            state.rules = Some(Arc::new(rules));
        }
        state.sets.insert(identity);
        if let Some(set) = self.sets.get_mut(&identity) {
            set.policies.insert(number);
        }
        self.speak(number, identity, true, work);
    }

    /// Takes a policy out of a set.
    fn detach(&mut self, number: PolicyNumber, identity: Identity, work: &mut Work) {
        self.speak(number, identity, false, work);
        if let Some(set) = self.sets.get_mut(&identity) {
            set.policies.remove(&number);
        }
        let Some(state) = self.policies.get_mut(number) else {
            return;
        };
        state.sets.remove(&identity);
        if state.sets.is_empty()
            && let Some(rules) = state.rules.take()
        {
            release_rules(&rules, &mut self.selectors, &mut self.blocks);
        }
    }

    /// Says in a set what a policy says, or takes it back.
    fn speak(&mut self, number: PolicyNumber, identity: Identity, add: bool, work: &mut Work) {
        let Some(state) = self.policies.get(number) else {
            return;
        };
        let (source, Some(rules)) = (Arc::clone(&state.source), state.rules.clone()) else {
            return;
        };
        for direction in DIRECTIONS {
            if source.rules(direction).is_none() {
                continue;
            }
            self.isolate(identity, direction, add, work);
            for (place, rule) in (0..).zip(&rules[direction as usize]) {
                let user = User {
                    set: identity,
                    direction,
                    policy: number,
                    rule: place,
                };
                self.speak_rule(user, rule, add, work);
            }
        }
    }

    /// Counts one more or one less policy that isolates a set.
    fn isolate(
        &mut self,
        identity: Identity,
        direction: PolicyDirection,
        add: bool,
        work: &mut Work,
    ) {
        let Some(set) = self.sets.get_mut(&identity) else {
            return;
        };
        work.sets.insert(identity);
        work.changes.sets.insert(set.number);
        let count = &mut set.isolating[direction as usize];
        let before = *count;
        *count = if add { before + 1 } else { before - 1 };
        let toggled = before == 0 || *count == 0;
        if toggled && direction == PolicyDirection::Egress {
            // "Traffic to and from the node where a Pod is running is always allowed."
            let key = (direction, CellPeer::Identity(Identity::HOST));
            set.share(key, &[PortSpec::EVERYTHING], RuleId::OWN_NODE, add);
            work.cells.insert((identity, key));
        }
    }

    fn speak_rule(&mut self, user: User, rule: &CompiledRule, add: bool, work: &mut Work) {
        let Some(set) = self.sets.get_mut(&user.set) else {
            return;
        };
        let id = RuleId {
            policy: user.policy,
            rule: user.rule,
        };
        let own = set.labels.ports.clone();
        // At peers without names, a rule for the way out has its numbers only.
        let plain = match user.direction {
            PolicyDirection::Ingress => rule.ports(&own).into_owned(),
            PolicyDirection::Egress => rule.numbers().to_vec(),
        };
        if rule.everyone {
            let key = (user.direction, CellPeer::Any);
            set.share(key, &plain, id, add);
            work.cells.insert((user.set, key));
        }
        let named = rule.named_blocks.iter().map(|(block, protocol)| {
            // The number is filled in for each group.
            (*block, vec![PortSpec::allow(*protocol, 0, 0)])
        });
        let blocks = rule.blocks.iter().map(|block| (*block, plain.clone()));
        for (block, specs) in blocks.chain(named) {
            let key = (user.direction, CellPeer::Block(block));
            if set.share(key, &specs, id, add) {
                self.blocks.set_user(block, (user.set, user.direction), add);
            }
            work.cells.insert((user.set, key));
        }
        for selector in rule.selectors.iter().chain(&rule.named_everyone) {
            self.selectors.set_user(*selector, user, add);
            let meant = self.selectors.get(*selector).map(|one| &one.matches);
            for identity in meant.into_iter().flatten() {
                if let Some(labels) = self.selectors.labels(*identity) {
                    speak_of_pod(set, rule, user, *identity, labels, add, work);
                }
            }
        }
    }

    fn join_set(&mut self, identity: Identity, address: Address, world: &World, work: &mut Work) {
        if !self.sets.contains_key(&identity) {
            let Some(labels) = self.selectors.labels(identity).cloned() else {
                return;
            };
            let found = self.found.sets.remove(&identity);
            let number = found.unwrap_or_else(|| {
                self.last_set += 1;
                PolicySet(self.last_set)
            });
            let candidates: Vec<_> = self.policies.inside(&labels.namespace).collect();
            let selects = |number: &PolicyNumber| {
                let policy = self.policies.get(*number).map(|state| &state.source);
                policy.is_some_and(|one| one.selects(&labels.namespace, &labels.labels))
            };
            let selecting: Vec<_> = candidates.into_iter().filter(selects).collect();
            self.sets.insert(identity, Set::new(number, labels));
            work.sets.insert(identity);
            for policy in selecting {
                self.attach(policy, identity, world, work);
            }
        }
        if let Some(set) = self.sets.get_mut(&identity) {
            set.addresses.insert(address);
        }
    }

    fn leave_set(&mut self, identity: Identity, address: &Address, work: &mut Work) {
        if let Some(set) = self.sets.get_mut(&identity) {
            set.addresses.remove(address);
            if set.addresses.is_empty() {
                self.drop_set(identity, work);
            }
        }
    }

    /// Nobody on this node has the identity any more.
    fn drop_set(&mut self, identity: Identity, work: &mut Work) {
        let Some(set) = self.sets.get(&identity) else {
            return;
        };
        for policy in set.policies.clone() {
            self.detach(policy, identity, work);
        }
        if let Some(set) = self.sets.remove(&identity) {
            for chain in set.lengths.keys() {
                self.erase(chain.key(set.number), work);
            }
        }
    }
}

/// Says, or takes back, what a rule says about a pod's identity.
fn speak_of_pod(
    set: &mut Set,
    rule: &CompiledRule,
    user: User,
    identity: Identity,
    labels: &LabelSet,
    add: bool,
    work: &mut Work,
) {
    let specs = match user.direction {
        PolicyDirection::Ingress => rule.ports(&set.labels.ports).into_owned(),
        PolicyDirection::Egress if rule.everyone => rule.named(&labels.ports),
        PolicyDirection::Egress => rule.ports(&labels.ports).into_owned(),
    };
    let id = RuleId {
        policy: user.policy,
        rule: user.rule,
    };
    let key = (user.direction, CellPeer::Identity(identity));
    if !specs.is_empty() {
        set.share(key, &specs, id, add);
        work.cells.insert((user.set, key));
    }
}

/// Keys whose values differ, or that only one map has; both maps are walked once, side by side.
fn differing<K: Copy + Ord, V: PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> impl Iterator<Item = K> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            match order {
                Ordering::Less => return old.next().map(|(key, _)| *key),
                Ordering::Greater => return new.next().map(|(key, _)| *key),
                Ordering::Equal => {
                    if let (Some((key, before)), Some((_, now))) = (old.next(), new.next())
                        && before != now
                    {
                        return Some(*key);
                    }
                }
            }
        }
    })
}

fn set_or_remove<K: Ord, V: Copy>(map: &mut BTreeMap<K, V>, key: K, value: Option<&V>) {
    match value {
        Some(value) => drop(map.insert(key, *value)),
        None => drop(map.remove(&key)),
    }
}
