// SPDX-License-Identifier: Apache-2.0
//! Pods, and who has an address that several claim.

use std::net::IpAddr;
use std::sync::Arc;

use weir_abi::ipcache::PrefixKey;
use weir_abi::{Address, Identity};
use weir_model::{Change, IdentityTable, Labels, Pod, World};

use super::{check, compiled, endpoint, pod, settings, two_nodes};
use crate::{NodeIndices, RoutingMode, compile, plan};

#[test]
fn a_duplicate_address_stays_with_the_first_and_is_reported() {
    let mut changes = two_nodes();
    let older = Pod {
        created: 5,
        ..pod("zz-older", "n2", &["10.244.2.9"])
    };
    let younger = Pod {
        created: 9,
        ..pod("aa-younger", "n2", &["10.244.2.9"])
    };
    let thief = pod("thief", "n2", &["172.18.0.2", "10.244.1.5"]);
    changes.extend([older, younger, thief].map(|pod| Change::Pod(Arc::new(pod))));
    let out = compiled(
        changes,
        &settings(RoutingMode::Tunnel),
        &[endpoint("web", "10.244.1.5")],
    );
    let shown: Vec<_> = out.problems.iter().map(ToString::to_string).collect();
    check(
        &shown,
        &[
            "pod shop/thief claims address 172.18.0.2, which node n1 has: node n1 keeps it",
            "pod shop/thief claims address 10.244.1.5, which pod shop/web has: pod shop/web keeps it",
            "pod shop/aa-younger claims address 10.244.2.9, which pod shop/zz-older has: pod shop/zz-older keeps it",
        ],
    );
}

#[test]
fn what_is_only_announced_stands_behind_everything_else() {
    let announced = |name, created, addresses: &[&str]| Pod {
        announced: true,
        created,
        ..pod(name, "n2", addresses)
    };
    let mut changes = two_nodes();
    let known = Pod {
        created: 9,
        ..pod("known", "n2", &["10.244.2.9"])
    };
    let of_others = announced(
        "greedy",
        1,
        &[
            "172.18.0.3",
            "10.244.2.9",
            "10.244.1.7",
            "203.0.113.5",
            "10.244.2.20",
        ],
    );
    changes.extend([known, of_others].map(|pod| Change::Pod(Arc::new(pod))));
    let out = compiled(changes, &settings(RoutingMode::Tunnel), &[]);
    let owner = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        out.owners.get(&address.into()).map(ToString::to_string)
    };
    assert_eq!(owner("10.244.2.9").as_deref(), Some("pod shop/known"));
    assert_eq!(owner("172.18.0.3").as_deref(), Some("node n2"));
    assert_eq!(owner("10.244.2.20").as_deref(), Some("pod shop/greedy"));
    // Of another node's range, and outside the cluster.
    assert_eq!((owner("10.244.1.7"), owner("203.0.113.5")), (None, None));
}

#[test]
fn host_network_pods_add_nothing_and_an_endpoint_without_object_is_not_ready() {
    let mut host = pod("proxy", "n2", &["172.18.0.3"]);
    host.host_network = true;
    let changes = two_nodes().into_iter().chain([Change::Pod(Arc::new(host))]);
    let out = compiled(
        changes,
        &settings(RoutingMode::Tunnel),
        &[endpoint("new", "10.244.1.9")],
    );
    assert_eq!(out.problems, []);
    let row = out
        .rows
        .endpoints
        .get(&Address::from_v4([10, 244, 1, 9]))
        .unwrap();
    assert_eq!((row.identity, row.flags), (Identity::UNKNOWN, 0));
}

#[test]
fn equal_label_sets_share_an_identity_and_a_restart_keeps_numbers() {
    let mut world = World::default();
    for change in two_nodes() {
        world.apply(change);
    }
    let twin = Pod {
        labels: Labels::new([("app", "db")]).unwrap(),
        ..pod("db-2", "n2", &["10.244.2.8"])
    };
    world.apply(Change::Pod(Arc::new(twin)));
    let settings = settings(RoutingMode::Tunnel);
    let (mut identities, mut indices) = (IdentityTable::default(), NodeIndices::default());
    let first = compile(&world, &settings, &[], &mut identities, &mut indices);
    let identity = |address: [u8; 4]| {
        first
            .rows
            .ipcache
            .get(&PrefixKey::host(Address::from_v4(address)))
            .unwrap()
            .identity
    };
    assert_eq!(identity([10, 244, 2, 7]), identity([10, 244, 2, 8]));
    let pairs: Vec<_> = identities
        .iter()
        .map(|(number, set)| (number, set.clone()))
        .collect();
    let mut identities = IdentityTable::restore(pairs);
    let mut indices = NodeIndices::restore(&first.rows.nodes);
    let second = compile(&world, &settings, &[], &mut identities, &mut indices);
    assert!(plan(&first.rows, &second.rows).is_empty());
}
