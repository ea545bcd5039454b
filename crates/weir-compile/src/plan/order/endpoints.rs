// SPDX-License-Identifier: Apache-2.0
//! Endpoints become isolated and are freed, and wait where rows are not theirs.

use weir_abi::endpoint::flags::READY;
use weir_abi::{EndpointRow, PolicySet};

use super::ways::{ENFORCE, Ways, isolates};
use super::{Order, Steps};
use crate::plan::Operation;

impl Order<'_> {
    pub(super) fn endpoint_steps(&self, ways: &Ways, steps: &mut Steps) {
        let old = |address| self.realized.endpoints.get(address);
        // While groups change hands, rows are about addresses that they do not mean: endpoints whose
        // rows they are not, or not any more, wait.
        let groups_move = !ways.targets.is_empty();
        let wait = |row: &EndpointRow| EndpointRow {
            flags: row.flags & !READY,
            ..*row
        };
        for address in self.endpoints.deletes.iter().filter(|_| groups_move) {
            if let Some(old) = old(address).filter(|old| old.flags & ENFORCE != 0) {
                let operation = Operation::UpsertEndpoint(*address, wait(old));
                steps.free_at_once.push(operation);
            }
        }
        for (address, new) in &self.endpoints.upserts {
            let upsert = |row: &EndpointRow| Operation::UpsertEndpoint(*address, *row);
            let Some(old) = old(address) else {
                // Before the rows that lead to it, so that no packet looks for it elsewhere.
                if groups_move && new.flags & ENFORCE != 0 {
                    steps.new_endpoints.push(upsert(&wait(new)));
                    steps.grow.push(upsert(new));
                } else {
                    steps.new_endpoints.push(upsert(new));
                }
                continue;
            };
            let becomes_ready = new.flags & !old.flags & READY != 0;
            if !ways.isolates && !becomes_ready && old.flags & ENFORCE & !new.flags != 0 {
                // Another endpoint that is freed next still knows it by its old group.
                let blocks = if new.identity == old.identity {
                    old.blocks
                } else {
                    new.blocks
                };
                let freed = EndpointRow { blocks, ..*new };
                steps.free_at_once.push(upsert(&freed));
                if freed != *new {
                    steps.endpoints.push(upsert(new));
                }
                continue;
            }
            let other_set = old.policy_set != new.policy_set
                && old.flags & ENFORCE != 0
                && new.flags & ENFORCE != 0;
            let waits = groups_move && other_set;
            if waits {
                steps.free_at_once.push(upsert(&wait(old)));
            }
            let mut first = *new;
            first.flags |= old.flags & ENFORCE;
            if becomes_ready || waits {
                first.flags &= !READY;
            }
            if new.policy_set == PolicySet::NONE && first.flags & ENFORCE != 0 {
                first.policy_set = old.policy_set;
            }
            if isolates(old, new) {
                let grouped = EndpointRow {
                    blocks: new.blocks,
                    ..*old
                };
                if grouped != *old && new.identity == old.identity {
                    steps.endpoints.push(upsert(&grouped));
                }
                steps.isolate.push(upsert(&first));
            } else if first != *old {
                steps.endpoints.push(upsert(&first));
            }
            if first != *new {
                steps.grow.push(upsert(new));
            }
        }
    }
}
