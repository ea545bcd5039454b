// SPDX-License-Identifier: Apache-2.0
//! One set of rows for each identity that endpoints of this node have.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::policy::{PeerKind, PolicyDirection, PolicyKey};
use weir_abi::{Address, BlockGroup, Identity, PolicySet};
use weir_model::LabelSet;

use super::blocks::BlockId;
use super::cell::{Cell, PolicyNumber, PortSpec, RuleId};

/// Whom rules speak of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum CellPeer {
    Any,
    Identity(Identity),
    Block(BlockId),
}

/// Where a cell stands in a set.
pub(crate) type CellKey = (PolicyDirection, CellPeer);

/// The rows of one peer in one direction of a set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Chain {
    pub(crate) direction: PolicyDirection,
    pub(crate) kind: PeerKind,
    pub(crate) peer: u32,
}

impl Chain {
    pub(crate) const fn any(direction: PolicyDirection) -> Self {
        Self {
            direction,
            kind: PeerKind::Any,
            peer: 0,
        }
    }

    pub(crate) const fn identity(direction: PolicyDirection, identity: Identity) -> Self {
        Self {
            direction,
            kind: PeerKind::Identity,
            peer: identity.0,
        }
    }

    pub(crate) const fn group(direction: PolicyDirection, group: BlockGroup) -> Self {
        Self {
            direction,
            kind: PeerKind::Blocks,
            peer: group.0,
        }
    }

    /// The key of its first row.
    pub(crate) const fn key(self, set: PolicySet) -> PolicyKey {
        PolicyKey::new(set, self.direction, self.kind, self.peer)
    }
}

/// A set with everything that its rows are made of.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) number: PolicySet,
    pub(crate) labels: LabelSet,
    /// Addresses of the endpoints that share it.
    pub(crate) addresses: BTreeSet<Address>,
    /// Policies that select the endpoints.
    pub(crate) policies: BTreeSet<PolicyNumber>,
    /// How many of them isolate, by direction.
    pub(crate) isolating: [u32; 2],
    pub(crate) cells: BTreeMap<CellKey, Cell>,
    /// Rows of each chain, whether they find room or not.
    pub(crate) lengths: BTreeMap<Chain, u16>,
    /// Their sum.
    pub(crate) needed: usize,
    /// Chains with more rules than rows can hold, and how many these are.
    pub(crate) oversized: BTreeMap<Chain, usize>,
    /// Its rows are wanted; otherwise its endpoints must not be ready.
    pub(crate) admitted: bool,
}

impl Set {
    pub(crate) const fn new(number: PolicySet, labels: LabelSet) -> Self {
        Self {
            number,
            labels,
            addresses: BTreeSet::new(),
            policies: BTreeSet::new(),
            isolating: [0; 2],
            cells: BTreeMap::new(),
            lengths: BTreeMap::new(),
            needed: 0,
            oversized: BTreeMap::new(),
            admitted: true,
        }
    }

    /// Whether a policy isolates the endpoints in a direction.
    pub(crate) const fn enforces(&self, direction: PolicyDirection) -> bool {
        self.isolating[direction as usize] > 0
    }

    /// Adds or takes back what a rule says about a peer; tells whether there was nothing about it
    /// before or is nothing any more.
    pub(crate) fn share(
        &mut self,
        key: CellKey,
        specs: &[PortSpec],
        rule: RuleId,
        add: bool,
    ) -> bool {
        if specs.is_empty() {
            return false;
        }
        let cell = self.cells.entry(key).or_default();
        let empty_before = cell.is_empty();
        for spec in specs {
            if add {
                cell.add(*spec, rule);
            } else {
                cell.remove(*spec, rule);
            }
        }
        let empty = cell.is_empty();
        if empty {
            self.cells.remove(&key);
        }
        empty != empty_before
    }

    /// Notes how many rows a chain takes.
    pub(crate) fn set_length(&mut self, chain: Chain, rows: u16) {
        let before = if rows == 0 {
            self.lengths.remove(&chain)
        } else {
            self.lengths.insert(chain, rows)
        };
        self.needed = self.needed + usize::from(rows) - usize::from(before.unwrap_or(0));
    }
}
