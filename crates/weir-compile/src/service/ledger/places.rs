// SPDX-License-Identifier: Apache-2.0
//! Which places and which table a run of backends has, and when they are free again.

use std::collections::BTreeSet;

use weir_abi::service::{BackendRow, BackendRun};

use super::{Full, Ledger, OldRun};
use crate::service::maglev::table;
use crate::service::rows::index;
use crate::service::runs::count;

impl Ledger {
    /// A run with this content: one that the group has had, or a new one. Without room, an old one
    /// stays as long as nothing in it is wrong.
    pub(in crate::service) fn realize(
        &mut self,
        wanted: &[BackendRow],
        olds: &mut [OldRun],
    ) -> (BackendRun, Option<Full>) {
        if wanted.is_empty() {
            return (BackendRun::default(), None);
        }
        let same = olds.iter().position(|old| {
            let content = self.rows.run(&old.run);
            content == wanted && (!old.restored || old.kept || self.is_reserved(&old.run))
        });
        if let Some(old) = same.and_then(|place| olds.get_mut(place)) {
            if old.restored && !old.kept {
                for place in old.run.first..old.run.first + old.run.count {
                    self.reserved_places.remove(&place);
                }
            }
            let (table, full) = self.table_of(wanted, old);
            old.kept = true;
            old.run.maglev = table;
            return (old.run, full);
        }
        let Some(first) = self.places.take(count(wanted)) else {
            return self.without_room(wanted, olds);
        };
        for (place, row) in (first..).zip(wanted) {
            self.rows.backends.set(place, *row);
        }
        self.record.written.insert(first, count(wanted));
        let (maglev, full) = match self.new_table(wanted) {
            Ok(maglev) => (maglev, None),
            Err(full) => (0, Some(full)),
        };
        let run = BackendRun {
            first,
            count: count(wanted),
            maglev,
        };
        (run, full)
    }

    fn without_room(
        &self,
        wanted: &[BackendRow],
        olds: &mut [OldRun],
    ) -> (BackendRun, Option<Full>) {
        let full = Full {
            map: weir_abi::map::BACKENDS.name,
            size: self.places.size(),
        };
        let still_right = |old: &&mut OldRun| {
            let content = self.rows.run(&old.run);
            !old.restored && content.iter().all(|row| wanted.contains(row))
        };
        let stays = olds.iter_mut().find(still_right).map(|old| {
            old.kept = true;
            old.run
        });
        (stays.unwrap_or_default(), Some(full))
    }

    fn is_reserved(&self, run: &BackendRun) -> bool {
        let end = run.first.saturating_add(run.count);
        end <= self.places.size()
            && (run.first..end).all(|place| self.reserved_places.contains(&place))
    }

    /// The table of a run that stays: the one that it has, if it is right.
    fn table_of(&mut self, wanted: &[BackendRow], old: &OldRun) -> (u32, Option<Full>) {
        let number = old.run.maglev.checked_sub(1);
        let suits = self.table_size.filter(|size| size.suits(wanted.len()));
        let found = number.and_then(|number| self.rows.maglev.get(&number));
        let mine = !old.restored || old.kept;
        let right = match (suits, found) {
            (None, None) => number.is_none(),
            (None, Some(_)) | (Some(_), None) => false,
            (Some(size), Some(found)) if mine => found.len() == index(size.get()),
            (Some(size), Some(found)) => *found == table(wanted, size),
        };
        if right && (mine || number.is_none_or(|number| self.reserved_tables.remove(&number))) {
            return (old.run.maglev, None);
        }
        if mine && let Some(number) = number {
            self.retire_table(number);
        }
        match self.new_table(wanted) {
            Ok(maglev) => (maglev, None),
            Err(full) => (0, Some(full)),
        }
    }

    /// Writes a run's table; gives what belongs into [`BackendRun::maglev`].
    fn new_table(&mut self, wanted: &[BackendRow]) -> Result<u32, Full> {
        let Some(size) = self.table_size.filter(|size| size.suits(wanted.len())) else {
            return Ok(0);
        };
        let Some(number) = self.tables.take(1) else {
            let map = weir_abi::map::MAGLEV.name;
            let size = self.tables.size() * size.get();
            return Err(Full { map, size });
        };
        self.rows.maglev.insert(number, table(wanted, size));
        self.record.tables_written.insert(number);
        Ok(number + 1)
    }

    /// A run that no row names any more once the changes are written.
    pub(in crate::service) fn retire(&mut self, run: &BackendRun) {
        if run.count > 0 {
            self.rows.backends.clear(run.first, run.count);
            if self.record.written.remove(&run.first).is_some() {
                // Never handed out.
                self.places.give_back(run.first, run.count);
            } else {
                self.record.emptied.push((run.first, run.count));
                self.retired_places.push((run.first, run.count));
            }
        }
        if let Some(number) = run.maglev.checked_sub(1) {
            self.retire_table(number);
        }
    }

    fn retire_table(&mut self, number: u32) {
        self.rows.maglev.remove(&number);
        if self.record.tables_written.remove(&number) {
            self.tables.give_back(number, 1);
        } else {
            self.record.tables_gone.push(number);
            self.retired_tables.push(number);
        }
    }

    /// Removes everything in the rows that nobody has taken over: `runs` are somebody's.
    pub(in crate::service) fn forget_all_but(&mut self, runs: impl Iterator<Item = BackendRun>) {
        let (mut owned, mut tables) = (BTreeSet::new(), BTreeSet::new());
        for run in runs {
            owned.extend(run.first..run.first + run.count);
            tables.extend(run.maglev.checked_sub(1));
        }
        let used = self.rows.backends.iter().map(|(place, _)| place);
        let stale: Vec<u32> = used.filter(|place| !owned.contains(place)).collect();
        for place in stale {
            self.rows.backends.clear(place, 1);
            match self.record.emptied.last_mut() {
                Some((first, count)) if *first + *count == place => *count += 1,
                _ => self.record.emptied.push((place, 1)),
            }
        }
        let reserved = std::mem::take(&mut self.reserved_places);
        self.retired_places
            .extend(reserved.into_iter().map(|place| (place, 1)));

        let stale = self.rows.maglev.keys().copied();
        let stale: Vec<u32> = stale.filter(|number| !tables.contains(number)).collect();
        for number in stale {
            self.rows.maglev.remove(&number);
            self.record.tables_gone.push(number);
        }
        let reserved = std::mem::take(&mut self.reserved_tables);
        self.retired_tables.extend(reserved);
    }
}
