// SPDX-License-Identifier: Apache-2.0
//! The agent's rows: read back from the kernel, and changed by a plan.

use std::collections::BTreeMap;

use weir_abi::node::NodeRow;
use weir_abi::{NodeIndex, Slot};
use weir_compile::{Operation, Plan, Rows};

use crate::{Error, Maps, Result};

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Operations that were carried out.
    pub applied: usize,
    /// Operations that the kernel refused, with the reason.
    pub failures: Vec<Failure>,
}

/// An operation that the kernel refused.
#[derive(Debug)]
pub struct Failure {
    /// What was to be done.
    pub operation: Operation,
    /// Why it was not; names map, key and errno.
    pub error: Error,
}

impl Outcome {
    /// Whether everything was carried out.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }
}

/// Carries out a plan, in order and to its end. After a failure every flow is decided again: the plan's own bumps
/// assume rows that are not there.
pub fn execute(maps: &Maps, plan: &Plan) -> Outcome {
    let mut outcome = Outcome::default();
    for &operation in &plan.operations {
        outcome.note(operation, carry_out(maps, operation));
    }
    if !outcome.is_complete() {
        for everything in [Operation::Bump(Slot::ALL), Operation::Bump(Slot::ROUTES)] {
            outcome.note(everything, carry_out(maps, everything));
        }
    }
    outcome
}

impl Outcome {
    fn note(&mut self, operation: Operation, result: Result<()>) {
        match result {
            Ok(()) => self.applied += 1,
            Err(error) => self.failures.push(Failure { operation, error }),
        }
    }
}

/// A row that is to go and is gone already is no failure.
fn carry_out(maps: &Maps, operation: Operation) -> Result<()> {
    match operation {
        Operation::UpsertNode(index, row) => maps.nodes.upsert(&u32::from(index.get()), &row),
        Operation::UpsertEndpoint(address, row) => maps.endpoints.upsert(&address, &row),
        Operation::UpsertIpcache(key, row) => maps.ipcache.upsert(&key, &row),
        Operation::UpsertMasqueradeExempt(key) => maps.masquerade_exempt.insert(&key),
        Operation::DeleteIpcache(key) => maps.ipcache.delete(&key).map(drop),
        Operation::DeleteEndpoint(address) => maps.endpoints.delete(&address).map(drop),
        Operation::DeleteMasqueradeExempt(key) => maps.masquerade_exempt.remove(&key).map(drop),
        Operation::DeleteNode(index) => maps
            .nodes
            .upsert(&u32::from(index.get()), &NodeRow::default()),
        Operation::Bump(slot) => maps.bump(slot),
    }
}

impl Maps {
    /// The rows that the agent owns, as they are in the kernel now.
    pub fn read_back(&self) -> Result<Rows> {
        let mut rows = Rows {
            masquerade_exempt: self.masquerade_exempt.keys()?,
            nodes: self.read_back_nodes()?,
            ..Rows::default()
        };
        self.endpoints.for_each(|address, row| {
            rows.endpoints.insert(address, row);
        })?;
        self.ipcache.for_each(|key, row| {
            rows.ipcache.insert(key, row);
        })?;
        Ok(rows)
    }

    pub(crate) fn read_back_nodes(&self) -> Result<BTreeMap<NodeIndex, NodeRow>> {
        let mut nodes = BTreeMap::new();
        self.nodes.for_each(|place, row| {
            if let Ok(index) = u16::try_from(place)
                && row != NodeRow::default()
            {
                nodes.insert(NodeIndex(index), row);
            }
        })?;
        Ok(nodes)
    }
}
