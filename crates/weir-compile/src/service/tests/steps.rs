// SPDX-License-Identifier: Apache-2.0
//! Every step of every update, over random histories.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_abi::Slot;
use weir_model::{Change, Touched, World};

use super::evaluate::{Key, Seen, Sockets, addresses, evaluate, read};
use super::worlds::{history, settings, with_maglev};
use crate::Operation;
use crate::service::{ServiceCompiler, ServiceRows, ServiceSettings, plan};

/// The kernel, so to speak, beside the compiler.
pub(super) struct Node {
    pub(super) world: World,
    pub(super) compiler: ServiceCompiler,
    pub(super) kernel: ServiceRows,
    pub(super) settings: ServiceSettings,
}

impl Node {
    pub(super) fn new(settings: ServiceSettings) -> Self {
        Self {
            world: World::default(),
            compiler: ServiceCompiler::new(),
            kernel: ServiceRows::default(),
            settings,
        }
    }

    /// Changes the world and gives what the update hands out.
    pub(super) fn change(&mut self, batch: impl IntoIterator<Item = Change>) -> Vec<Operation> {
        let mut touched = Touched::default();
        for change in batch {
            self.world.apply_noting(change, &mut touched);
        }
        let delta = self.compiler.update(&self.world, &touched, &self.settings);
        delta.operations
    }

    /// Writes it.
    pub(super) fn write(&mut self, operations: &[Operation]) {
        for operation in operations {
            self.kernel.apply(operation);
        }
        assert_eq!(&self.kernel, self.compiler.rows());
        self.compiler.executed();
    }

    pub(super) fn update(&mut self, batch: impl IntoIterator<Item = Change>) -> Vec<Operation> {
        let operations = self.change(batch);
        self.write(&operations);
        operations
    }
}

/// At every moment a frontend has the whole old set of backends or the whole new one, and nothing
/// that a connection sticks to is missing.
pub(super) fn check_step(
    state: &ServiceRows,
    before: &BTreeMap<Key, Seen>,
    after: &BTreeMap<Key, Seen>,
) {
    let none = Sockets::new();
    for (key, seen) in read(state) {
        let (old, new) = (before.get(&key), after.get(&key));
        let internal =
            |seen: Option<&Seen>| seen.map_or(none.clone(), |seen| seen.internal.clone());
        let external =
            |seen: Option<&Seen>| seen.map_or(none.clone(), |seen| seen.external.clone());
        let old_or_new = |found: &Sockets, old: Sockets, new: Sockets| {
            assert!(*found == old || *found == new, "{key:?}: {found:?}");
        };
        old_or_new(&seen.internal, internal(old), internal(new));
        old_or_new(&seen.external, external(old), external(new));
        assert!(seen.keeping.is_superset(&seen.internal), "{key:?}");
        assert!(seen.keeping.is_superset(&seen.external), "{key:?}");
    }
}

fn check_order(operations: &[Operation]) {
    let first = |wanted: fn(&Operation) -> bool| {
        let found = operations.iter().position(wanted);
        found.unwrap_or(operations.len())
    };
    let frontends = first(|one| matches!(one, Operation::UpsertFrontend(..)));
    let deletes = first(|one| {
        matches!(one, Operation::DeleteFrontend(_) | Operation::Bump(_)) || one.waits()
    });
    let bumps = first(|one| matches!(one, Operation::Bump(_)));
    for (place, operation) in operations.iter().enumerate() {
        let early = matches!(
            operation,
            Operation::UpsertBackends(..)
                | Operation::UpsertServiceBackends(..)
                | Operation::UpsertMaglev(..)
                | Operation::UpsertSourceRange(_)
                | Operation::UpsertServiceAddress(_)
        );
        let frontend = matches!(operation, Operation::UpsertFrontend(..));
        let bump = matches!(operation, Operation::Bump(_));
        assert!(!early || place < frontends, "{operation}");
        assert_eq!(place < deletes, early || frontend, "{operation}");
        assert_eq!(place >= bumps, bump, "{operation}");
        if let Operation::UpsertFrontend(key, _) | Operation::DeleteFrontend(key) = operation {
            let slot = Slot::of_address(&key.address);
            assert!(
                operations.contains(&Operation::Bump(slot)),
                "{key:?} is not bumped"
            );
        }
    }
}

fn check_history(settings: ServiceSettings, batches: Vec<Vec<Change>>, written: &[bool]) {
    let mut node = Node::new(settings);
    let mut known = BTreeMap::new();
    for (batch, written) in batches.into_iter().zip(written.iter().cycle()) {
        let operations = node.change(batch);
        check_order(&operations);
        let view = evaluate(&node.world, &node.settings);
        for operation in &operations {
            node.kernel.apply(operation);
            check_step(&node.kernel, &known, &view);
        }
        assert_eq!(read(&node.kernel), view);
        let rows = node.compiler.rows();
        assert_eq!(
            rows.addresses,
            addresses(&node.world, &view, &node.settings)
        );
        assert_eq!(&node.kernel, rows);
        assert!(plan(&node.kernel, rows).is_empty());
        let mut again = Touched::everything();
        again.all = true;
        let idle = node.compiler.update(&node.world, &again, &node.settings);
        assert_eq!(idle.operations, [], "nothing has changed");
        // What was handed out is there, whether the caller says so at once or later.
        if *written {
            node.compiler.executed();
        }
        known = view;
    }
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn each_step_is_safe_and_the_end_is_right(batches in history(), written: [bool; 5]) {
        check_history(settings(), batches, &written);
    }

    #[test]
    fn the_same_with_tables(batches in history(), written: [bool; 5]) {
        check_history(with_maglev(), batches, &written);
    }

    #[test]
    fn a_full_plan_is_safe_too(first in history(), second in history()) {
        let (mut old, mut new) = (Node::new(settings()), Node::new(settings()));
        for batch in first {
            old.update(batch);
        }
        for batch in second {
            new.update(batch);
        }
        let operations = plan(old.compiler.rows(), new.compiler.rows());
        check_order(&operations);
        for operation in &operations {
            old.kernel.apply(operation);
        }
        prop_assert_eq!(&old.kernel, new.compiler.rows());
    }
}
