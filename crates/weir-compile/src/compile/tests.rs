// SPDX-License-Identifier: Apache-2.0
//! Small worlds and the rows that one node gets out of them.

mod any_world;
mod nodes;
mod pods;

use std::sync::Arc;

use weir_model::{Change, Labels, Node, Pod, PodCidr};

use super::*;
use crate::exempt::default_exempt;
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
