// SPDX-License-Identifier: Apache-2.0
//! What holds for the rows of every world.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use weir_abi::ipcache::{PrefixKey, flags};
use weir_abi::{Identity, NodeIndex};
use weir_model::{Change, Pod};

use super::{compiled, endpoint, node, pod, settings};
use crate::RoutingMode;

fn any_world() -> impl Strategy<Value = Vec<Change>> {
    let any_node =
        (1u8..5, vec(1u8..6, 0..3), vec(1u8..6, 0..3)).prop_map(|(name, hosts, ranges)| {
            let hosts: Vec<_> = hosts.iter().map(|n| format!("172.18.0.{n}")).collect();
            let ranges: Vec<_> = ranges.iter().map(|n| format!("10.244.{n}.0/24")).collect();
            node(
                &format!("n{name}"),
                &hosts.iter().map(String::as_str).collect::<Vec<_>>(),
                &ranges.iter().map(String::as_str).collect::<Vec<_>>(),
            )
        });
    let any_pod = (0u8..8, 1u8..6, vec((1u8..6, 1u8..5), 0..3), any::<bool>()).prop_map(
        |(name, node, addresses, host_network)| {
            let addresses: Vec<_> = addresses
                .iter()
                .map(|(range, n)| format!("10.244.{range}.{n}"))
                .collect();
            let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
            let pod = pod(&format!("p{name}"), &format!("n{node}"), &addresses);
            Change::Pod(Arc::new(Pod {
                host_network,
                ..pod
            }))
        },
    );
    (vec(any_node, 0..5), vec(any_pod, 0..10))
        .prop_map(|(nodes, pods)| nodes.into_iter().chain(pods).collect())
}

proptest! {
    #[test]
    fn rows_are_consistent_whatever_the_world(changes in any_world(), native: bool) {
        let mode = if native { RoutingMode::Native } else { RoutingMode::Tunnel };
        let out = compiled(changes.clone(), &settings(mode), &[endpoint("p0", "10.244.1.2")]);
        for row in out.rows.ipcache.values() {
            prop_assert!(row.node == NodeIndex::NONE || out.rows.nodes.contains_key(&row.node));
            let ranges = flags::POD_RANGE | flags::LOCAL_RANGE;
            prop_assert!(row.flags == 0 || row.identity == Identity::UNKNOWN);
            prop_assert!(row.flags & !ranges == 0);
        }
        for address in out.rows.endpoints.keys() {
            prop_assert!(out.rows.ipcache.contains_key(&PrefixKey::host(*address)));
        }
        let singles = out.rows.ipcache.keys().filter(|key| key.length == 128).count();
        prop_assert_eq!(singles, out.owners.len());
        let again = compiled(changes, &settings(mode), &[endpoint("p0", "10.244.1.2")]);
        prop_assert_eq!(out, again);
    }
}
