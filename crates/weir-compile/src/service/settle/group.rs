// SPDX-License-Identifier: Apache-2.0
//! The rows of frontends that have the same backends.

use weir_abi::ipcache::PrefixKey;
use weir_abi::service::{
    BackendRow, BackendRun, FrontendKey, FrontendKind, FrontendRow, SourceRangeKey,
};
use weir_abi::{Address, FrontendId, Port, ServiceId};

use super::{Group, Settling, socket};
use crate::service::ledger::{Full, OldRun};
use crate::service::rows::index;
use crate::service::wanted::Wanted;
use crate::service::{ServiceCompiler, ServiceSettings};

impl ServiceCompiler {
    pub(super) fn settle_group(
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
            let fits = there.contains(&key) || there.len() < index(size);
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
        if old.is_none() && rows.len() >= index(size) {
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

    pub(super) fn remove_group(&mut self, group: &Group) {
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
