// SPDX-License-Identifier: Apache-2.0
//! Identities come and go, and with endpoints of theirs the sets of this node.

use std::collections::BTreeSet;

use weir_abi::{Address, Identity, PolicySet};
use weir_model::World;

use crate::policy::cell::PolicyNumber;
use crate::policy::changes::Work;
use crate::policy::sets::Set;
use crate::policy::{PolicyCompiler, PolicyInput};

impl PolicyCompiler {
    /// Tells the numbers that passed from one label set to another.
    pub(super) fn compare_identities(
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

    pub(super) fn join_set(
        &mut self,
        identity: Identity,
        address: Address,
        world: &World,
        work: &mut Work,
    ) {
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

    pub(super) fn leave_set(&mut self, identity: Identity, address: &Address, work: &mut Work) {
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
