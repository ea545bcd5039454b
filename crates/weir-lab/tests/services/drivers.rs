// SPDX-License-Identifier: Apache-2.0
//! C26: drivers of the underlay devices forward what goes to backends on other nodes, and nobody notices but the node.

use std::thread;

use super::{
    answer::{peers, sources},
    ask::{all_ways, ask},
    ground::{Ground, NODES},
    objects::{server, service_of},
};

/// Packets that the drivers of a node have forwarded.
fn forwarded(ground: &Ground<'_>, node: &str) -> u64 {
    let listed = ground.on_node(node, &["weir", "map", "get", "counters"]);
    let line = listed.lines().find(|line| line.contains("accelerated"));
    let value = line.and_then(|line| line.split_whitespace().nth(1));
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or_else(|| panic!("no such counter in\n{listed}"))
}

pub(crate) fn c26_drivers_forward_to_backends_elsewhere(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 0);
    // Where the next hop is not known yet, the kernel has to find it.
    ground.answered(all_ways([ask("world", "node:n1").port(port)]));
    let before = forwarded(ground, "n1");
    let one = ask("world", "node:n1").port(port).set("keep", true);
    for answer in ground.answered(all_ways([one.times(40)])) {
        assert_eq!(peers(&answer).len(), 1, "{answer}");
        assert_eq!(sources(&answer).len(), 1, "{answer}");
    }
    // Four connections that ask forty times: each packet but the first ones and those that the node has to look at.
    let driven = forwarded(ground, "n1") - before;
    let directions = if ground.variant.mode == "dsr" { 1 } else { 2 };
    assert!(driven >= 4 * 30 * directions, "{driven} packets");
    // The backend's own node has nothing to forward.
    let before = forwarded(ground, "n2");
    let near = ask("world", "node:n2").port(port).set("keep", true);
    ground.answered(all_ways([near.times(40)]));
    assert_eq!(forwarded(ground, "n2"), before);
    let status = ground.on_node("n1", &["weir", "status", "--verbose"]);
    let how = ground.variant.acceleration;
    assert!(status.contains(&format!("eth0 {how}")), "{status}");
}

pub(crate) fn c26_forwarding_survives_agents(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 0);
    let kept = ask("world", "node:n1").port(port).set("keep", true);
    let kept = all_ways([kept.set("interval_ms", 200).times(20)]);
    thread::scope(|scope| {
        let kept = scope.spawn(|| ground.answered(kept));
        for node in NODES {
            ground.lab.text(&["restart-agent", node, "--kill"]);
        }
        for answer in kept.join().unwrap() {
            assert_eq!(sources(&answer).len(), 1, "{answer}");
        }
    });
}
