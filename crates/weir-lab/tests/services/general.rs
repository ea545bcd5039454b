// SPDX-License-Identifier: Apache-2.0
//! G: what services have to do whatever they are.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    answer::peers,
    ask::{Ask, all_ways, ask, both_families, both_protocols},
    ground::{CLIENTS, Ground, NODES},
    objects::{With, server, service, service_of},
};

pub(crate) fn g1_everyone_reaches_every_endpoint(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web")]);
    ground.apply(NODES.map(|node| server(&format!("b-{node}"), node)));
    let port = ground.node_port("web", 0);
    let mut froms: Vec<String> = CLIENTS.map(ToOwned::to_owned).to_vec();
    froms.extend(NODES.map(|node| format!("node:{node}")));
    froms.extend(NODES.map(|node| ground.own(&format!("b-{node}"))));
    let mut asks: Vec<Ask> = froms
        .iter()
        .map(|from| ask(from, &ground.svc("web")).times(60))
        .collect();
    asks.extend(
        ["n1", "n3"].map(|node| ask("world", &format!("node:{node}")).port(port).times(60)),
    );
    let mut asks = all_ways(asks);
    // A node's own SCTP is not translated: the kernel's hooks on sockets are not for SCTP.
    let pods = froms.iter().filter(|from| !from.starts_with("node:"));
    let sctp = pods.map(|from| ask(from, &ground.svc("web")));
    let sctp = sctp.map(|ask| ask.set("protocol", "sctp").times(60));
    asks.extend(both_families(sctp));
    for answer in ground.answered(asks) {
        assert_eq!(peers(&answer).len(), NODES.len(), "{answer}");
    }
}

pub(crate) fn g2_deleted_pods_are_never_asked(ground: &Ground<'_>) {
    ground.apply([
        service("web"),
        server("b0", "n1"),
        server("b1", "n2"),
        server("b2", "n3"),
    ]);
    let asks = || {
        all_ways(
            ["base/c1", "base/c4", "node:n2"].map(|from| ask(from, &ground.svc("web")).times(40)),
        )
    };
    ground.answered_by(&["b0", "b1", "b2"], asks());
    ground.delete("Pod", "b1");
    ground.answered_by(&["b0", "b2"], asks());
}

pub(crate) fn g3_requests_may_be_large(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b0", "n1"), server("b1", "n2")]);
    let froms = ["base/c1", "base/c3", "node:n1"];
    let asks = froms.map(|from| ask(from, &ground.svc("web")).set("size", 20000).times(10));
    ground.answered_by(&["b0", "b1"], all_ways(asks));
}

pub(crate) fn g4_endpoints_may_be_in_the_host_network(ground: &Ground<'_>) {
    let ports = json!([
        {"name": "http", "containerPort": 7740},
        {"name": "dgram", "containerPort": 7740, "protocol": "UDP"},
    ]);
    let host = |name: &str, node: &str| {
        let pod = server(name, node).with("spec.hostNetwork", true);
        pod.with("spec.containers.0.ports", ports.clone())
    };
    ground.apply([
        service_of("NodePort", "web"),
        host("b0", "n1"),
        host("b1", "n3"),
    ]);
    let port = ground.node_port("web", 0);
    let froms = ["base/c1", "base/c2", "base/c3", "node:n1", "node:n2"];
    let mut asks: Vec<Ask> = froms
        .iter()
        .map(|from| ask(from, &ground.svc("web")).times(20))
        .collect();
    asks.extend(["node:n1", "node:n2"].map(|to| ask("world", to).port(port).times(20)));
    for answer in ground.answered(all_ways(asks)) {
        assert_eq!(peers(&answer).len(), 2, "{answer}");
    }
}

pub(crate) fn g5_pods_see_each_other(ground: &Ground<'_>) {
    ground.apply([server("b0", "n1"), server("b1", "n2")]);
    for family in [4, 6] {
        let own = ground.pod_ip("base/c1", family);
        let asks = ["b0", "b1"].map(|pod| ask("base/c1", &ground.own(pod)).family(family));
        for answer in ground.answered(both_protocols(asks)) {
            let seen = super::answer::sources(&answer);
            assert_eq!(seen.keys().collect::<Vec<_>>(), [&own], "{answer}");
        }
    }
}

pub(crate) fn g6_services_have_the_families_that_they_want(ground: &Ground<'_>) {
    ground.apply([server("b0", "n1"), server("b1", "n2")]);
    for (policy, families) in [
        ("SingleStack", json!(["IPv4"])),
        ("SingleStack", json!(["IPv6"])),
        ("RequireDualStack", json!(["IPv4", "IPv6"])),
        ("RequireDualStack", json!(["IPv6", "IPv4"])),
    ] {
        let first = if families[0] == "IPv4" { 4 } else { 6 };
        let wanted = families.as_array().unwrap().len();
        let web = service_of("NodePort", "web").with("spec.ipFamilyPolicy", policy);
        ground.apply([web.with("spec.ipFamilies", families)]);
        let vips = ground.service("web")["spec"]["clusterIPs"]
            .as_array()
            .unwrap()
            .clone();
        assert_eq!(vips.len(), wanted);
        assert_eq!(vips[0].as_str().unwrap().contains(':'), first == 6);
        let port = ground.node_port("web", 0);
        for family in [4, 6] {
            let asks =
                both_protocols([ask("world", "node:n1").port(port).family(family).times(10)]);
            if wanted == 1 && family != first {
                ground.unanswered(asks);
                continue;
            }
            ground.answered_by(&["b0", "b1"], asks);
            let asks = ["base/c1", "node:n3"]
                .map(|from| ask(from, &ground.svc("web")).family(family).times(10));
            ground.answered_by(&["b0", "b1"], both_protocols(asks));
        }
        ground.delete("Service", "web");
    }
}

pub(crate) fn g8_changes_are_quick(ground: &Ground<'_>) {
    ground.apply([server("b0", "n1")]);
    let mut times: Vec<Duration> = (0..10)
        .map(|number| {
            let begin = Instant::now();
            let name = format!("web-{number}");
            ground.apply([service(&name)]);
            ground.answered([ask("base/c2", &ground.svc(&name))]);
            begin.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[5] < Duration::from_secs(1), "{times:?}");
}

pub(crate) fn g9_the_largest_packet_of_a_pod_fits(ground: &Ground<'_>) {
    ground.apply([server("b0", "n1"), server("b1", "n2")]);
    let read = ["exec", "base/c1", "--", "cat", "/sys/class/net/eth0/mtu"];
    let mtu: u32 = ground.lab.text(&read).trim().parse().unwrap();
    for pod in ["b0", "b1"] {
        for (family, headers) in [(4, 28), (6, 48)] {
            // Sent whole, with "don't fragment".
            let ping = ask("base/c1", &ground.own(pod)).family(family);
            let ping = ping.set("protocol", "icmp").set("size", mtu - headers);
            ground.answered([ping]);
        }
    }
}

pub(crate) fn g10_connections_outlive_agents(ground: &Ground<'_>) {
    ground.apply([
        service_of("NodePort", "web"),
        server("b0", "n1"),
        server("b1", "n2"),
    ]);
    let port = ground.node_port("web", 0);
    let froms = ["base/c1", "base/c2", "node:n1"];
    let mut asks: Vec<Ask> = froms.map(|from| ask(from, &ground.svc("web"))).to_vec();
    asks.push(ask("world", "node:n1").port(port));
    let asks: Vec<Ask> = both_protocols(both_families(asks))
        .into_iter()
        .map(|ask| {
            // A datagram counts as lost when the next one is due: not before an answer can be late on a busy machine.
            ask.set("keep", true)
                .set("interval_ms", 250)
                .set("count", 40)
        })
        .collect();
    thread::scope(|scope| {
        let kept = scope.spawn(|| ground.answered(asks));
        for node in ["n1", "n2"] {
            ground.lab.text(&["restart-agent", node, "--kill"]);
        }
        for answer in kept.join().unwrap() {
            assert_eq!(peers(&answer).len(), 1, "{answer}");
        }
    });
    ground.answered_by(
        &["b0", "b1"],
        both_families([ask("base/c1", &ground.svc("web")).times(20)]),
    );
}
