// SPDX-License-Identifier: Apache-2.0
//! Executing a plan over the realized rows gives the desired ones, and every step is safe.

use proptest::collection::{btree_map, btree_set};
use proptest::prelude::*;
use std::collections::BTreeMap;

use weir_abi::policy::{PeerKind, PolicyDirection, PortRule};
use weir_abi::{BlockGroup, EndpointId, Identity, IfIndex, PolicySet, Protocol};

use super::*;
use crate::Rows;

/// Few values, so that realized and desired rows collide often.
fn address() -> impl Strategy<Value = Address> {
    (0u8..12).prop_map(|n| Address::from_v4([10, 0, 0, n]))
}

fn prefix() -> impl Strategy<Value = PrefixKey> {
    (address(), prop_oneof![Just(128u32), Just(120), Just(104)])
        .prop_map(|(address, length)| PrefixKey { length, address })
}

fn rows() -> impl Strategy<Value = Rows> {
    let endpoint = (1u32..4, 256u32..259, 2u16..5, 0u16..8, 0u32..3).prop_map(
        |(ifindex, identity, id, flags, set)| EndpointRow {
            ifindex: IfIndex(ifindex),
            identity: Identity(identity),
            id: EndpointId(id),
            flags,
            policy_set: PolicySet(set),
            ..EndpointRow::default()
        },
    );
    let node = (address(), address()).prop_map(|(local, remote)| NodeRow { local, remote });
    (
        btree_map(address(), endpoint, 0..8),
        btree_map(prefix(), (256u32..259, 0u16..4), 0..8),
        btree_set(prefix(), 0..8),
        btree_map((1u16..5).prop_map(NodeIndex), node, 0..4),
        policy(),
    )
        .prop_map(
            |(endpoints, ipcache, masquerade_exempt, nodes, policy)| Rows {
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
                            blocks: BlockGroup::NONE,
                            node: NodeIndex(node),
                            flags: 0,
                        };
                        (key, row)
                    })
                    .collect(),
                masquerade_exempt,
                nodes,
                policy,
            },
        )
}

/// Up to 20 rules for a peer: in parts.
fn policy() -> impl Strategy<Value = BTreeMap<PolicyKey, PolicyRow>> {
    let peer = prop_oneof![
        Just((PeerKind::Any, 0u32)),
        (256u32..259).prop_map(|identity| (PeerKind::Identity, identity)),
        (1u32..3).prop_map(|group| (PeerKind::Blocks, group)),
    ];
    let direction = prop_oneof![
        Just(PolicyDirection::Ingress),
        Just(PolicyDirection::Egress)
    ];
    let rule = (1u32..99, 0u16..90, 0u16..9).prop_map(|(cookie, first, more)| PortRule {
        cookie: PolicyCookie(cookie),
        first_port: first,
        last_port: first + more,
        precedence: 7,
        protocol: Protocol::TCP,
        flags: 0,
    });
    let key = (1u32..3, direction, peer)
        .prop_map(|(set, way, (kind, peer))| PolicyKey::new(PolicySet(set), way, kind, peer));
    let chains = btree_map(key, proptest::collection::vec(rule, 1..20), 0..8);
    chains.prop_map(|chains| {
        let parts = chains
            .iter()
            .map(|(key, rules)| PolicyRow::parts(*key, rules).unwrap());
        parts.flatten().collect()
    })
}

/// What a packet with this address finds, block groups aside.
fn found(rows: &Rows, address: &Address) -> (Option<EndpointRow>, Option<IpcacheRow>, bool) {
    let around = |length: u32| {
        let mut address = *address;
        for bit in length..128 {
            address.0[bit as usize / 8] &= !(0x80 >> (bit % 8));
        }
        PrefixKey { length, address }
    };
    let mut lengths = (0..=128).rev();
    let row = lengths.find_map(|length| rows.ipcache.get(&around(length)));
    let exempt = (0..=128).any(|length| rows.masquerade_exempt.contains(&around(length)));
    let world = IpcacheRow {
        identity: Identity::WORLD_IPV4,
        ..IpcacheRow::default()
    };
    (
        rows.endpoints.get(address).copied(),
        Some(*row.unwrap_or(&world)),
        exempt,
    )
}

proptest! {
    #[test]
    fn a_plan_leads_to_the_desired_rows(
        mut realized in rows(),
        desired in rows(),
        // A row is missing, as after a crash of whoever wrote them.
        missing in 0u16..5,
    ) {
        realized.policy.retain(|key, _| key.part != missing);
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
        for last in 0..12 {
            let address = Address::from_v4([10, 0, 0, last]);
            if found(&realized, &address) != found(&desired, &address) {
                prop_assert!(bumped(Slot::of_address(&address)), "{address}");
            }
        }
        for change in changes {
            if let Operation::UpsertPolicy(key, _) | Operation::DeletePolicy(key) = change {
                for (address, row) in &desired.endpoints {
                    let slot = Slot::of_address(address);
                    prop_assert!(row.policy_set != key.set || bumped(slot));
                }
            }
            if let Operation::UpsertNode(index, _) | Operation::DeleteNode(index) = change {
                prop_assert!(!realized.nodes.contains_key(index) || bumped(Slot::ALL));
            }
        }
    }

    #[test]
    fn another_group_alone_has_no_flow_decided_again(realized in rows(), group in 1u32..5) {
        let mut desired = realized.clone();
        for row in desired.ipcache.values_mut() {
            row.blocks = BlockGroup(group);
        }
        for row in desired.endpoints.values_mut() {
            row.blocks = BlockGroup(group);
        }
        let plan = plan(&realized, &desired);
        prop_assert_eq!(plan.changes().count(), plan.operations.len());
    }
}
