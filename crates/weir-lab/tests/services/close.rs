// SPDX-License-Identifier: Apache-2.0
//! D: who is served by whom: internal traffic policy, topology hints, traffic distribution.
//!
//! Nodes n1 and n2 are in zone a, n3 is in zone b, n4 in zone c.

use serde_json::{Value, json};

use super::{
    ask::{all_ways, ask},
    ground::{CLIENTS, Ground},
    objects::{With, server, service, service_of, slice},
};

/// Who answers the clients of each node, and nodes themselves if they are asked too.
fn check(ground: &Ground<'_>, hosts: bool, expected: [&[&str]; 4]) {
    for ((client, node), pods) in CLIENTS.iter().zip(super::ground::NODES).zip(expected) {
        let mut froms = vec![(*client).to_owned()];
        if hosts {
            froms.push(format!("node:{node}"));
        }
        for from in froms {
            let asks = all_ways([ask(&from, &ground.svc("web")).times(24)]);
            if pods.is_empty() {
                ground.unanswered(asks);
            } else {
                ground.answered_by(pods, asks);
            }
        }
    }
}

fn local() -> Value {
    service("web").with("spec.internalTrafficPolicy", "Local")
}

pub(crate) fn d1_local_services_serve_their_own_node(ground: &Ground<'_>) {
    ground.apply([local(), server("b0", "n1")]);
    check(ground, false, [&["b0"], &[], &[], &[]]);
}

pub(crate) fn d2_local_services_serve_their_own_host_network(ground: &Ground<'_>) {
    ground.apply([local(), server("b0", "n1")]);
    for (from, served) in [("node:n1", true), ("node:n2", false)] {
        let asks = all_ways([ask(from, &ground.svc("web")).times(5)]);
        if served {
            ground.answered_by(&["b0"], asks);
        } else {
            ground.unanswered(asks);
        }
    }
}

pub(crate) fn d3_local_backends_may_be_in_the_host_network(ground: &Ground<'_>) {
    let host = server("b0", "n1").with("spec.hostNetwork", true).with(
        "spec.containers.0.ports",
        json!([
            {"name": "http", "containerPort": 7203},
            {"name": "dgram", "containerPort": 7203, "protocol": "UDP"},
        ]),
    );
    ground.apply([local(), host]);
    check(ground, true, [&["b0"], &[], &[], &[]]);
}

pub(crate) fn d4_the_two_scopes_are_apart(ground: &Ground<'_>) {
    let inside = service_of("NodePort", "web").with("spec.internalTrafficPolicy", "Local");
    ground.apply([inside, server("b0", "n1")]);
    let port = ground.node_port("web", 0);
    let node = |from: &str, to: &str| all_ways([ask(from, to).port(port).times(3)]);
    let cluster = |from: &str| all_ways([ask(from, &ground.svc("web")).times(3)]);
    ground.answered(node("world", "node:n2"));
    ground.answered(node("base/c2", "node:n2"));
    ground.unanswered(cluster("base/c2"));
    let outside = service_of("NodePort", "web").with("spec.externalTrafficPolicy", "Local");
    ground.apply([outside]);
    ground.unanswered(node("world", "node:n2"));
    ground.answered(cluster("base/c2"));
}

fn in_all_zones() -> [Value; 4] {
    [
        server("b1", "n1"),
        server("b2", "n2"),
        server("b3", "n3"),
        server("b4", "n4"),
    ]
}

pub(crate) fn d5_endpoints_are_divided_among_zones(ground: &Ground<'_>) {
    let auto = service("web").with_in(
        "metadata.annotations",
        "service.kubernetes.io/topology-mode",
        "Auto",
    );
    ground.apply([auto]);
    ground.apply(in_all_zones());
    let slices = ground
        .lab
        .objects("endpointslices", ground.own("").trim_end_matches('/'));
    let endpoints = slices
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().unwrap());
    assert!(
        endpoints
            .clone()
            .all(|endpoint| endpoint["hints"]["forZones"].is_array())
    );
    check(
        ground,
        true,
        [&["b1", "b2"], &["b1", "b2"], &["b3"], &["b4"]],
    );
}

pub(crate) fn d6_traffic_stays_in_zones_that_have_endpoints(ground: &Ground<'_>) {
    for word in ["PreferClose", "PreferSameZone"] {
        let close = service("web").with("spec.trafficDistribution", word);
        ground.apply([close, server("b1", "n1"), server("b3", "n3")]);
        check(ground, true, [&["b1"], &["b1"], &["b3"], &["b1", "b3"]]);
    }
}

pub(crate) fn d7_all_clients_of_a_zone_use_all_its_endpoints(ground: &Ground<'_>) {
    let close = service("web").with("spec.trafficDistribution", "PreferSameZone");
    ground.apply([
        close,
        server("b1", "n1"),
        server("b2", "n2"),
        server("b3", "n3"),
    ]);
    check(
        ground,
        false,
        [&["b1", "b2"], &["b1", "b2"], &["b3"], &["b1", "b2", "b3"]],
    );
}

pub(crate) fn d8_traffic_stays_on_nodes_that_have_endpoints(ground: &Ground<'_>) {
    let close = service("web").with("spec.trafficDistribution", "PreferSameNode");
    ground.apply([close, server("b1", "n1"), server("b3", "n3")]);
    check(ground, true, [&["b1"], &["b1"], &["b3"], &["b1", "b3"]]);
}

pub(crate) fn d9_traffic_comes_back_with_the_endpoint(ground: &Ground<'_>) {
    let close = service("web").with("spec.trafficDistribution", "PreferSameNode");
    ground.apply([close, server("b3", "n3"), server("b4", "n4")]);
    let asks = || all_ways([ask("base/c3", &ground.svc("web")).times(10)]);
    ground.answered_by(&["b3"], asks());
    ground.delete("Pod", "b3");
    ground.answered_by(&["b4"], asks());
    ground.apply([server("b3", "n3")]);
    ground.answered_by(&["b3"], asks());
}

pub(crate) fn d10_hints_count_when_all_endpoints_have_them(ground: &Ground<'_>) {
    ground.apply(in_all_zones());
    let by_hand = service("web")
        .with("spec.selector", json!(null))
        .with("spec.ipFamilyPolicy", "SingleStack");
    let endpoint = |pod: &str, zone: Option<&str>| {
        let hints = zone.map(|zone| json!({"forZones": [{"name": zone}]}));
        json!({"addresses": [ground.pod_ip(&ground.own(pod), 4)], "hints": hints})
    };
    let ports = json!([{"name": "t", "port": 80, "protocol": "TCP"}]);
    let slice = |last: Option<&str>| {
        let endpoints = json!([
            endpoint("b1", Some("a")),
            endpoint("b3", Some("b")),
            endpoint("b4", last)
        ]);
        slice("web-1", "web", &ports, &endpoints)
    };
    let asks = || [ask("base/c3", &ground.svc("web")).times(40)];
    ground.apply([by_hand, slice(Some("c"))]);
    ground.answered_by(&["b3"], asks());
    ground.apply([slice(None)]);
    ground.answered_by(&["b1", "b3", "b4"], asks());
}
