// SPDX-License-Identifier: Apache-2.0
//! What could not be realized, and which policies are not enforced as they are written for it.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::policy::PeerKind;
use weir_abi::{Address, BlockGroup, Identity};
use weir_model::PolicyRef;

use crate::policy::blocks::BlockId;
use crate::policy::cell::RULES_MAX;
use crate::policy::sets::{CellPeer, Chain, Set};
use crate::policy::{PolicyCompiler, PolicyInput};
use crate::{Owner, Problem};

/// Names that a problem lists.
const NAMED: usize = 3;

/// The problems, and by policy the first one that keeps it from being enforced.
pub(super) type Problems = (Vec<Problem>, BTreeMap<PolicyRef, Problem>);

impl PolicyCompiler {
    pub(super) fn find_problems(&self, input: &PolicyInput<'_>) -> Problems {
        let mut problems = Vec::new();
        let mut unenforced = BTreeMap::new();
        let full = |map: &weir_abi::map::MapInfo, size, object| Problem::MapFull {
            map: map.name,
            size,
            object,
        };
        let refused = |set: &Set| {
            let asks = |block: &&BlockId| {
                let keys = set.cells.keys().map(|(_, peer)| peer);
                keys.into_iter()
                    .any(|peer| *peer == CellPeer::Block(**block))
            };
            self.blocks.refused().iter().find(asks)
        };
        for set in self.sets.values().filter(|set| !set.admitted) {
            let pods = pods_of(set, input);
            let problem = if let Some((chain, count)) = set.oversized.first_key_value() {
                Problem::PolicyTooLarge {
                    pods,
                    policies: self.policies_of(set),
                    direction: chain.direction.name(),
                    peer: self.peer_text(*chain),
                    count: *count,
                    most: RULES_MAX,
                }
            } else if let Some(block) = refused(set) {
                let block = self.blocks.key(*block).map(|key| key.block.to_string());
                let block = block.unwrap_or_default();
                let object = format!("ipBlock {block} of policies for {pods}");
                full(&weir_abi::map::IPCACHE, input.limits.ipcache, object)
            } else {
                let object = format!("{} policy rows for {pods}", set.needed);
                full(&weir_abi::map::POLICY, input.limits.policy, object)
            };
            for state in set
                .policies
                .iter()
                .filter_map(|one| self.policies.get(*one))
            {
                let reference = state.source.reference.clone();
                unenforced
                    .entry(reference)
                    .or_insert_with(|| problem.clone());
            }
            problems.push(problem);
        }
        let uncounted = self.cookies.uncounted();
        if uncounted > 0 {
            let object = format!("counters of {uncounted} port rules");
            let size = input.limits.policy_hits;
            problems.push(full(&weir_abi::map::POLICY_HITS, size, object));
        }
        problems.sort();
        (problems, unenforced)
    }

    fn policies_of(&self, set: &Set) -> String {
        let policies = set.policies.iter();
        let named = policies.filter_map(|number| self.policies.get(*number));
        some_of(named.map(|state| state.source.reference.to_string()))
    }

    /// The peer of a chain in words.
    fn peer_text(&self, chain: Chain) -> String {
        match chain.kind {
            PeerKind::Any => "every peer".to_owned(),
            PeerKind::Identity => match self.selectors.labels(Identity(chain.peer)) {
                Some(set) => format!("pods {set}"),
                None => Identity(chain.peer).to_string(),
            },
            PeerKind::Blocks => {
                let elements = self.groups.elements(BlockGroup(chain.peer)).iter();
                let blocks = elements.filter_map(|(block, _)| self.blocks.key(*block));
                format!(
                    "addresses in {}",
                    some_of(blocks.map(|key| key.block.to_string()))
                )
            }
        }
    }
}

/// The endpoints that share a set.
fn pods_of(set: &Set, input: &PolicyInput<'_>) -> String {
    let owner = |address: &Address| match input.base.owners.get(address) {
        Some(Owner::Pod(pod)) => Some(pod.to_string()),
        Some(Owner::Node(_)) | None => None,
    };
    let pods: BTreeSet<_> = set.addresses.iter().filter_map(owner).collect();
    format!("pods {}", some_of(pods.into_iter()))
}

/// The first few, and how many more.
fn some_of(mut names: impl Iterator<Item = String>) -> String {
    let first: Vec<_> = names.by_ref().take(NAMED).collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}
