// SPDX-License-Identifier: Apache-2.0
//! The policy rows of one peer: what they say until rights are given, and after that.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::BlockGroup;
use weir_abi::policy::{PeerKind, PolicyKey, PolicyRow, PortRule};

use super::ways::Ways;
use super::{Order, Steps};
use crate::plan::Operation;
use crate::plan::difference::{parts, rules};
use crate::plan::widths::{common, is_within};

impl Order<'_> {
    pub(super) fn chain(&self, first: &PolicyKey, ways: &Ways, steps: &mut Steps) {
        let (old, new) = (rules(self.realized, first), rules(self.desired, first));
        let known: BTreeSet<_> = old.iter().map(|rule| rule.cookie).collect();
        let used = new.iter().map(|rule| rule.cookie);
        let unknown = used.filter(|cookie| !known.contains(cookie));
        steps.reset.extend(unknown);

        let way = (first.set, first.direction);
        let (met_before, met_after) = self.met.ask(first);
        let (before, after) = (ways.before.contains(&way), ways.after.contains(&way));
        let old_parts: Vec<_> = parts(self.realized, first).copied().collect();
        // What packets may meet until rights are given: at most that.
        let mut between = if met_before { old.clone() } else { new.clone() };
        let mut cut = |rules: &[PortRule]| {
            if !is_within(&between, rules) {
                between = common(&between, rules);
            }
        };
        let is_group = first.peer_kind == PeerKind::Blocks as u8;
        let of_group = |group: &BlockGroup| PolicyKey {
            peer: group.0,
            ..*first
        };
        let others = |ways: &BTreeMap<BlockGroup, BTreeSet<BlockGroup>>| {
            let others = ways.get(&BlockGroup(first.peer)).filter(|_| is_group);
            others.cloned().unwrap_or_default()
        };
        match (before, after) {
            (false, _) => between.clone_from(&new),
            // Freed, and at once if nobody becomes isolated: until then as it was.
            (true, false) if !ways.isolates => {}
            (true, true) if met_before && !met_after => {
                for group in others(&ways.targets) {
                    cut(&rules(self.desired, &of_group(&group)));
                }
            }
            (true, after) => {
                if after && met_before {
                    cut(&new);
                }
                // Who comes to the group brings no more rights than he had.
                if ways.isolates || !met_before {
                    for group in others(&ways.sources) {
                        cut(&rules(self.realized, &of_group(&group)));
                    }
                }
            }
        }
        if between == old || (is_within(&between, &old) && is_within(&old, &between)) {
            between = old;
        } else if is_within(&between, &new) && is_within(&new, &between) {
            between.clone_from(&new);
        }
        let parts = write(first, &old_parts, &between, &mut steps.prepare);
        let last = if new.is_empty() {
            &mut steps.remove
        } else {
            &mut steps.grow
        };
        write(first, &parts, &new, last);
    }
}

/// Brings the rows of a peer to a list of rules, the first row last and in one step: until then
/// packets read the old ones, or some of both. Gives the new rows back.
fn write(
    first: &PolicyKey,
    old: &[PolicyRow],
    rules: &[PortRule],
    step: &mut Vec<Operation>,
) -> Vec<PolicyRow> {
    let new: Vec<_> = PolicyRow::parts(*first, rules)
        .into_iter()
        .flatten()
        .collect();
    for (place, (key, row)) in new.iter().enumerate().rev() {
        if old.get(place) != Some(row) {
            step.push(Operation::UpsertPolicy(*key, *row));
        }
    }
    let mut part = *first;
    for place in 0..old.len() {
        if place >= new.len() {
            step.push(Operation::DeletePolicy(part));
        }
        part.part += 1;
    }
    new.into_iter().map(|(_, row)| row).collect()
}
