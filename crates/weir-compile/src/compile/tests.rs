// SPDX-License-Identifier: Apache-2.0
//! Small worlds and the rows that one node gets out of them.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use weir_model::{Change, Labels, PodCidr};

use super::*;
use crate::exempt::default_exempt;
use crate::plan;
use crate::prefix::display_prefix;

fn node(name: &str, addresses: &[&str], cidrs: &[&str]) -> Change {
    Change::Node(Arc::new(Node {
        name: NodeName::new(name).unwrap(),
        labels: Labels::default(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        uid: None,
        pod_cidrs: cidrs
            .iter()
            .map(|text| PodCidr::parse(text).unwrap())
            .collect(),
    }))
}

fn pod(name: &str, node: &str, addresses: &[&str]) -> Pod {
    Pod {
        reference: PodRef::new("shop", name).unwrap(),
        labels: Labels::new([("app", name)]).unwrap(),
        node: Some(NodeName::new(node).unwrap()),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        host_network: false,
        container_ports: Vec::new(),
        created: 0,
        workload: None,
        uid: None,
        announced: false,
    }
}

fn settings(routing: RoutingMode) -> Settings {
    Settings {
        node: NodeName::new("n1").unwrap(),
        routing,
        direct_return: false,
        masquerade: true,
        non_masquerade: default_exempt(),
        node_addresses: vec!["192.0.2.1".parse().unwrap()],
        pod_mtu: 1450,
        endpoints_size: 100,
        ipcache_size: 100,
        masquerade_exempt_size: 100,
        nodes_size: 100,
    }
}

fn endpoint(name: &str, address: &str) -> LocalEndpoint {
    LocalEndpoint {
        id: EndpointId(7),
        pod: PodRef::new("shop", name).unwrap(),
        interface: IfIndex(12),
        mac: MacAddress([2; 6]),
        addresses: vec![address.parse().unwrap()],
        labels: None,
    }
}

fn two_nodes() -> Vec<Change> {
    vec![
        node(
            "n1",
            &["172.18.0.2", "fd00:18::2"],
            &["10.244.1.0/24", "fd00:244:1::/64"],
        ),
        node(
            "n2",
            &["172.18.0.3", "fd00:18::3"],
            &["10.244.2.0/24", "fd00:244:2::/64"],
        ),
        Change::Pod(Arc::new(pod("web", "n1", &["10.244.1.5"]))),
        Change::Pod(Arc::new(pod("db", "n2", &["10.244.2.7", "fd00:244:2::7"]))),
    ]
}

fn compiled(
    changes: impl IntoIterator<Item = Change>,
    settings: &Settings,
    endpoints: &[LocalEndpoint],
) -> Compiled {
    let mut world = World::default();
    for change in changes {
        world.apply(change);
    }
    let (mut identities, mut indices) = (IdentityTable::default(), NodeIndices::default());
    compile(&world, settings, endpoints, &mut identities, &mut indices)
}

/// `prefix identity node flags`, one line for each row.
fn ipcache(compiled: &Compiled) -> Vec<String> {
    let rows = compiled.rows.ipcache.iter();
    rows.map(|(key, row)| {
        format!(
            "{} {} {} {}",
            display_prefix(key),
            row.identity,
            row.node,
            row.flags
        )
    })
    .collect()
}

fn check(found: &[String], expected: &[&str]) {
    let mut found: Vec<_> = found.iter().map(String::as_str).collect();
    let mut expected = expected.to_vec();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

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
