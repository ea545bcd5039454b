// SPDX-License-Identifier: Apache-2.0
//! Gives one service, or one pod with host ports, the rows that it asks for.

use std::collections::BTreeSet;

use weir_abi::ipcache::PrefixKey;
use weir_abi::service::{
    BackendRow, BackendRun, FrontendKey, FrontendKind, FrontendRow, SourceRangeKey,
};
use weir_abi::{Address, FrontendId, Port, ServiceId};

use super::ledger::{Full, OldRun};
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
    fn claim(&mut self, key: &FrontendKey, settling: &mut Settling<'_>) -> bool {
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
    fn withdraw(&mut self, key: &FrontendKey, settling: &mut Settling<'_>) {
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
    fn ask(&self, others: BTreeSet<FrontendOwner>, settling: &mut Settling<'_>) {
        let age = |owner: &FrontendOwner| {
            let held = self.owners.get(owner);
            held.map_or(settling.age, |held| held.age)
        };
        let aged = others.into_iter().map(|owner| (age(&owner), owner));
        settling.queue.extend(aged);
    }

    fn settle_group(
        &mut self,
        mut want: Wanted,
        had: Option<&Group>,
        settling: &mut Settling<'_>,
    ) -> Group {
        let size = settling.settings.service_backends_size;
        let what = || format!("port {}/{}", want.key.number, want.key.protocol);
        let (id, mut runs) = match had {
            Some(group) => (group.id, old_runs([group.internal, group.external], false)),
            None => self.number_of(&want),
        };
        if !self.ledger.has_room_for(id, want.members.len(), size) {
            let map = weir_abi::map::SERVICE_BACKENDS.name;
            settling.refuse(Full { map, size }, &what());
            want.members.clear();
            want.internal.clear();
            want.external.clear();
        }
        self.by_id.insert(id, settling.owner.clone());
        self.ledger
            .set_members(id, std::mem::take(&mut want.members));
        let mut realize = |wanted: &[(Address, Port)]| {
            let (run, full) = self.ledger.realize(&rows(wanted, id), &mut runs);
            if let Some(full) = full {
                settling.refuse(full, &what());
            }
            run
        };
        let internal = realize(&want.internal);
        let external = if want.external == want.internal {
            internal
        } else {
            realize(&want.external)
        };
        for old in runs.iter().filter(|old| !old.kept && !old.restored) {
            self.ledger.retire(&old.run);
        }
        let had_ranges = had.map_or(&[][..], |group| &group.ranges);
        let ranges = self.set_ranges(id, had_ranges, &want, settling);
        let mut group = Group {
            key: want.key,
            id,
            internal,
            external,
            frontends: Box::default(),
            ranges,
        };
        let frontends = want.frontends.iter();
        let written = frontends.filter(|(key, kind)| {
            let fits = self.write_frontend(key, *kind, &group, &want, settling.settings);
            if let Err(full) = fits {
                settling.refuse(full, &socket(key.address, key.port));
            }
            fits.is_ok()
        });
        group.frontends = written.map(|(key, _)| *key).collect();
        group
    }

    /// The number that rows from before a restart gave to one of the frontends, with the runs that
    /// they name, or a new one.
    fn number_of(&mut self, want: &Wanted) -> (ServiceId, Vec<OldRun>) {
        let rows = |key| self.ledger.rows.frontends.get(key);
        let kept = want.frontends.iter().find_map(|(key, _)| {
            let id = rows(key)?.service;
            self.restored_ids.contains_key(&id).then_some(id)
        });
        let Some(id) = kept else {
            return (ServiceId(self.service_ids.take()), Vec::new());
        };
        let named = want
            .frontends
            .iter()
            .filter_map(|(key, _)| rows(key))
            .filter(|row| row.service == id)
            .flat_map(|row| [row.internal, row.external]);
        let runs = old_runs(named, true);
        self.adopted.extend(self.restored_ids.remove_entry(&id));
        (id, runs)
    }

    fn set_ranges(
        &mut self,
        id: ServiceId,
        had: &[PrefixKey],
        want: &Wanted,
        settling: &mut Settling<'_>,
    ) -> Box<[PrefixKey]> {
        let size = settling.settings.source_ranges_size;
        let mut ranges = want.ranges.clone().unwrap_or_default();
        let mut gone: Vec<PrefixKey> = had.to_vec();
        gone.retain(|range| !ranges.contains(range));
        let mut differs = false;
        for range in &gone {
            differs |= self.ledger.set_range(range_key(id, range), false);
        }
        let before = ranges.len();
        // What finds no room lets nobody in.
        ranges.retain(|range| {
            let key = range_key(id, range);
            let there = &self.ledger.rows.source_ranges;
            let fits = there.contains(&key) || there.len() < super::rows::index(size);
            differs |= fits && self.ledger.set_range(key, true);
            fits
        });
        if ranges.len() < before {
            let map = weir_abi::map::SOURCE_RANGES.name;
            settling.refuse(Full { map, size }, "loadBalancerSourceRanges");
        }
        if differs {
            for (key, _) in &want.frontends {
                self.ledger.bump(key.address);
            }
        }
        ranges.into()
    }

    fn write_frontend(
        &mut self,
        key: &FrontendKey,
        kind: FrontendKind,
        group: &Group,
        want: &Wanted,
        settings: &ServiceSettings,
    ) -> Result<(), Full> {
        let rows = &self.ledger.rows.frontends;
        let old = rows.get(key);
        let size = settings.frontends_size;
        if old.is_none() && rows.len() >= super::rows::index(size) {
            let map = weir_abi::map::FRONTENDS.name;
            return Err(Full { map, size });
        }
        let id = match old {
            Some(old) if old.id != FrontendId::default() => old.id,
            Some(_) | None => FrontendId(self.frontend_ids.take()),
        };
        let row = FrontendRow {
            id,
            service: group.id,
            internal: group.internal,
            external: match kind {
                // Nobody outside may use it.
                FrontendKind::ClusterIp => BackendRun::default(),
                FrontendKind::NodePort
                | FrontendKind::ExternalIps
                | FrontendKind::LoadBalancer
                | FrontendKind::HostPort => group.external,
            },
            affinity_timeout: want.affinity,
            kind: kind as u8,
            flags: want.flags(kind),
            reserved: [0; 2],
        };
        if old != Some(&row) {
            self.ledger.set_frontend(*key, row);
            self.addresses.insert(key.address);
        }
        Ok(())
    }

    /// Removes a frontend's row unless it is somebody else's by now.
    fn release(&mut self, key: &FrontendKey) {
        let row = self.ledger.rows.frontends.get(key);
        if row.is_some_and(|row| !self.is_held(key, row.service)) {
            self.remove_frontend(key);
        }
    }

    /// Whether the group with this number has the frontend. The owner that is being settled has
    /// none at the moment.
    pub(super) fn is_held(&self, key: &FrontendKey, id: ServiceId) -> bool {
        let held = self.by_id.get(&id).and_then(|owner| self.owners.get(owner));
        held.is_some_and(|held| {
            let mut groups = held.groups.iter();
            groups.any(|group| group.id == id && group.frontends.contains(key))
        })
    }

    pub(super) fn remove_frontend(&mut self, key: &FrontendKey) {
        if let Some(row) = self.ledger.remove_frontend(key) {
            self.frontend_ids.give_back(row.id.0);
            self.addresses.insert(key.address);
        }
    }

    fn remove_group(&mut self, group: &Group) {
        self.by_id.remove(&group.id);
        self.service_ids.give_back(group.id.0);
        self.ledger.set_members(group.id, Vec::new());
        for range in &group.ranges {
            self.ledger.set_range(range_key(group.id, range), false);
        }
        self.ledger.retire(&group.internal);
        if group.external != group.internal {
            self.ledger.retire(&group.external);
        }
    }
}

/// The runs that there are, each once.
fn old_runs(runs: impl IntoIterator<Item = BackendRun>, restored: bool) -> Vec<OldRun> {
    let mut found: Vec<OldRun> = Vec::new();
    for run in runs {
        if run.count > 0 && !found.iter().any(|old| old.run == run) {
            found.push(OldRun {
                run,
                restored,
                kept: false,
            });
        }
    }
    found
}

fn rows(wanted: &[(Address, Port)], service: ServiceId) -> Vec<BackendRow> {
    let row = |&(address, port): &(Address, Port)| BackendRow {
        address,
        service,
        port,
        reserved: [0; 2],
    };
    wanted.iter().map(row).collect()
}

fn range_key(service: ServiceId, range: &PrefixKey) -> SourceRangeKey {
    SourceRangeKey {
        length: 32 + range.length,
        service,
        address: range.address,
    }
}

/// An address and port as people write them.
pub(crate) fn socket(address: Address, port: Port) -> String {
    std::net::SocketAddr::new(address.to_ip(), port.get()).to_string()
}
