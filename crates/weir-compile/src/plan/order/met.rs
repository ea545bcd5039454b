// SPDX-License-Identifier: Apache-2.0
//! Whether packets can meet a policy row, before a plan and after it.

use weir_abi::policy::{PeerKind, PolicyKey};
use weir_abi::{BlockGroup, Identity};

use crate::Rows;
use crate::policy::Numbers;

/// By which numbers packets can meet policy rows.
pub(super) enum Met<'a> {
    Whole {
        before: Numbers,
        after: Numbers,
    },
    Delta {
        fresh: &'a Numbers,
        gone: &'a Numbers,
    },
}

/// The numbers that addresses have.
pub(super) fn met(rows: &Rows) -> Numbers {
    let mut numbers = Numbers::default();
    for row in rows.ipcache.values() {
        numbers.identities.insert(row.identity);
        numbers.groups.insert(row.blocks);
    }
    for row in rows.endpoints.values() {
        numbers.identities.insert(row.identity);
        numbers.groups.insert(row.blocks);
    }
    numbers
}

impl Met<'_> {
    /// Whether packets can meet rows about a peer: before the plan, and after it.
    pub(super) fn ask(&self, key: &PolicyKey) -> (bool, bool) {
        let contains = |numbers: &Numbers| {
            if key.peer_kind == PeerKind::Blocks as u8 {
                numbers.groups.contains(&BlockGroup(key.peer))
            } else {
                numbers.identities.contains(&Identity(key.peer))
            }
        };
        let always = key.peer_kind == PeerKind::Any as u8
            || (key.peer_kind == PeerKind::Identity as u8
                && Identity(key.peer) < Identity::FIRST_POD);
        match self {
            _ if always => (true, true),
            Met::Whole { before, after } => (contains(before), contains(after)),
            Met::Delta { fresh, gone } => (!contains(fresh), !contains(gone)),
        }
    }
}
