// SPDX-License-Identifier: Apache-2.0
//! C: node ports, external addresses, load balancers, host ports.

use std::thread;

use serde_json::{Value, json};

use super::{
    answer::{peers, sources},
    ask::{Ask, all_ways, ask, both_families, both_protocols},
    ground::{Ground, NODES},
    objects::{With, server, service, service_of},
};

/// From pods, nodes and outside.
const FROMS: [&str; 5] = ["base/c1", "base/c3", "node:n1", "node:n4", "world"];

/// A port of every node, asked from everywhere.
fn every_node(port: u64, times: u32) -> Vec<Ask> {
    let mut asks = Vec::new();
    for from in FROMS {
        asks.extend(NODES.map(|node| ask(from, &format!("node:{node}")).port(port).times(times)));
    }
    asks
}

fn local(kind: &str) -> Value {
    service_of(kind, "web").with("spec.externalTrafficPolicy", "Local")
}

/// Each source address of an answer.
fn seen(answer: &Value) -> Vec<String> {
    sources(answer).into_keys().collect()
}

fn address_of_node(node: &str, family: u8) -> String {
    let last = node.trim_start_matches('n').parse::<u32>().unwrap() + 1;
    match family {
        4 => format!("172.18.0.{last}"),
        _ => format!("fd00:18::{last}"),
    }
}

pub(crate) fn c1_node_ports_answer_on_every_node(ground: &Ground<'_>) {
    ground.apply([
        service_of("NodePort", "web"),
        server("b0", "n1"),
        server("b1", "n2"),
    ]);
    let port = ground.node_port("web", 0);
    for answer in ground.answered(both_families(every_node(port, 32))) {
        assert_eq!(peers(&answer).len(), 2, "{answer}");
    }
}

pub(crate) fn c2_answers_come_from_the_node_that_was_asked(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 1);
    let asks = every_node(port, 3).into_iter().map(Ask::udp);
    let asks: Vec<Ask> = asks
        .flat_map(|ask| [ask.clone(), ask.set("unconnected", true)])
        .collect();
    ground.answered_by(&["b0"], both_families(asks));
    // The checksum of SCTP covers the ports, so these stay as they are.
    let port = 31132;
    let sctp = json!([{"name": "s", "port": port, "nodePort": port, "protocol": "SCTP"}]);
    let pod = server("b0", "n2").with("spec.containers.0.ports.2.containerPort", port);
    ground.apply([service_of("NodePort", "web").with("spec.ports", sctp), pod]);
    // Nor is a node's own SCTP translated.
    let asks = every_node(port, 3).into_iter();
    let asks = asks.filter(|ask| !ask.0["from"].as_str().unwrap().starts_with("node:"));
    let asks = asks.map(|ask| ask.set("protocol", "sctp"));
    ground.answered_by(&["b0"], both_families(asks));
}

pub(crate) fn c3_node_ports_close(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n1")]);
    let port = ground.node_port("web", 0);
    let asks = || all_ways(["base/c1", "world"].map(|from| ask(from, "node:n2").port(port)));
    ground.answered(asks());
    ground.apply([service("web")]);
    ground.unanswered(asks());
}

pub(crate) fn c4_a_node_port_belongs_to_one_service(ground: &Ground<'_>) {
    let on = |name: &str, port: u16| {
        let service = service_of("NodePort", name);
        service.with(
            "spec.ports",
            json!([{"port": 80, "nodePort": port, "targetPort": "http"}]),
        )
    };
    ground.apply([on("web", 32000), server("b0", "n2")]);
    let words = ground.apply_in_vain([on("other", 32000)]);
    assert!(
        words.contains("provided port is already allocated"),
        "{words}"
    );
    let words = ground.apply_in_vain([on("other", 20000)]);
    assert!(words.contains("not in the valid range"), "{words}");
    ground.delete("Service", "web");
    ground.apply([on("other", 32000)]);
    ground.answered_by(
        &["b0"],
        both_families([ask("world", "node:n1").port(32000)]),
    );
}

pub(crate) fn c5_protocols_share_a_node_port(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 0);
    assert_eq!(ground.node_port("web", 1), port);
    let asks = ["base/c1", "world"].map(|from| ask(from, "node:n1").port(port));
    ground.answered_by(&["b0"], all_ways(asks));
}

pub(crate) fn c6_backends_elsewhere_see_the_node(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 0);
    for family in [4, 6] {
        let asks = both_protocols([ask("world", "node:n1").port(port).family(family).times(5)]);
        for answer in ground.answered(asks) {
            assert_eq!(seen(&answer), [address_of_node("n1", family)], "{answer}");
        }
    }
}

const WORLD: [(u8, &str); 2] = [(4, "203.0.113.10"), (6, "2001:db8:113::10")];

pub(crate) fn c7_local_node_ports_keep_the_client(ground: &Ground<'_>) {
    ground.apply([local("NodePort"), server("b0", "n1")]);
    let port = ground.node_port("web", 0);
    for (family, world) in WORLD {
        let asks = [ask("world", "node:n1").port(port).family(family).times(5)];
        for answer in ground.answered(both_protocols(asks)) {
            assert_eq!(seen(&answer), [world], "{answer}");
        }
    }
    let elsewhere = ["node:n2", "node:n3"].map(|to| ask("world", to).port(port));
    ground.unanswered(all_ways(elsewhere));
}

pub(crate) fn c8_the_cluster_itself_is_not_outside(ground: &Ground<'_>) {
    ground.apply([local("NodePort"), server("b0", "n1")]);
    let port = ground.node_port("web", 0);
    // A node that asks itself, and a pod that asks its own node.
    let asks = [
        ("node:n2", "node:n2"),
        ("base/c2", "node:n2"),
        ("base/c1", "node:n1"),
    ];
    let asks = asks.map(|(from, to)| ask(from, to).port(port).times(3));
    ground.answered_by(&["b0"], all_ways(asks));
}

/// What the health check of each node says: status and number of endpoints, none when nothing answers.
fn health(ground: &Ground<'_>, port: u64) -> Vec<Option<(u64, u64)>> {
    let asks = NODES.map(|node| {
        let ask = ask("world", &format!("node:{node}")).port(port);
        ask.set("http", "/healthz").within(1500)
    });
    let found = ground.send(&asks).into_iter().map(|answer| {
        let body: Value = serde_json::from_str(answer["body"].as_str()?).ok()?;
        Some((answer["status"].as_u64()?, body["localEndpoints"].as_u64()?))
    });
    found.collect()
}

fn health_port(ground: &Ground<'_>) -> u64 {
    ground.service("web")["spec"]["healthCheckNodePort"]
        .as_u64()
        .unwrap()
}

pub(crate) fn c9_health_checks_tell_where_endpoints_are(ground: &Ground<'_>) {
    ground.apply([
        local("LoadBalancer"),
        server("b0", "n1"),
        server("b1", "n1"),
        server("b2", "n3"),
    ]);
    let port = health_port(ground);
    assert_eq!(
        health(ground, port),
        [
            Some((200, 2)),
            Some((503, 0)),
            Some((200, 1)),
            Some((503, 0))
        ]
    );
    ground.delete("Pod", "b2");
    assert_eq!(health(ground, port)[2], Some((503, 0)));
    ground.apply([server("b1", "n1").unready()]);
    assert_eq!(health(ground, port)[0], Some((200, 1)));
}

pub(crate) fn c10_those_who_leave_serve_but_are_not_healthy(ground: &Ground<'_>) {
    ground.apply([local("LoadBalancer"), server("b0", "n1").lingering(60)]);
    let (check, port) = (health_port(ground), ground.node_port("web", 0));
    assert_eq!(health(ground, check)[0], Some((200, 1)));
    ground.let_go("b0");
    assert_eq!(health(ground, check)[0], Some((503, 0)));
    ground.answered_by(&["b0"], all_ways([ask("world", "node:n1").port(port)]));
}

pub(crate) fn c11_policies_change_on_all_nodes(ground: &Ground<'_>) {
    ground.apply([local("LoadBalancer"), server("b0", "n1")]);
    let (check, port) = (health_port(ground), ground.node_port("web", 0));
    let asks = |node: &str| both_families([ask("world", &format!("node:{node}")).port(port)]);
    for _ in 0..2 {
        ground.answered(asks("n1"));
        ground.unanswered(asks("n2"));
        assert_eq!(health(ground, check)[..2], [Some((200, 1)), Some((503, 0))]);
        ground.apply([service_of("LoadBalancer", "web")]);
        for node in NODES {
            ground.answered(asks(node));
        }
        assert_eq!(health(ground, check), [None; 4]);
        ground.apply([local("LoadBalancer").with("spec.healthCheckNodePort", check)]);
    }
}

pub(crate) fn c12_external_addresses_are_reached(ground: &Ground<'_>) {
    let addresses = json!(["203.0.113.250", "2001:db8:113::250"]);
    ground.apply([
        service("web").with("spec.externalIPs", addresses),
        server("b0", "n1"),
        server("b1", "n2"),
    ]);
    let mut asks = Vec::new();
    for from in ["base/c1", "base/c3", "node:n1", "node:n4", "world"] {
        asks.push(ask(from, "203.0.113.250").times(20));
        asks.push(ask(from, "2001:db8:113::250").family(6).times(20));
    }
    for answer in ground.answered(both_protocols(asks)) {
        assert_eq!(peers(&answer).len(), 2, "{answer}");
    }
}

/// What goes to the load balancer's addresses.
fn balanced(ground: &Ground<'_>, from: &str) -> Vec<Ask> {
    let asks = [4, 6].map(|family| {
        ask(from, &ground.ingress("web", family))
            .family(family)
            .times(4)
    });
    both_protocols(asks)
}

pub(crate) fn c13_load_balancers_are_reached_directly(ground: &Ground<'_>) {
    ground.apply([local("LoadBalancer"), server("b0", "n2")]);
    for from in FROMS {
        ground.answered_by(&["b0"], balanced(ground, from));
    }
    for family in [4, 6] {
        let own = ground.pod_ip("base/c1", family);
        let asks = [ask("base/c1", &ground.ingress("web", family))
            .family(family)
            .times(4)];
        for answer in ground.answered(both_protocols(asks)) {
            assert_eq!(seen(&answer), std::slice::from_ref(&own), "{answer}");
        }
    }
}

pub(crate) fn c14_the_addresses_of_a_proxy_are_left_to_it(ground: &Ground<'_>) {
    // The proxy is a host outside.
    let ingress = json!([{"ip": "203.0.113.11", "ipMode": "Proxy"}, {"ip": "2001:db8:113::11", "ipMode": "Proxy"}]);
    let service = service_of("LoadBalancer", "web").with("status.loadBalancer.ingress", ingress);
    ground.apply([service, server("b0", "n1")]);
    for from in ["base/c1", "base/c3", "node:n1", "world"] {
        let asks = [
            ask(from, "203.0.113.11"),
            ask(from, "2001:db8:113::11").family(6),
        ];
        for answer in ground.answered(both_protocols(asks)) {
            assert_eq!(answer["peer"], "external:other", "{answer}");
        }
    }
}

pub(crate) fn c15_source_ranges_shut_others_out(ground: &Ground<'_>) {
    ground.apply([server("b0", "n1"), server("b1", "n3")]);
    let with = |ranges: Value| {
        service_of("LoadBalancer", "web").with("spec.loadBalancerSourceRanges", ranges)
    };
    let check = |ranges: Value, good: &[&str], bad: &[&str]| {
        ground.apply([with(ranges)]);
        let all = |froms: &[&str]| -> Vec<Ask> {
            froms
                .iter()
                .flat_map(|from| balanced(ground, from))
                .collect()
        };
        ground.answered(all(good));
        let denied = all(bad).into_iter().map(|ask| ask.set("count", 1));
        ground.silent(denied);
    };
    let everybody = ["base/c1", "base/c3", "world"];
    let own = [
        format!("{}/32", ground.pod_ip("base/c1", 4)),
        format!("{}/128", ground.pod_ip("base/c1", 6)),
    ];
    check(json!(null), &everybody, &[]);
    check(json!(own), &["base/c1"], &["base/c3", "world"]);
    check(json!(["0.0.0.0/0", "::/0"]), &everybody, &[]);
    check(
        json!(["203.0.113.77/32", "2001:db8:113::77/128"]),
        &[],
        &everybody,
    );
    // The cluster IP and the node ports know no ranges.
    let port = ground.node_port("web", 0);
    ground.answered(all_ways([
        ask("base/c1", &ground.svc("web")),
        ask("world", "node:n2").port(port),
    ]));
    check(json!(null), &everybody, &[]);
}

pub(crate) fn c16_load_balancers_without_node_ports(ground: &Ground<'_>) {
    let without =
        service_of("LoadBalancer", "web").with("spec.allocateLoadBalancerNodePorts", false);
    ground.apply([without, server("b0", "n2")]);
    let before = ground.ingress("web", 4);
    assert_eq!(
        ground.service("web")["spec"]["ports"][0]["nodePort"],
        Value::Null
    );
    ground.answered_by(
        &["b0"],
        [balanced(ground, "world"), balanced(ground, "base/c1")].concat(),
    );
    ground.apply([service_of("LoadBalancer", "web")]);
    let port = ground.node_port("web", 0);
    assert_eq!(ground.ingress("web", 4), before);
    ground.answered_by(&["b0"], all_ways([ask("world", "node:n1").port(port)]));
}

pub(crate) fn c17_protocols_share_a_load_balancer(ground: &Ground<'_>) {
    let pod = server("b0", "n2").with("spec.containers.0.ports.1.containerPort", 81);
    ground.apply([service_of("LoadBalancer", "web"), pod]);
    ground.answered_by(&["b0"], balanced(ground, "world"));
}

pub(crate) fn c18_updates_under_load_lose_nothing(ground: &Ground<'_>) {
    for policy in ["Cluster", "Local"] {
        let service = service_of("LoadBalancer", "web").with("spec.externalTrafficPolicy", policy);
        let pod = |number: usize| {
            server(
                &format!("{}-{number}", policy.to_lowercase()),
                NODES[number % 2],
            )
            .lingering(2)
        };
        ground.apply([service, pod(0), pod(1)]);
        let asks = [4, 6].map(|family| {
            let ask = ask("world", &ground.ingress("web", family)).family(family);
            ask.set("count", 250).set("interval_ms", 10)
        });
        thread::scope(|scope| {
            let load = scope.spawn(|| ground.answered(asks));
            for number in 0..2 {
                ground.apply([pod(number + 2)]);
                ground.let_go(&format!("{}-{number}", policy.to_lowercase()));
            }
            load.join().unwrap();
        });
    }
}

pub(crate) fn c19_load_balancers_follow_their_pods(ground: &Ground<'_>) {
    ground.apply([local("LoadBalancer"), server("b0", "n1")]);
    ground.answered_by(&["b0"], balanced(ground, "world"));
    ground.apply([server("b1", "n3")]);
    ground.delete("Pod", "b0");
    ground.answered_by(&["b1"], balanced(ground, "world"));
    let check = health_port(ground);
    assert_eq!(
        health(ground, check),
        [
            Some((503, 0)),
            Some((503, 0)),
            Some((200, 1)),
            Some((503, 0))
        ]
    );
}

pub(crate) fn c20_host_ports_of_one_number_reach_their_own_pods(ground: &Ground<'_>) {
    let node = address_of_node("n1", 4);
    let pod = |name: &str, ip: &str, protocol: &str| {
        let port =
            json!([{"containerPort": 80, "hostPort": 7420, "hostIP": ip, "protocol": protocol}]);
        server(name, "n1").with("spec.containers.0.ports", port)
    };
    ground.apply([
        pod("loopback", "127.0.0.1", "TCP"),
        pod("stream", &node, "TCP"),
        pod("dgram", &node, "UDP"),
        // Without an address it is every address of the node, of both families.
        server("all", "n1").with(
            "spec.containers.0.ports",
            json!([{"containerPort": 80, "hostPort": 7421}]),
        ),
    ]);
    let ask = |from: &str, to: &str| ask(from, to).port(7420).times(3);
    ground.answered_by(&["loopback"], [ask("node:n1", "127.0.0.1")]);
    for from in ["base/c1", "base/c3", "node:n3", "world"] {
        ground.answered_by(&["stream"], [ask(from, "node:n1")]);
        ground.answered_by(&["dgram"], [ask(from, "node:n1").udp()]);
        ground.answered_by(&["all"], both_families([ask(from, "node:n1").port(7421)]));
    }
    ground.unanswered([ask("base/c1", "node:n2"), ask("world", "node:n2")]);
}

pub(crate) fn c21_node_ports_are_not_on_the_loopback_address(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n1")]);
    let port = ground.node_port("web", 0);
    ground.unanswered([
        ask("node:n1", "127.0.0.1").port(port),
        ask("node:n1", "::1").family(6).port(port),
    ]);
}

pub(crate) fn c22_a_pod_reaches_itself_through_its_node(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n1")]);
    let port = ground.node_port("web", 0);
    let asks = ["node:n1", "node:n2"].map(|to| ask(&ground.own("b0"), to).port(port).times(5));
    ground.answered_by(&["b0"], all_ways(asks));
}

pub(crate) fn c23_backends_hear_of_narrow_paths(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 0).to_string();
    ground.lab.set_mtu_of_world(1300);
    let moved = ["node:n1", "node:n2"].map(|to| {
        ["4", "6"].map(|family| {
            let words = [
                "transfer",
                "--from",
                "world",
                "--to",
                to,
                "--port",
                &port,
                "--family",
                family,
                "--send",
                "200000",
                "--receive",
                "2000000",
                "--timeout",
                "20s",
            ];
            ground.lab.run(&words)
        })
    });
    ground.lab.set_mtu_of_world(1500);
    for output in moved.iter().flatten() {
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
    }
}

pub(crate) fn c24_fragments_go_where_the_first_one_goes(ground: &Ground<'_>) {
    ground.apply([
        service_of("NodePort", "web"),
        server("b0", "n1"),
        server("b1", "n2"),
    ]);
    let port = ground.node_port("web", 0);
    let asks = [
        ask("base/c1", &ground.svc("web")),
        ask("base/c3", &ground.svc("web")),
        ask("node:n3", &ground.svc("web")),
        ask("base/c3", "node:n1").port(port),
        ask("world", "node:n1").port(port),
        ask("world", "node:n3").port(port),
    ];
    let asks = asks.map(|ask| ask.udp().set("size", 9000).times(24));
    for answer in ground.answered(both_families(asks)) {
        assert_eq!(peers(&answer).len(), 2, "{answer}");
    }
}
