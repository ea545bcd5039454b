// SPDX-License-Identifier: Apache-2.0
//! What is enforced, and which way groups go.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::endpoint::flags::{ENFORCE_EGRESS, ENFORCE_INGRESS};
use weir_abi::policy::PolicyDirection;
use weir_abi::{BlockGroup, EndpointRow, PolicySet};

use super::Order;
use crate::Rows;
use crate::plan::difference::around;

/// What is enforced, and which way groups go, by set and direction and by group.
pub(super) struct Ways {
    pub(super) before: BTreeSet<(PolicySet, u8)>,
    pub(super) after: BTreeSet<(PolicySet, u8)>,
    pub(super) sources: BTreeMap<BlockGroup, BTreeSet<BlockGroup>>,
    pub(super) targets: BTreeMap<BlockGroup, BTreeSet<BlockGroup>>,
    /// Some endpoint becomes isolated.
    pub(super) isolates: bool,
}

/// Whether policies isolate an endpoint that they did not isolate so before.
pub(super) const fn isolates(old: &EndpointRow, new: &EndpointRow) -> bool {
    new.flags & ENFORCE & !old.flags != 0
}

pub(super) const ENFORCE: u16 = ENFORCE_INGRESS | ENFORCE_EGRESS;

impl Order<'_> {
    pub(super) fn ways(&self) -> Ways {
        let mut ways = Ways {
            before: enforced(self.realized),
            after: enforced(self.desired),
            sources: BTreeMap::new(),
            targets: BTreeMap::new(),
            isolates: false,
        };
        let mut note = |source: BlockGroup, target: BlockGroup| {
            if source != target {
                ways.sources.entry(target).or_default().insert(source);
                ways.targets.entry(source).or_default().insert(target);
            }
        };
        for (key, new) in &self.ipcache.upserts {
            let old = self.realized.ipcache.get(key).copied();
            let old = old.unwrap_or_else(|| around(self.realized, key));
            note(old.blocks, new.blocks);
        }
        for key in &self.ipcache.deletes {
            if let Some(old) = self.realized.ipcache.get(key) {
                note(old.blocks, around(self.desired, key).blocks);
            }
        }
        for (address, new) in &self.endpoints.upserts {
            if let Some(old) = self.realized.endpoints.get(address) {
                note(old.blocks, new.blocks);
                ways.isolates |= isolates(old, new);
            }
        }
        ways
    }
}

/// Sets that decide about endpoints, by direction.
fn enforced(rows: &Rows) -> BTreeSet<(PolicySet, u8)> {
    let mut enforced = BTreeSet::new();
    for row in rows.endpoints.values() {
        if row.flags & ENFORCE_INGRESS != 0 {
            enforced.insert((row.policy_set, PolicyDirection::Ingress as u8));
        }
        if row.flags & ENFORCE_EGRESS != 0 {
            enforced.insert((row.policy_set, PolicyDirection::Egress as u8));
        }
    }
    enforced
}
