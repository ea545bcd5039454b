// SPDX-License-Identifier: Apache-2.0
//! B: headless services, readiness, pods that terminate.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    ask::{all_ways, ask, both_families, both_protocols},
    ground::{Ground, eventually},
    objects::{With, server, service, service_of},
};

pub(crate) fn b1_headless_services_have_names_only(ground: &Ground<'_>) {
    let headless = service("web").with("spec.clusterIP", "None");
    ground.apply([
        headless,
        server("b0", "n1"),
        server("b1", "n2"),
        server("b2", "n2").unready(),
    ]);
    let name = format!(
        "web.{}.svc.cluster.local",
        ground.own("").trim_end_matches('/')
    );
    for (family, words) in [(4, "ahostsv4"), (6, "ahostsv6")] {
        let found = ground
            .lab
            .text(&["exec", "base/c1", "--", "getent", words, &name]);
        let mut found: Vec<&str> = found
            .lines()
            .filter_map(|line| line.split(' ').next())
            .collect();
        found.sort_unstable();
        found.dedup();
        let mut expected = ["b0", "b1"].map(|pod| ground.pod_ip(&ground.own(pod), family));
        expected.sort();
        assert_eq!(found, expected);
    }
    let services = ground.on_node("n1", &["weir", "service", "list", "-o", "json"]);
    assert!(!services.contains(&ground.own("web")), "{services}");
}

/// What is sent to the cluster IP and to the node ports of two nodes.
fn everywhere(ground: &Ground<'_>) -> Vec<super::ask::Ask> {
    let port = ground.node_port("web", 0);
    let mut asks = vec![
        ask("base/c1", &ground.svc("web")),
        ask("base/c2", &ground.svc("web")),
    ];
    asks.extend(["node:n1", "node:n2"].map(|to| ask("base/c1", to).port(port)));
    both_families(asks)
}

/// Nobody answers. A refusal comes from the own node; where another node would have to refuse, its word may get lost on
/// the way back through the tunnel, and silence is allowed.
fn nobody(ground: &Ground<'_>) {
    let (far, near): (Vec<_>, Vec<_>) = everywhere(ground)
        .into_iter()
        .partition(|ask| ask.0["to"] == "node:n2");
    ground.refused(near);
    ground.unanswered(far);
}

pub(crate) fn b2_published_addresses_serve_until_they_are_gone(ground: &Ground<'_>) {
    let published = service_of("NodePort", "web").with("spec.publishNotReadyAddresses", true);
    ground.apply([published, server("b0", "n1").unready().lingering(6)]);
    ground.answered_by(&["b0"], everywhere(ground));
    ground.let_go("b0");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        ground.answered_by(&["b0"], everywhere(ground));
    }
    eventually(Duration::from_secs(20), "the pod is gone", || {
        !ground.lab.text(&["get", "pods"]).contains("Terminating")
    });
    ground.settle();
    nobody(ground);
}

pub(crate) fn b3_unready_pods_that_leave_get_nothing(ground: &Ground<'_>) {
    ground.apply([
        service_of("NodePort", "web"),
        server("b0", "n1").unready().lingering(10),
    ]);
    nobody(ground);
    ground.let_go("b0");
    for _ in 0..3 {
        nobody(ground);
    }
}

/// A service whose only endpoint, on n1, terminates and still serves.
fn only_one_who_leaves(ground: &Ground<'_>, service: Value) {
    ground.apply([service, server("b0", "n1").lingering(60)]);
    ground.let_go("b0");
}

pub(crate) fn b4_those_who_leave_serve_where_nobody_else_does(ground: &Ground<'_>) {
    only_one_who_leaves(ground, service("web"));
    let asks = ["base/c1", "base/c2", "node:n1", "node:n2"]
        .map(|from| ask(from, &ground.svc("web")).times(5));
    ground.answered_by(&["b0"], all_ways(asks));
}

pub(crate) fn b5_those_who_leave_serve_their_own_node(ground: &Ground<'_>) {
    only_one_who_leaves(
        ground,
        service("web").with("spec.internalTrafficPolicy", "Local"),
    );
    let asks = |from: &str| all_ways([ask(from, &ground.svc("web")).times(5)]);
    ground.answered_by(&["b0"], asks("base/c1"));
    ground.unanswered(asks("base/c2"));
}

pub(crate) fn b6_those_who_leave_serve_on_every_node(ground: &Ground<'_>) {
    only_one_who_leaves(ground, service_of("NodePort", "web"));
    let port = ground.node_port("web", 0);
    let mut asks = Vec::new();
    for from in ["base/c1", "base/c2", "world"] {
        asks.extend(["node:n1", "node:n2"].map(|to| ask(from, to).port(port).times(3)));
    }
    ground.answered_by(&["b0"], all_ways(asks));
}

pub(crate) fn b7_those_who_leave_serve_on_their_own_node_alone(ground: &Ground<'_>) {
    let local = service_of("NodePort", "web").with("spec.externalTrafficPolicy", "Local");
    only_one_who_leaves(ground, local);
    let port = ground.node_port("web", 0);
    let asks = |from: &str, to: &str| all_ways([ask(from, to).port(port).times(3)]);
    ground.answered_by(&["b0"], asks("base/c1", "node:n1"));
    ground.answered_by(&["b0"], asks("base/c2", "node:n1"));
    ground.answered_by(&["b0"], asks("world", "node:n1"));
    ground.unanswered(asks("world", "node:n2"));
    ground.unanswered(asks("base/c1", "node:n2"));
}

pub(crate) fn b8_connections_to_those_who_leave_live_on(ground: &Ground<'_>) {
    ground.apply([
        service("web"),
        server("b0", "n2").lingering(4),
        server("b1", "n1"),
    ]);
    let asks: Vec<_> = (0..12)
        .map(|number| {
            ask("base/c1", &ground.svc("web"))
                .set("source_port", 7100 + number)
                .set("keep", true)
                .set("count", 30)
                .set("interval_ms", 100)
        })
        .collect();
    let asks = both_protocols(asks);
    thread::scope(|scope| {
        let kept = scope.spawn(|| ground.answered(asks));
        eventually(Duration::from_secs(5), "connections to b0", || {
            ground
                .answered([ask("base/c3", &ground.svc("web")).times(10)])
                .len()
                == 1
        });
        thread::park_timeout(Duration::from_millis(300));
        ground.let_go("b0");
        let new = ["base/c1", "base/c2"].map(|from| ask(from, &ground.svc("web")).times(20));
        ground.answered_by(&["b1"], all_ways(new));
        // None broke, none moved, and some were to the one that left.
        let kept = kept.join().unwrap();
        let of = |name: &str| {
            kept.iter()
                .filter(|a| a["peers"].get(ground.own(name)).is_some())
                .count()
        };
        assert!(
            kept.iter()
                .all(|answer| answer["timeline"].as_array().unwrap().len() == 1)
        );
        assert!(
            of("b0") > 0 && of("b1") > 0,
            "{} and {}",
            of("b0"),
            of("b1")
        );
    });
}

pub(crate) fn b9_blue_gives_way_to_green_and_nobody_notices(ground: &Ground<'_>) {
    let [blue, green] = ["blue", "green"]
        .map(|colour| move |number: usize, node: &str| server(&format!("{colour}-{number}"), node));
    ground.apply([
        service("web"),
        blue(0, "n1").lingering(2),
        blue(1, "n2").lingering(2),
    ]);
    let asks = ["base/c1", "base/c3", "node:n2"].map(|from| {
        ask(from, &ground.svc("web"))
            .within(3000)
            .set("count", 400)
            .set("interval_ms", 10)
    });
    thread::scope(|scope| {
        let load = scope.spawn(|| ground.answered(both_families(asks)));
        ground.apply([green(0, "n2").unready(), green(1, "n1").unready()]);
        ground.apply([green(0, "n2"), green(1, "n1")]);
        ground.let_go("blue-0");
        ground.let_go("blue-1");
        load.join().unwrap();
    });
}

pub(crate) fn b10_pods_that_leave_are_pods_until_they_are_gone(ground: &Ground<'_>) {
    ground.apply([server("b0", "n1").lingering(30)]);
    ground.let_go("b0");
    let own = ground.own("b0");
    let asks = [
        ask("base/c1", &own),
        ask("base/c2", &own),
        ask(&own, "base/c2").set("serve", true),
    ];
    ground.answered(all_ways(asks));
}
