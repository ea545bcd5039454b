// SPDX-License-Identifier: Apache-2.0
//! What an agent finds in the kernel when it starts.

use proptest::prelude::*;
use weir_model::{Change, Touched};

use super::evaluate::{evaluate, read};
use super::steps::{Node, check_step};
use super::worlds::{any_change, history, settings, with_maglev};
use crate::service::{ServiceCompiler, ServiceSettings};

/// A node whose agent starts again with what the kernel has.
fn restarted(node: Node) -> Node {
    Node {
        compiler: ServiceCompiler::restore(node.kernel.clone()),
        ..node
    }
}

fn check_restart(
    settings: ServiceSettings,
    batches: Vec<Vec<Change>>,
    last: Vec<Change>,
    cut: prop::sample::Index,
) {
    let mut node = Node::new(settings);
    for batch in batches {
        node.update(batch);
    }
    // Of a world that stays the same nothing is written.
    let mut node = restarted(node);
    assert_eq!(node.change([]), []);
    assert_eq!(&node.kernel, node.compiler.rows());
    node.compiler.executed();

    // The agent is killed in the middle of a plan, and the world goes on without it.
    let known = evaluate(&node.world, &node.settings);
    let operations = node.change(last);
    for operation in operations.iter().take(cut.index(operations.len() + 1)) {
        node.kernel.apply(operation);
    }
    let mut node = restarted(node);
    let view = evaluate(&node.world, &node.settings);
    let operations = node.change([]);
    for operation in &operations {
        node.kernel.apply(operation);
        check_step(&node.kernel, &known, &view);
    }
    assert_eq!(&node.kernel, node.compiler.rows());
    assert_eq!(read(&node.kernel), view);
    node.compiler.executed();
    // Everything that was there before is free again.
    let mut rest = node
        .world
        .services()
        .map(|one| Change::ServiceGone(one.reference.clone()))
        .collect::<Vec<_>>();
    rest.extend(
        node.world
            .pods()
            .map(|one| Change::PodGone(one.reference.clone())),
    );
    node.update(rest);
    assert!(node.kernel.is_empty(), "{:?}", node.kernel);
    assert!(node.compiler.is_idle());
}

proptest! {
    #![proptest_config(super::config())]

    #[test]
    fn rows_are_found_again(batches in history(), last in proptest::collection::vec(any_change(), 0..6), cut: prop::sample::Index) {
        check_restart(settings(), batches, last, cut);
    }

    #[test]
    fn tables_are_found_again(batches in history(), last in proptest::collection::vec(any_change(), 0..6), cut: prop::sample::Index) {
        check_restart(with_maglev(), batches, last, cut);
    }

    /// Rows of one world meet another one, whose services may have the same addresses.
    #[test]
    fn whatever_is_found_leads_to_the_right_rows(found in history(), batches in history(), early: bool) {
        let mut before = Node::new(settings());
        for batch in found {
            before.update(batch);
        }
        let mut node = Node { kernel: before.kernel.clone(), ..Node::new(settings()) };
        node.compiler = ServiceCompiler::restore(before.kernel);
        // For a while not everything has been told.
        node.settings.keep_unknown = early;
        for batch in batches {
            let operations = node.change(batch);
            for operation in &operations {
                node.kernel.apply(operation);
            }
            prop_assert_eq!(&node.kernel, node.compiler.rows());
            read(&node.kernel);
            node.compiler.executed();
        }
        node.settings.keep_unknown = false;
        let operations = node.compiler.update(&node.world, &Touched::default(), &node.settings).operations;
        for operation in &operations {
            node.kernel.apply(operation);
        }
        prop_assert_eq!(&node.kernel, node.compiler.rows());
        prop_assert_eq!(read(&node.kernel), evaluate(&node.world, &node.settings));
    }
}
