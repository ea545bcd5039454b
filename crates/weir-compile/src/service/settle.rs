// SPDX-License-Identifier: Apache-2.0
//! Gives one service, or one pod with host ports, the rows that it asks for.

mod claim;
mod group;

use std::collections::BTreeSet;

use weir_abi::ipcache::PrefixKey;
use weir_abi::service::{BackendRun, FrontendKey, FrontendKind};
use weir_abi::{Address, Port, ServiceId};

use super::ledger::Full;
use super::wanted::{GroupKey, Wanted};
use super::{Age, FrontendOwner, Queue, ServiceCompiler, ServiceSettings};
use crate::Problem;

/// What an owner has.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) age: Age,
    pub(super) groups: Box<[Group]>,
    /// Frontends that somebody older has.
    pub(super) lost: Box<[FrontendKey]>,
}

/// Frontends with the same backends, under one number.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) id: ServiceId,
    pub(super) internal: BackendRun,
    pub(super) external: BackendRun,
    pub(super) frontends: Box<[FrontendKey]>,
    pub(super) ranges: Box<[PrefixKey]>,
}

/// What goes along while one owner is settled.
struct Settling<'a> {
    owner: &'a FrontendOwner,
    age: Age,
    settings: &'a ServiceSettings,
    lost: Vec<FrontendKey>,
    problems: Vec<Problem>,
    starved: bool,
    /// Others who have to be settled again because of this one.
    queue: &'a mut Queue,
}

impl Settling<'_> {
    fn refuse(&mut self, full: Full, what: &str) {
        self.starved = true;
        self.problems.push(Problem::MapFull {
            map: full.map,
            size: full.size,
            object: format!("{what} of {}", self.owner.describe()),
        });
    }
}

impl ServiceCompiler {
    /// Brings the rows of one owner up to what it wants; nothing wanted removes it.
    pub(super) fn settle(
        &mut self,
        owner: &FrontendOwner,
        age: Age,
        wanted: Vec<Wanted>,
        settings: &ServiceSettings,
        queue: &mut Queue,
    ) {
        let old = self.owners.remove(owner).unwrap_or_default();
        let mut settling = Settling {
            owner,
            age,
            settings,
            lost: Vec::new(),
            problems: Vec::new(),
            starved: false,
            queue,
        };
        let mut old_groups: Vec<Group> = old.groups.into_vec();
        let before: Vec<FrontendKey> = old_groups
            .iter()
            .flat_map(|group| group.frontends.iter().copied())
            .collect();
        let mut groups = Vec::with_capacity(wanted.len());
        for mut want in wanted {
            want.frontends
                .retain(|(key, _)| self.claim(key, &mut settling));
            if want.frontends.is_empty() {
                continue;
            }
            if want
                .frontends
                .iter()
                .all(|(_, kind)| *kind == FrontendKind::ClusterIp)
            {
                want.without_outward();
            }
            let place = old_groups.iter().position(|group| group.key == want.key);
            let had = place.map(|place| old_groups.swap_remove(place));
            groups.push(self.settle_group(want, had.as_ref(), &mut settling));
        }
        for group in old_groups {
            self.remove_group(&group);
        }
        let now: BTreeSet<FrontendKey> = groups
            .iter()
            .flat_map(|group: &Group| group.frontends.iter().copied())
            .collect();
        for key in before.iter().filter(|key| !now.contains(key)) {
            self.release(key);
        }
        let lost = std::mem::take(&mut settling.lost);
        for key in before.iter().chain(old.lost.iter()) {
            if !now.contains(key) && !lost.contains(key) {
                self.withdraw(key, &mut settling);
            }
        }
        if age > old.age {
            // Made anew under the same name: others may be older now.
            for key in &now {
                let mut others = self.contested.get(key).cloned().unwrap_or_default();
                others.remove(owner);
                self.ask(others, &mut settling);
            }
        }
        let Settling {
            problems, starved, ..
        } = settling;
        self.set_problems(owner, problems);
        if starved {
            self.starved.insert(owner.clone());
        } else {
            self.starved.remove(owner);
        }
        if !groups.is_empty() || !lost.is_empty() {
            let held = Held {
                age,
                groups: groups.into(),
                lost: lost.into(),
            };
            self.owners.insert(owner.clone(), held);
        }
    }
}

/// An address and port as people write them.
pub(crate) fn socket(address: Address, port: Port) -> String {
    std::net::SocketAddr::new(address.to_ip(), port.get()).to_string()
}
