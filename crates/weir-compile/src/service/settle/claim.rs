// SPDX-License-Identifier: Apache-2.0
//! Who gets a frontend that several ask for, and who is asked when it is free again.

use std::collections::BTreeSet;

use weir_abi::ServiceId;
use weir_abi::service::FrontendKey;

use super::{Settling, socket};
use crate::Problem;
use crate::service::{Age, FrontendOwner, ServiceCompiler};

impl ServiceCompiler {
    /// Who has a frontend, other than the one that is being settled.
    fn holder(&self, key: &FrontendKey) -> Option<(&FrontendOwner, Age)> {
        let row = self.ledger.rows.frontends.get(key)?;
        let (owner, held) = self.owners.get_key_value(self.by_id.get(&row.service)?)?;
        // A row from before a restart may stand under a number that is somebody's meanwhile.
        let mut groups = held.groups.iter();
        groups
            .any(|group| group.id == row.service && group.frontends.contains(key))
            .then_some((owner, held.age))
    }

    /// Whether the owner gets a frontend: nobody has it, or somebody younger.
    pub(super) fn claim(&mut self, key: &FrontendKey, settling: &mut Settling<'_>) -> bool {
        let Some((holder, age)) = self.holder(key) else {
            return true;
        };
        let holder = holder.clone();
        let claimants = self.contested.entry(*key).or_default();
        claimants.insert(settling.owner.clone());
        claimants.insert(holder.clone());
        if (settling.age, settling.owner) < (age, &holder) {
            settling.queue.insert((age, holder));
            return true;
        }
        settling.lost.push(*key);
        settling.problems.push(Problem::DuplicateFrontend {
            frontend: format!("{}/{}", socket(key.address, key.port), key.protocol),
            first: holder,
            second: settling.owner.clone(),
        });
        false
    }

    /// The owner does not ask for a frontend any more: whoever else does has to be asked.
    pub(super) fn withdraw(&mut self, key: &FrontendKey, settling: &mut Settling<'_>) {
        let Some(claimants) = self.contested.get_mut(key) else {
            return;
        };
        claimants.remove(settling.owner);
        let others = claimants.clone();
        if claimants.len() < 2 {
            self.contested.remove(key);
        }
        self.ask(others, settling);
    }

    /// Has other owners settled again.
    pub(super) fn ask(&self, others: BTreeSet<FrontendOwner>, settling: &mut Settling<'_>) {
        let age = |owner: &FrontendOwner| {
            let held = self.owners.get(owner);
            held.map_or(settling.age, |held| held.age)
        };
        let aged = others.into_iter().map(|owner| (age(&owner), owner));
        settling.queue.extend(aged);
    }

    /// Removes a frontend's row unless it is somebody else's by now.
    pub(super) fn release(&mut self, key: &FrontendKey) {
        let row = self.ledger.rows.frontends.get(key);
        if row.is_some_and(|row| !self.is_held(key, row.service)) {
            self.remove_frontend(key);
        }
    }

    /// Whether the group with this number has the frontend. The owner that is being settled has
    /// none at the moment.
    pub(in crate::service) fn is_held(&self, key: &FrontendKey, id: ServiceId) -> bool {
        let held = self.by_id.get(&id).and_then(|owner| self.owners.get(owner));
        held.is_some_and(|held| {
            let mut groups = held.groups.iter();
            groups.any(|group| group.id == id && group.frontends.contains(key))
        })
    }

    pub(in crate::service) fn remove_frontend(&mut self, key: &FrontendKey) {
        if let Some(row) = self.ledger.remove_frontend(key) {
            self.frontend_ids.give_back(row.id.0);
            self.addresses.insert(key.address);
        }
    }
}
