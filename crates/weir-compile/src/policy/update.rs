// SPDX-License-Identifier: Apache-2.0
//! From what has changed to the cells that depend on it.
//!
//! Whatever says something about a peer is taken back in exactly the words in which it was said, so
//! the order matters: endpoints leave before identities go, identities come before endpoints, and a
//! selector changes together with every cell that it is behind.

mod identities;
mod speak;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::{Address, Identity};
use weir_model::{Namespace, PolicyRef, Touched, World};

use super::changes::Work;
use super::{PolicyCompiler, PolicyDelta, PolicyInput};
use crate::Compiled;

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
