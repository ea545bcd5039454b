// SPDX-License-Identifier: Apache-2.0
//! Plans, carried out: in order, in batches, and to their end.
//!
//! Operations that come one after the other and concern one map become one system call. A row that the kernel refuses
//! is told with its operation, and the rest goes on.

use std::collections::BTreeSet;

use weir_abi::ipcache::PrefixKey;
use weir_abi::node::NodeRow;
use weir_abi::policy::PolicyHits;
use weir_abi::service::BackendRow;
use weir_abi::{Generation, Slot};
use weir_compile::{Operation, Plan, service};
use zerocopy::{Immutable, IntoBytes};

use crate::read_back::key_text;
use crate::table::RawTable;
use crate::{Error, Maps};

/// Rows that wait for their system call, at most.
const LARGEST_BATCH: usize = 16 * 1024;

/// What became of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Operations that were carried out.
    pub applied: usize,
    /// Operations that the kernel refused, with the reason.
    pub failures: Vec<Failure>,
    /// Operations that were left out, because what they remove may still be in use after a failure.
    pub skipped: usize,
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
    carry_out(maps, &plan.operations)
}

/// The same for operations that are no plan of base rows.
pub fn carry_out(maps: &Maps, operations: &[Operation]) -> Outcome {
    let mut run = Run {
        maps,
        operations,
        batch: Batch::default(),
        bumped: BTreeSet::new(),
        refused: Vec::new(),
        outcome: Outcome::default(),
    };
    for (number, operation) in operations.iter().enumerate() {
        run.take(number, operation);
    }
    run.flush();
    let mut outcome = run.finish();
    if !outcome.is_complete() {
        for slot in [Slot::ALL, Slot::ROUTES] {
            if let Err(error) = maps.bump(slot) {
                let operation = Operation::Bump(slot);
                outcome.failures.push(Failure { operation, error });
            }
        }
    }
    outcome
}

/// Rows of one map, as the kernel wants them.
#[derive(Default)]
struct Batch<'a> {
    target: Option<(&'a RawTable, Write)>,
    keys: Vec<u8>,
    values: Vec<u8>,
    /// The operation behind each row.
    operations: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Write {
    Upsert,
    Delete,
}

struct Run<'a> {
    maps: &'a Maps,
    operations: &'a [Operation],
    batch: Batch<'a>,
    /// Slots whose next generation is in the batch.
    bumped: BTreeSet<Slot>,
    /// Numbers of operations that failed, in order.
    refused: Vec<usize>,
    outcome: Outcome,
}

impl<'a> Run<'a> {
    fn take(&mut self, number: usize, operation: &'a Operation) {
        let maps = self.maps;
        if frees_what_others_name(operation) {
            // Whether what came before has failed is known when it has been written.
            self.flush();
            if !self.outcome.failures.is_empty() {
                self.outcome.skipped += 1;
                return;
            }
        }
        match operation {
            Operation::UpsertNode(index, row) => {
                self.upsert(number, maps.nodes.raw(), &u32::from(index.get()), row);
            }
            Operation::DeleteNode(index) => {
                let key = u32::from(index.get());
                self.upsert(number, maps.nodes.raw(), &key, &NodeRow::default());
            }
            Operation::UpsertEndpoint(address, row) => {
                self.upsert(number, maps.endpoints.raw(), address, row);
            }
            Operation::DeleteEndpoint(address) => {
                self.delete(number, maps.endpoints.raw(), address);
            }
            Operation::UpsertIpcache(key, row) => {
                self.upsert(number, maps.ipcache.raw(), key, row);
            }
            Operation::DeleteIpcache(key) => self.delete(number, maps.ipcache.raw(), key),
            Operation::UpsertMasqueradeExempt(key) => {
                self.upsert(number, maps.masquerade_exempt.raw(), key, &0_u32);
            }
            Operation::DeleteMasqueradeExempt(key) => {
                self.delete(number, maps.masquerade_exempt.raw(), key);
            }
            Operation::UpsertPolicy(key, row) => {
                self.upsert(number, maps.policy.raw(), key, row);
            }
            Operation::DeletePolicy(key) => self.delete(number, maps.policy.raw(), key),
            Operation::ResetHits(cookie) => {
                // A rule without a counter has a number behind the last one.
                if cookie.get() < maps.policy_hits.size() {
                    let key = cookie.get();
                    self.upsert(number, maps.policy_hits.raw(), &key, &PolicyHits::default());
                }
            }
            Operation::UpsertFrontend(key, row) => {
                self.upsert(number, maps.frontends.raw(), key, row);
            }
            Operation::DeleteFrontend(key) => self.delete(number, maps.frontends.raw(), key),
            Operation::UpsertBackends(first, rows) => {
                for (place, row) in (*first..).zip(rows.iter()) {
                    self.upsert(number, maps.backends.raw(), &place, row);
                }
            }
            Operation::DeleteBackends(first, count) => {
                for place in *first..first.saturating_add(*count) {
                    self.upsert(number, maps.backends.raw(), &place, &BackendRow::default());
                }
            }
            Operation::UpsertServiceBackends(service, backends) => {
                for backend in backends.iter() {
                    let (key, row) = (backend.key(*service), backend.row());
                    self.upsert(number, maps.service_backends.raw(), &key, &row);
                }
            }
            Operation::DeleteServiceBackends(service, backends) => {
                for backend in backends.iter() {
                    let key = backend.key(*service);
                    self.delete(number, maps.service_backends.raw(), &key);
                }
            }
            Operation::UpsertMaglev(table, entries) => {
                let first = table.saturating_mul(maps.maglev_size);
                for (place, entry) in (first..).zip(entries.iter()) {
                    self.upsert(number, maps.maglev.raw(), &place, entry);
                }
            }
            Operation::DeleteMaglev(table) => {
                let first = table.saturating_mul(maps.maglev_size);
                for place in first..first.saturating_add(maps.maglev_size) {
                    self.upsert(number, maps.maglev.raw(), &place, &0_u16);
                }
            }
            Operation::UpsertSourceRange(key) => {
                self.upsert(number, maps.source_ranges.raw(), key, &0_u32);
            }
            Operation::DeleteSourceRange(key) => {
                self.delete(number, maps.source_ranges.raw(), key);
            }
            Operation::UpsertServiceAddress(address) => {
                let (key, row) = (PrefixKey::host(*address), service::address_row());
                self.upsert(number, maps.ipcache.raw(), &key, &row);
            }
            Operation::DeleteServiceAddress(address) => {
                let key = PrefixKey::host(*address);
                self.delete(number, maps.ipcache.raw(), &key);
            }
            Operation::Bump(slot) => self.bump(number, *slot),
        }
    }

    fn bump(&mut self, number: usize, slot: Slot) {
        let maps = self.maps;
        // The value of before must be in the map when it is read.
        if self.bumped.contains(&slot) {
            self.flush();
        }
        let key = u32::from(slot.get());
        match maps.generations.get(&key) {
            Ok(old) => {
                let next = Generation(old.unwrap_or_default().get().wrapping_add(1));
                self.upsert(number, maps.generations.raw(), &key, &next);
                self.bumped.insert(slot);
            }
            Err(error) => self.refuse(number, error),
        }
    }

    fn upsert<K, V>(&mut self, number: usize, table: &'a RawTable, key: &K, value: &V)
    where
        K: IntoBytes + Immutable,
        V: IntoBytes + Immutable,
    {
        self.aim(table, Write::Upsert);
        self.batch.keys.extend_from_slice(key.as_bytes());
        self.batch.values.extend_from_slice(value.as_bytes());
        self.batch.operations.push(number);
    }

    fn delete<K: IntoBytes + Immutable>(&mut self, number: usize, table: &'a RawTable, key: &K) {
        self.aim(table, Write::Delete);
        self.batch.keys.extend_from_slice(key.as_bytes());
        self.batch.operations.push(number);
    }

    /// Rows of another map, or too many of this one, go to the kernel first.
    fn aim(&mut self, table: &'a RawTable, write: Write) {
        let same = self
            .batch
            .target
            .is_some_and(|(other, how)| std::ptr::eq(other, table) && how == write);
        if !same || self.batch.operations.len() >= LARGEST_BATCH {
            self.flush();
            self.batch.target = Some((table, write));
        }
    }

    fn flush(&mut self) {
        self.bumped.clear();
        let Batch {
            target,
            keys,
            values,
            operations,
        } = std::mem::take(&mut self.batch);
        let Some((table, write)) = target else { return };
        let mut failed = Vec::new();
        let mut refused = |place: usize, source| failed.push((place, source));
        match write {
            Write::Upsert => table.update_many(&keys, &values, &mut refused),
            Write::Delete => table.delete_many(&keys, &mut refused),
        }
        let key_size = table.info().key_size;
        for (place, source) in failed {
            let key = keys.chunks_exact(key_size).nth(place).unwrap_or_default();
            let error = Error::Row {
                action: match write {
                    Write::Upsert => "write",
                    Write::Delete => "delete",
                },
                map: table.info().map.name,
                key: key_text(table.info().map.name, key),
                source,
            };
            if let Some(number) = operations.get(place) {
                self.refuse(*number, error);
            }
        }
    }

    /// An operation of many rows fails once.
    fn refuse(&mut self, number: usize, error: Error) {
        if self.refused.last() == Some(&number) {
            return;
        }
        self.refused.push(number);
        if let Some(operation) = self.operations.get(number) {
            let operation = operation.clone();
            self.outcome.failures.push(Failure { operation, error });
        }
    }

    fn finish(self) -> Outcome {
        let Self {
            operations,
            mut outcome,
            ..
        } = self;
        let lost = outcome.failures.len() + outcome.skipped;
        outcome.applied = operations.len().saturating_sub(lost);
        outcome
    }
}

/// What a frontend that could not be changed still names must stay. Rows of the other maps stand for themselves, and
/// removing some is what makes room in a full map.
const fn frees_what_others_name(operation: &Operation) -> bool {
    let alone = matches!(
        operation,
        Operation::DeleteIpcache(_)
            | Operation::DeleteEndpoint(_)
            | Operation::DeleteMasqueradeExempt(_)
            | Operation::DeleteNode(_)
            | Operation::DeletePolicy(_)
    );
    operation.waits() && !alone
}
