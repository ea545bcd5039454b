// SPDX-License-Identifier: Apache-2.0
//! What has changed since changes were last handed out.

use std::sync::Arc;

use weir_abi::Slot;

use super::Ledger;
use crate::service::changes::Changes;

impl Ledger {
    /// Hands out what has changed.
    pub(in crate::service) fn changes(&mut self) -> Changes {
        let record = std::mem::take(&mut self.record);
        let rows = &self.rows;
        let mut changes = Changes {
            bumps: record.bumps,
            backends_gone: record.emptied,
            tables_gone: record.tables_gone,
            ..Changes::default()
        };
        for (key, old) in &record.frontends {
            changes.compare_frontend(*key, old.as_ref(), rows.frontends.get(key));
        }
        for (first, count) in record.written {
            let content = rows.backends.run(first, count).into();
            changes.backends.push((first, content));
        }
        for (service, old) in record.members {
            let new = rows.service_backends.shared(service);
            let new = new.map(Arc::clone).unwrap_or_default();
            changes.compare_members(service, &old, &new);
        }
        for number in record.tables_written {
            let entries = rows.maglev.get(&number);
            changes
                .tables
                .extend(entries.map(|entries| (number, Arc::clone(entries))));
        }
        for (key, was) in record.ranges {
            match (was, rows.source_ranges.contains(&key)) {
                (false, true) => changes.ranges.push(key),
                (true, false) => changes.ranges_gone.push(key),
                (false, false) | (true, true) => {}
            }
        }
        for (address, was) in record.addresses {
            let is = rows.addresses.contains(&address);
            if was != is {
                changes.bumps.insert(Slot::of_address(&address));
                let list = if is {
                    &mut changes.addresses
                } else {
                    &mut changes.addresses_gone
                };
                list.push(address);
            }
        }
        changes
    }
}
