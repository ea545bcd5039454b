// SPDX-License-Identifier: Apache-2.0
//! A: cluster IPs.

use std::time::Instant;

use serde_json::{Value, json};

use super::{
    answer::sources,
    ask::{Ask, all_ways, ask, both_families, both_protocols},
    ground::{CLIENTS, Ground, NODES},
    objects::{With, server, service, service_of, slice},
};

pub(crate) fn a1_connections_reach_every_backend(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b0", "n1"), server("b1", "n2")]);
    let asks = CLIENTS.map(|client| ask(client, &ground.svc("web")).times(50));
    for answer in ground.answered(all_ways(asks)) {
        assert_eq!(answer["peers"].as_object().unwrap().len(), 2, "{answer}");
    }
}

pub(crate) fn a2_each_port_follows_its_pods(ground: &Ground<'_>) {
    let two = service("web").with(
        "spec.ports",
        json!([
            {"name": "a", "port": 80, "targetPort": "one"},
            {"name": "b", "port": 81, "targetPort": "two"},
        ]),
    );
    let pod = |name: &str, port: &str, number: u16| {
        server(name, "n2").with(
            "spec.containers.0.ports",
            json!([{"name": port, "containerPort": number}]),
        )
    };
    let first = || both_families([ask("base/c1", &ground.svc("web"))]);
    let second = || both_families([ask("base/c1", &ground.svc("web")).port(81)]);
    ground.apply([two]);
    ground.refused(first());
    ground.refused(second());
    ground.apply([pod("b0", "one", 100)]);
    ground.answered_by(&["b0"], first());
    ground.refused(second());
    ground.apply([pod("b1", "two", 101)]);
    ground.answered_by(&["b0"], first());
    ground.answered_by(&["b1"], second());
    ground.delete("Pod", "b0");
    ground.refused(first());
    ground.answered_by(&["b1"], second());
}

pub(crate) fn a3_ports_come_and_go(ground: &Ground<'_>) {
    let old = || both_families([ask("base/c1", &ground.svc("web")).times(5)]);
    let new = || both_families([ask("base/c1", &ground.svc("web")).port(8000).times(5)]);
    let more = service("web").with(
        "spec.ports.3",
        json!({"name": "x", "port": 8000, "targetPort": "http"}),
    );
    ground.apply([
        service("web").with(
            "spec.ports.3",
            json!({"name": "y", "port": 9, "targetPort": "http"}),
        ),
        server("b0", "n2"),
    ]);
    ground.unanswered(new());
    ground.apply([more]);
    ground.answered(old());
    ground.answered(new());
    ground.apply([service("web")]);
    ground.answered(old());
    ground.unanswered(new());
}

pub(crate) fn a4_backends_see_the_clients_own_address(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b0", "n1"), server("b1", "n2")]);
    for family in [4, 6] {
        for client in ["base/c1", "base/c2", "base/c3"] {
            let own = ground.pod_ip(client, family);
            let asks = [ask(client, &ground.svc("web")).family(family).times(10)];
            for answer in ground.answered(both_protocols(asks)) {
                let seen = sources(&answer);
                assert_eq!(seen.keys().collect::<Vec<_>>(), [&own], "{answer}");
            }
        }
    }
}

pub(crate) fn a5_a_pod_reaches_itself_through_its_service(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b0", "n1")]);
    let asks = [ask(&ground.own("b0"), &ground.svc("web")).times(5)];
    ground.answered_by(&["b0"], all_ways(asks));
}

pub(crate) fn a6_a_backend_reaches_all_and_itself(ground: &Ground<'_>) {
    ground.apply([
        service("web"),
        server("b0", "n1"),
        server("b1", "n1"),
        server("b2", "n2"),
    ]);
    let asks = [ask(&ground.own("b0"), &ground.svc("web")).times(60)];
    ground.answered_by(&["b0", "b1", "b2"], all_ways(asks.clone()));
    let sctp = asks.map(|ask| ask.set("protocol", "sctp"));
    ground.answered_by(&["b0", "b1", "b2"], both_families(sctp));
}

pub(crate) fn a7_services_with_one_name_do_not_meet(ground: &Ground<'_>) {
    let other = |name: &str| server(name, "n2").with_in("metadata.labels", "app", "other");
    let of_other = |name: &str| service(name).with_in("spec.selector", "app", "other");
    ground.apply([service("web"), server("b0", "n2"), other("b1")]);
    let old = ground.vip("web", 4);
    ground.answered_by(&["b0"], both_protocols([ask("base/c1", &old)]));
    ground.delete("Service", "web");
    ground.unanswered(both_protocols([ask("base/c1", &old)]));
    // The address goes to whoever comes next.
    ground.apply([of_other("between")]);
    assert_eq!(ground.vip("between", 4), old);
    ground.apply([service("web")]);
    ground.answered_by(&["b1"], both_protocols([ask("base/c1", &old).times(10)]));
    let again = ask("base/c1", &ground.svc("web")).times(10);
    ground.answered_by(&["b0"], both_protocols([again]));
}

pub(crate) fn a8_a_service_without_endpoints_refuses_at_once(ground: &Ground<'_>) {
    ground.apply([service("web")]);
    let begin = Instant::now();
    let asks = ["base/c1", "base/c2", "node:n1"].map(|from| ask(from, &ground.svc("web")));
    ground.refused(all_ways(asks));
    assert!(begin.elapsed().as_secs() < 3, "{:?}", begin.elapsed());
}

pub(crate) fn a9_failed_pods_are_never_endpoints(ground: &Ground<'_>) {
    let failed = server("b0", "n1").with(
        "status",
        json!({"phase": "Failed", "reason": "Evicted", "podIP": "10.244.1.200"}),
    );
    let published = service("web").with("spec.publishNotReadyAddresses", true);
    ground.apply([published, failed]);
    ground.refused([ask("base/c1", &ground.svc("web"))]);
}

pub(crate) fn a10_endpoints_that_appear_are_used_by_the_same_ports(ground: &Ground<'_>) {
    ground.apply([service("web")]);
    let asks = || {
        let asks = [
            ask("base/c1", &ground.svc("web")),
            ask("node:n1", &ground.svc("web")),
        ];
        all_ways(asks.map(|ask| ask.set("source_port", 7010)))
    };
    ground.refused(asks());
    ground.apply([server("b0", "n2")]);
    ground.answered_by(&["b0"], asks());
}

pub(crate) fn a11_protocols_of_one_port_are_apart(ground: &Ground<'_>) {
    let pod = server("b0", "n2").with(
        "spec.containers.0.ports",
        json!([
            {"name": "http", "containerPort": 8080},
            {"name": "dgram", "containerPort": 9090, "protocol": "UDP"},
        ]),
    );
    ground.apply([service("web"), pod]);
    let tcp = || both_families([ask("base/c1", &ground.svc("web"))]);
    let udp = || both_families([ask("base/c1", &ground.svc("web")).udp()]);
    ground.answered_by(&["b0"], tcp());
    ground.answered_by(&["b0"], udp());
    let tcp_only = json!([{"name": "t", "port": 80, "targetPort": "http"}]);
    ground.apply([service("web").with("spec.ports", tcp_only)]);
    ground.answered_by(&["b0"], tcp());
    ground.unanswered(udp());
}

pub(crate) fn a12_answers_come_from_the_service_that_was_asked(ground: &Ground<'_>) {
    let ports = |number: u16| {
        json!([
            {"name": "t", "port": number, "targetPort": "http"},
            {"name": "u", "port": number, "protocol": "UDP", "targetPort": "dgram"},
        ])
    };
    ground.apply([
        service("one"),
        service("two").with("spec.ports", ports(81)),
        server("b0", "n2"),
    ]);
    for family in [4, 6] {
        let vips = ["one", "two"].map(|name| ground.vip(name, family));
        let asks = |same_port: bool| {
            [("one", 80, 0), ("two", 81, 1)].map(|(name, port, place)| {
                ask("base/c1", &ground.svc(name))
                    .port(port)
                    .family(family)
                    .set("source_port", if same_port { 7012 } else { 7013 + place })
                    .set("keep", true)
                    .set("count", 5)
                    .set("interval_ms", 200)
            })
        };
        let check = |asks: &[Ask], vips: &[String]| {
            for (answer, vip) in ground.answered(asks.to_vec()).iter().zip(vips) {
                let remote = answer["remote"].as_str().unwrap();
                assert!(remote.contains(vip.as_str()), "{answer}");
            }
        };
        // Two sockets that are translated to one backend cannot have one port: to the kernel they would be the same.
        let connected = asks(!ground.variant.socket_lb);
        check(&connected, &vips);
        check(&connected.map(Ask::udp), &vips);
        // One after the other: which of two sockets on a port gets a datagram is nobody's choice.
        for (ask, vip) in asks(true).into_iter().zip(&vips) {
            let ask = ask.udp().set("unconnected", true);
            check(&[ask], std::slice::from_ref(vip));
        }
    }
}

pub(crate) fn a13_a_port_may_have_other_numbers_in_other_pods(ground: &Ground<'_>) {
    let pod = |name: &str, number: u16| {
        server(name, "n2").with("spec.containers.0.ports.0.containerPort", number)
    };
    ground.apply([service("web"), pod("b0", 8080), pod("b1", 9090)]);
    let asks = || both_families([ask("base/c1", &ground.svc("web")).times(30)]);
    ground.answered_by(&["b0", "b1"], asks());
    ground.delete("Pod", "b0");
    ground.apply([pod("b2", 7070)]);
    ground.answered_by(&["b1", "b2"], asks());
}

pub(crate) fn a14_sidecars_have_ports_too(ground: &Ground<'_>) {
    let pod = server("b0", "n2").with("spec.containers.0.ports", json!([])).with(
        "spec.initContainers",
        json!([{"name": "side", "restartPolicy": "Always", "ports": [{"name": "http", "containerPort": 8080}]}]),
    );
    let both = json!([
        {"name": "named", "port": 80, "targetPort": "http"},
        {"name": "number", "port": 81, "targetPort": 8080},
    ]);
    ground.apply([service("web").with("spec.ports", both), pod]);
    let asks = [80, 81].map(|port| ask("base/c1", &ground.svc("web")).port(port));
    ground.answered_by(&["b0"], both_families(asks));
}

pub(crate) fn a15_slices_by_hand_are_taken_together(ground: &Ground<'_>) {
    ground.apply(["b0", "b1", "b2"].map(|name| server(name, "n2")));
    let ip = |name: &str| ground.pod_ip(&ground.own(name), 4);
    let endpoint =
        |name: &str, ready: bool| json!({"addresses": [ip(name)], "conditions": {"ready": ready}});
    let by_hand = |ports: Value| {
        let ports = service("web").with("spec.ports", ports);
        ports
            .with("spec.selector", json!(null))
            .with("spec.ipFamilyPolicy", "SingleStack")
    };
    let web = json!([{"name": "p1", "port": 80, "targetPort": 80}, {"name": "p2", "port": 81, "targetPort": 80}]);
    let port = |name: &str| json!([{"name": name, "port": 80, "protocol": "TCP"}]);
    ground.apply([
        by_hand(web),
        slice(
            "s1",
            "web",
            &port("p1"),
            &json!([endpoint("b0", true), endpoint("b1", true)]),
        ),
        slice(
            "s2",
            "web",
            &port("p1"),
            &json!([endpoint("b1", true), endpoint("b2", false)]),
        ),
        slice("s3", "web", &port("p2"), &json!([endpoint("b2", true)])),
    ]);
    let first = ask("base/c1", &ground.svc("web")).times(100);
    let answers = ground.answered([first]);
    let peers = answers[0]["peers"].as_object().unwrap();
    let share = |name: &str| {
        peers
            .get(&ground.own(name))
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    // The one in both slices counts once: far from the two thirds that it would have had.
    assert!((25..=75).contains(&share("b1")), "{peers:?}");
    assert_eq!(share("b2"), 0, "{peers:?}");
    ground.answered_by(
        &["b2"],
        [ask("base/c1", &ground.svc("web")).port(81).times(20)],
    );
}

pub(crate) fn a16_the_network_of_nodes_reaches_services(ground: &Ground<'_>) {
    let host = |number: usize| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("h{number}")},
            "spec": {"nodeName": NODES[number], "hostNetwork": true, "containers": [{"name": "c"}]},
        })
    };
    ground.apply([
        service("web"),
        server("b0", "n1"),
        server("b1", "n2"),
        host(0),
        host(2),
    ]);
    let mut from: Vec<String> = NODES.iter().map(|node| format!("node:{node}")).collect();
    from.extend(["h0", "h2"].map(|name| ground.own(name)));
    let asks = from
        .iter()
        .map(|from| ask(from, &ground.svc("web")).times(20));
    for answer in ground.answered(all_ways(asks)) {
        assert_eq!(answer["peers"].as_object().unwrap().len(), 2, "{answer}");
    }
}

pub(crate) fn a17_a_port_without_a_service_leads_nowhere(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b0", "n2")]);
    let lost = || {
        let counters = ground.lab.text(&[
            "underlay",
            "--",
            "cat",
            "/proc/net/netstat",
            "/proc/net/snmp6",
        ]);
        // The router has no route to cluster IPs: what reaches it is counted.
        let lines: Vec<&str> = counters
            .lines()
            .filter(|line| line.starts_with("IpExt:"))
            .collect();
        let at = lines[0]
            .split(' ')
            .position(|word| word == "InNoRoutes")
            .unwrap();
        let v4: u64 = lines[1].split(' ').nth(at).unwrap().parse().unwrap();
        let v6 = counters
            .lines()
            .find_map(|line| line.strip_prefix("Ip6InNoRoutes"));
        v4 + v6.unwrap().trim().parse::<u64>().unwrap()
    };
    let before = lost();
    let asks = ["base/c1", "node:n1"].map(|from| ask(from, &ground.svc("web")).port(4321));
    ground.unanswered(all_ways(asks));
    assert_eq!(
        lost(),
        before,
        "packets to a cluster IP have left the nodes"
    );
    ground.answered(all_ways([ask("base/c1", &ground.svc("web"))]));
}

pub(crate) fn a19_services_of_another_proxy_are_left_to_it(ground: &Ground<'_>) {
    let label = "service.kubernetes.io/service-proxy-name";
    let foreign = || service("web").with_in("metadata.labels", label, "other");
    served_without_label(ground, foreign);
}

pub(crate) fn a20_services_labelled_headless_are_left_alone(ground: &Ground<'_>) {
    let label = "service.kubernetes.io/headless";
    let headless = || service("web").with_in("metadata.labels", label, "");
    served_without_label(ground, headless);
}

fn served_without_label(ground: &Ground<'_>, labelled: impl Fn() -> Value) {
    let asks = || all_ways([ask("base/c1", &ground.svc("web"))]);
    ground.apply([labelled(), server("b0", "n2")]);
    ground.unanswered(asks());
    ground.apply([service("web")]);
    ground.answered(asks());
    ground.apply([labelled()]);
    ground.unanswered(asks());
}

pub(crate) fn a21_types_change(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b0", "n2")]);
    let vip = ground.vip("web", 4);
    let cluster = || both_protocols([ask("base/c1", &vip)]);
    ground.answered(cluster());
    ground.apply([service_of("NodePort", "web")]);
    let port = ground.node_port("web", 0);
    let node = || both_protocols(["node:n1", "node:n3"].map(|to| ask("base/c1", to).port(port)));
    ground.answered(cluster());
    ground.answered(node());
    let external = service_of("ExternalName", "web").with("spec.externalName", "example.org");
    ground.apply([external.with("spec.ipFamilyPolicy", json!(null))]);
    ground.unanswered(cluster());
    ground.unanswered(node());
    ground.apply([service_of("NodePort", "web")]);
    let again = ask("base/c1", &ground.svc("web"));
    ground.answered(both_protocols([again]));
    ground.apply([service("web")]);
    ground.unanswered(node());
}

pub(crate) fn a22_services_go_on_without_agents(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b0", "n1"), server("b1", "n2")]);
    let asks = || {
        let froms = ["base/c1", "base/c2", "node:n1"];
        all_ways(froms.map(|from| ask(from, &ground.svc("web")).times(10)))
    };
    ground.answered(asks());
    for node in ["n1", "n2"] {
        ground.lab.text(&["stop-agent", node]);
    }
    ground.answered(asks());
    for node in ["n1", "n2"] {
        ground.lab.text(&["start-agent", node]);
    }
    ground.answered(asks());
}
