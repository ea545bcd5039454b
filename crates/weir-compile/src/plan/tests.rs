// SPDX-License-Identifier: Apache-2.0
//! Executing a plan over the realized rows gives the desired ones, and every step is safe.

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use weir_abi::{EndpointId, Identity, IfIndex};

use super::*;

/// Few values, so that realized and desired rows collide often.
fn address() -> impl Strategy<Value = Address> {
    (0u8..12).prop_map(|n| Address::from_v4([10, 0, 0, n]))
}

fn prefix() -> impl Strategy<Value = PrefixKey> {
    (address(), prop_oneof![Just(128u32), Just(120), Just(104)])
        .prop_map(|(address, length)| PrefixKey { length, address })
}

fn rows() -> impl Strategy<Value = Rows> {
    let endpoint =
        (1u32..4, 256u32..259, 2u16..5).prop_map(|(ifindex, identity, id)| EndpointRow {
            ifindex: IfIndex(ifindex),
            identity: Identity(identity),
            id: EndpointId(id),
            ..EndpointRow::default()
        });
    let node = (address(), address()).prop_map(|(local, remote)| NodeRow { local, remote });
    (
        btree_map(address(), endpoint, 0..8),
        btree_map(prefix(), (256u32..259, 0u16..4), 0..8),
        btree_set(prefix(), 0..8),
        btree_map((1u16..5).prop_map(NodeIndex), node, 0..4),
    )
        .prop_map(|(endpoints, ipcache, masquerade_exempt, nodes)| Rows {
            endpoints,
            ipcache: ipcache
                .into_iter()
                .map(|(key, (identity, node))| {
                    // A row that points to a node that is not there would be a bug of `compile`.
                    let node = if nodes.contains_key(&NodeIndex(node)) {
                        node
                    } else {
                        0
                    };
                    let row = IpcacheRow {
                        identity: Identity(identity),
                        blocks: weir_abi::BlockGroup::NONE,
                        node: NodeIndex(node),
                        flags: 0,
                    };
                    (key, row)
                })
                .collect(),
            masquerade_exempt,
            nodes,
        })
}

proptest! {
    #[test]
    fn a_plan_leads_to_the_desired_rows(realized in rows(), desired in rows()) {
        let mut state = realized.clone();
        for operation in plan(&realized, &desired).operations {
            state.apply(&operation);
        }
        prop_assert_eq!(&state, &desired);
        prop_assert!(plan(&state, &desired).is_empty());
    }

    #[test]
    fn no_row_ever_points_to_a_node_that_is_not_there(realized in rows(), desired in rows()) {
        let mut state = realized.clone();
        for operation in plan(&realized, &desired).operations {
            state.apply(&operation);
            for row in state.ipcache.values() {
                prop_assert!(row.node == NodeIndex::NONE || state.nodes.contains_key(&row.node));
            }
        }
    }

    #[test]
    fn whatever_changes_is_bumped_afterwards(realized in rows(), desired in rows()) {
        let operations = plan(&realized, &desired).operations;
        let first_bump = operations
            .iter()
            .position(|operation| matches!(operation, Operation::Bump(_)))
            .unwrap_or(operations.len());
        let (changes, bumps) = operations.split_at(first_bump);
        let bumped = |slot| {
            bumps.contains(&Operation::Bump(slot)) || bumps.contains(&Operation::Bump(Slot::ALL))
        };
        prop_assert!(bumps.iter().all(|operation| matches!(operation, Operation::Bump(_))));
        for change in changes {
            match change {
                Operation::UpsertEndpoint(address, _) | Operation::DeleteEndpoint(address) => {
                    prop_assert!(bumped(Slot::of_address(address)));
                }
                Operation::UpsertIpcache(key, _)
                | Operation::DeleteIpcache(key)
                | Operation::UpsertMasqueradeExempt(key)
                | Operation::DeleteMasqueradeExempt(key) => {
                    let slot = slot_of_prefix(key);
                    prop_assert!(bumped(slot));
                }
                Operation::DeleteNode(_) => prop_assert!(bumped(Slot::ALL)),
                Operation::UpsertNode(index, _) => {
                    prop_assert!(!realized.nodes.contains_key(index) || bumped(Slot::ALL));
                }
                // Services have their own rows and tests.
                Operation::UpsertBackends(..)
                | Operation::UpsertServiceBackends(..)
                | Operation::UpsertMaglev(..)
                | Operation::UpsertSourceRange(_)
                | Operation::UpsertServiceAddress(_)
                | Operation::UpsertFrontend(..)
                | Operation::DeleteFrontend(_)
                | Operation::DeleteServiceAddress(_)
                | Operation::DeleteSourceRange(_)
                | Operation::DeleteMaglev(_)
                | Operation::DeleteServiceBackends(..)
                | Operation::DeleteBackends(..)
                | Operation::Bump(_) => unreachable!(),
            }
        }
    }
}
