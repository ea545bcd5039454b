// SPDX-License-Identifier: Apache-2.0
//! Nodes, the ranges of their pods and the routes to them.

use weir_abi::endpoint::flags::READY;
use weir_abi::{Address, EndpointId, Identity, NodeIndex};
use weir_model::{Change, IdentityTable, NodeName, World};

use super::{check, compiled, endpoint, ipcache, node, settings, two_nodes};
use crate::prefix::display_prefix;
use crate::{DesiredRoute, NodeIndices, RoutePath, RoutingMode, Settings, compile};

#[test]
fn tunnel_mode_puts_everything_of_another_node_behind_it() {
    let settings = settings(RoutingMode::Tunnel);
    let out = compiled(two_nodes(), &settings, &[endpoint("web", "10.244.1.5")]);
    assert_eq!(out.problems, []);
    check(
        &ipcache(&out),
        &[
            "172.18.0.2/32 host 0 0",
            "192.0.2.1/32 host 0 0",
            "fd00:18::2/128 host 0 0",
            "172.18.0.3/32 remote-node 1 0",
            "fd00:18::3/128 remote-node 1 0",
            "10.244.1.0/24 unknown 0 3",
            "fd00:244:1::/64 unknown 0 3",
            "10.244.2.0/24 unknown 1 1",
            "fd00:244:2::/64 unknown 1 1",
            "10.244.1.5/32 257 0 0",
            "10.244.2.7/32 256 1 0",
            "fd00:244:2::7/128 256 1 0",
        ],
    );
    let tunnel = out.rows.nodes.get(&NodeIndex(1)).unwrap();
    assert_eq!(
        (tunnel.local.to_string(), tunnel.remote.to_string()),
        ("172.18.0.2".into(), "172.18.0.3".into())
    );
    let row = out
        .rows
        .endpoints
        .get(&Address::from_v4([10, 244, 1, 5]))
        .unwrap();
    assert_eq!(
        (row.id, row.identity, row.flags),
        (EndpointId(7), Identity(257), READY)
    );
    let source = |text: &str| Some(text.parse().unwrap());
    let route = |destination: &str, path| DesiredRoute {
        destination: destination.parse().unwrap(),
        path,
    };
    assert_eq!(
        out.routes,
        [
            route(
                "10.244.1.0/24",
                RoutePath::Host {
                    source: source("172.18.0.2"),
                    mtu: Some(1450)
                }
            ),
            route(
                "10.244.2.0/24",
                RoutePath::Host {
                    source: source("172.18.0.2"),
                    mtu: Some(1450)
                }
            ),
            route(
                "fd00:244:1::/64",
                RoutePath::Host {
                    source: source("fd00:18::2"),
                    mtu: Some(1450)
                }
            ),
            route(
                "fd00:244:2::/64",
                RoutePath::Host {
                    source: source("fd00:18::2"),
                    mtu: Some(1450)
                }
            ),
        ]
    );
}

#[test]
fn native_mode_needs_no_tunnel_ends_and_routes_by_the_nodes() {
    let out = compiled(two_nodes(), &settings(RoutingMode::Native), &[]);
    assert!(out.rows.nodes.is_empty());
    assert!(
        out.rows
            .ipcache
            .values()
            .all(|row| row.node == NodeIndex::NONE)
    );
    let gateway = RoutePath::Node {
        gateway: "fd00:18::3".parse().unwrap(),
    };
    let expected = DesiredRoute {
        destination: "fd00:244:2::/64".parse().unwrap(),
        path: gateway,
    };
    assert!(out.routes.contains(&expected), "{:?}", out.routes);
}

#[test]
fn nodes_come_change_and_go() {
    for (routing, gateway) in [(RoutingMode::Tunnel, false), (RoutingMode::Native, true)] {
        let settings = settings(routing);
        let (mut world, mut identities, mut indices) = (
            World::default(),
            IdentityTable::default(),
            NodeIndices::default(),
        );
        let mut next = |changes: Vec<Change>| {
            for change in changes {
                world.apply(change);
            }
            let endpoints = [endpoint("web", "10.244.1.5")];
            let out = compile(&world, &settings, &endpoints, &mut identities, &mut indices);
            let ends = out.rows.nodes.values().map(|row| row.remote.to_string());
            let routes = out.routes.iter().filter(|route| {
                gateway == matches!(route.path, RoutePath::Node { .. })
                    || route.destination.prefix_len() == 32
            });
            let routes: Vec<_> = routes
                .filter(|route| route.destination.addr().is_ipv4())
                .map(|route| match route.path {
                    RoutePath::Host { .. } => route.destination.to_string(),
                    RoutePath::Node { gateway } => format!("{} {gateway}", route.destination),
                })
                .collect();
            assert_eq!(out.problems, []);
            (ends.collect::<Vec<_>>(), routes)
        };
        let expect =
            |found: (Vec<String>, Vec<String>), ends: &[&str], native: &[&str], tunnel: &[&str]| {
                assert_eq!(found.0, if gateway { &[] } else { ends }, "{routing:?}");
                assert_eq!(
                    found.1,
                    if gateway { native } else { tunnel },
                    "{routing:?}"
                );
            };
        let found = next(two_nodes());
        expect(
            found,
            &["172.18.0.3"],
            &["10.244.2.0/24 172.18.0.3"],
            &["10.244.1.0/24", "10.244.2.0/24"],
        );
        let found = next(vec![node("n3", &["172.18.0.4"], &["10.244.3.0/24"])]);
        expect(
            found,
            &["172.18.0.3", "172.18.0.4"],
            &["10.244.2.0/24 172.18.0.3", "10.244.3.0/24 172.18.0.4"],
            &["10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"],
        );
        // Another address and another range.
        let found = next(vec![node("n2", &["172.18.0.9"], &["10.244.12.0/24"])]);
        let (mut ends, routes) = found;
        ends.sort();
        expect(
            (ends, routes),
            &["172.18.0.4", "172.18.0.9"],
            &["10.244.3.0/24 172.18.0.4", "10.244.12.0/24 172.18.0.9"],
            &["10.244.1.0/24", "10.244.3.0/24", "10.244.12.0/24"],
        );
        // This node's own range: the pod that has an address of the old one is still reached.
        let found = next(vec![node("n1", &["172.18.0.2"], &["10.244.11.0/24"])]);
        assert!(found.1.contains(&"10.244.1.5/32".to_owned()), "{found:?}");
        let gone = |name: &str| Change::NodeGone(NodeName::new(name).unwrap());
        let found = next(vec![gone("n2"), gone("n3")]);
        expect(
            found,
            &[],
            &["10.244.1.5/32"],
            &["10.244.1.5/32", "10.244.11.0/24"],
        );
    }
}

#[test]
fn direct_return_needs_the_nodes_in_native_mode_too() {
    let direct = |routing| Settings {
        direct_return: true,
        ..settings(routing)
    };
    let native = compiled(two_nodes(), &direct(RoutingMode::Native), &[]);
    let tunnel = compiled(two_nodes(), &direct(RoutingMode::Tunnel), &[]);
    assert_eq!(native.rows.nodes, tunnel.rows.nodes);
    assert_eq!(native.rows.ipcache, tunnel.rows.ipcache);
    assert!(!native.rows.nodes.is_empty());
    // Pods are routed as ever.
    let plain = compiled(two_nodes(), &settings(RoutingMode::Native), &[]);
    assert_eq!(native.routes, plain.routes);
}

#[test]
fn everything_of_the_cluster_is_exempt_from_masquerading() {
    let out = compiled(two_nodes(), &settings(RoutingMode::Tunnel), &[]);
    let shown: Vec<_> = out
        .rows
        .masquerade_exempt
        .iter()
        .map(|key| display_prefix(key).to_string())
        .collect();
    for range in [
        "10.0.0.0/8",
        "10.244.2.0/24",
        "172.18.0.3/32",
        "fc00::/7",
        "fd00:18::3/128",
    ] {
        assert!(shown.iter().any(|one| one == range), "{range}: {shown:?}");
    }
    let off = Settings {
        masquerade: false,
        ..settings(RoutingMode::Tunnel)
    };
    assert!(
        compiled(two_nodes(), &off, &[])
            .rows
            .masquerade_exempt
            .is_empty()
    );
}

#[test]
fn what_cannot_be_realized_is_reported_by_name() {
    let changes = [
        node("n1", &["172.18.0.2"], &["10.244.1.0/24"]),
        node("n2", &["fd00:18::3"], &["10.244.2.0/24"]),
        node("n3", &[], &["10.244.0.0/16"]),
    ];
    let out = compiled(changes.clone(), &settings(RoutingMode::Tunnel), &[]);
    let shown: Vec<_> = out.problems.iter().map(ToString::to_string).collect();
    check(
        &shown,
        &[
            "node n2 shares no address family with this node: there is no way to it",
            "node n3 has no address",
            "node n3 claims pod range 10.244.0.0/16, which overlaps with one of node n1: node n1 keeps it",
        ],
    );
    let small = Settings {
        ipcache_size: 5,
        ..settings(RoutingMode::Tunnel)
    };
    let out = compiled(two_nodes(), &small, &[]);
    assert_eq!(out.rows.ipcache.len(), 5);
    assert!(
        out.problems
            .iter()
            .any(|problem| problem.to_string().contains("mapSizes.ipcache"))
    );
}
