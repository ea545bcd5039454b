// SPDX-License-Identifier: Apache-2.0
//! F: clients that never pause while backends change.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use super::{
    ask::{Ask, ask, both_families},
    ground::Ground,
    objects::{With, server, service, service_of},
};

/// Three ways in which a client keeps asking from one port: with a new socket each time, with one that is connected,
/// and with one that is not.
fn restless(asks: impl IntoIterator<Item = Ask>, until: &str) -> Vec<Ask> {
    let asks: Vec<Ask> = asks.into_iter().collect();
    let mut all = Vec::new();
    for (number, ask) in both_families(asks).into_iter().enumerate() {
        let ask = ask
            .udp()
            .within(250)
            .set("interval_ms", 300)
            .set("count", 60)
            .set("until", until);
        let port = |way: usize| 7600 + 3 * number + way;
        all.push(ask.clone().set("source_port", port(0)));
        all.push(ask.clone().set("keep", true).set("source_port", port(1)));
        let ask = ask.set("keep", true).set("unconnected", true);
        all.push(ask.set("source_port", port(2)));
    }
    all
}

/// Starts the clients, changes something, and sees all of them answered by somebody else within 18 s.
fn follow(
    ground: &Ground<'_>,
    asks: impl IntoIterator<Item = Ask>,
    to: &str,
    change: impl FnOnce(),
) {
    let asks = restless(asks, &ground.own(to));
    thread::scope(|scope| {
        let clients = scope.spawn(|| ground.send(&asks));
        thread::park_timeout(Duration::from_millis(700));
        change();
        let answers = clients.join().unwrap();
        let wrong: Vec<String> = asks
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer["peers"].get(ground.own(to)).is_none())
            .map(|(ask, answer)| format!("{} -> {answer}", ask.0))
            .collect();
        assert!(wrong.is_empty(), "not followed:\n{}", wrong.join("\n"));
    });
}

/// One backend takes over from another.
fn replace(ground: &Ground<'_>, new: Value) -> impl FnOnce() {
    move || {
        ground.apply([new]);
        ground.delete("Pod", "b1");
    }
}

pub(crate) fn f1_node_ports_follow_their_pods(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b1", "n1")]);
    let port = ground.node_port("web", 0);
    let asks = ["world", "base/c3"].map(|from| ask(from, "node:n2").port(port));
    follow(ground, asks, "b2", replace(ground, server("b2", "n2")));
}

pub(crate) fn f2_cluster_ips_follow_their_pods(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b1", "n1")]);
    let asks = ["base/c1", "base/c3"].map(|from| ask(from, &ground.svc("web")));
    follow(ground, asks, "b2", replace(ground, server("b2", "n2")));
}

pub(crate) fn f3_local_services_follow_their_pods(ground: &Ground<'_>) {
    let local = service("web").with("spec.internalTrafficPolicy", "Local");
    ground.apply([local, server("b1", "n1").lingering(2)]);
    let asks = [ask("base/c1", &ground.svc("web"))];
    follow(ground, asks, "b2", || {
        ground.let_go("b1");
        ground.apply([server("b2", "n1")]);
    });
}

pub(crate) fn f4_clients_on_nodes_follow_too(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b1", "n1")]);
    let host = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "host"},
        "spec": {"nodeName": "n3", "hostNetwork": true, "containers": [{"name": "c"}]},
    });
    ground.apply([host]);
    let asks = ["node:n1", &ground.own("host")].map(|from| ask(from, &ground.svc("web")));
    follow(ground, asks, "b2", replace(ground, server("b2", "n2")));
}

pub(crate) fn f5_clients_may_be_earlier_than_endpoints(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b2", "n2").unready()]);
    let port = ground.node_port("web", 0);
    let asks = [
        ask("base/c1", &ground.svc("web")),
        ask("node:n1", &ground.svc("web")),
        ask("world", "node:n1").port(port),
    ];
    follow(ground, asks, "b2", || ground.apply([server("b2", "n2")]));
}

pub(crate) fn f6_target_ports_change(ground: &Ground<'_>) {
    let pod = |name: &str, number: u16| {
        server(name, "n1").with(
            "spec.containers.0.ports",
            json!([{"name": "dgram", "containerPort": number, "protocol": "UDP"}]),
        )
    };
    // Both on one node in the host network: the number alone tells them apart.
    let [one, two] =
        [pod("b1", 7680), pod("b2", 7690)].map(|pod| pod.with("spec.hostNetwork", true));
    let only = |number: u16| {
        service_of("NodePort", "web").with(
            "spec.ports",
            json!([{"name": "u", "port": 80, "protocol": "UDP", "targetPort": number}]),
        )
    };
    let by_name = |name: &str| json!({"app": name});
    let [one, two] =
        [("b1", one), ("b2", two)].map(|(name, pod)| pod.with("metadata.labels", by_name(name)));
    ground.apply([one, two, only(7680).with("spec.selector", by_name("b1"))]);
    let port = ground.node_port("web", 0);
    let asks = [
        ask("world", "node:n2").port(port),
        ask("base/c3", &ground.svc("web")),
    ];
    // The pod stays an endpoint; what answers on the new number is the other's server.
    follow(ground, asks, "b2", || {
        ground.apply([only(7690).with("spec.selector", by_name("b1"))]);
    });
}

pub(crate) fn f7_load_balancers_follow_their_pods(ground: &Ground<'_>) {
    ground.apply([service_of("LoadBalancer", "web"), server("b1", "n1")]);
    for (new, node) in [("b2", "n1"), ("b1", "n3")] {
        let old = if new == "b2" { "b1" } else { "b2" };
        let asks = [4].map(|family| ask("world", &ground.ingress("web", family)).family(family));
        let asks: Vec<Ask> = restless(asks, &ground.own(new))
            .into_iter()
            .filter(|ask| ask.0["family"] == 4)
            .collect();
        thread::scope(|scope| {
            let clients = scope.spawn(|| ground.send(&asks));
            thread::park_timeout(Duration::from_millis(700));
            ground.apply([server(new, node)]);
            ground.delete("Pod", old);
            for answer in clients.join().unwrap() {
                assert!(answer["peers"].get(ground.own(new)).is_some(), "{answer}");
            }
        });
    }
}

pub(crate) fn f9_connections_do_not_move(ground: &Ground<'_>) {
    ground.apply([service("web"), server("b1", "n2")]);
    let asks = both_families(["base/c1", "node:n1"].map(|from| ask(from, &ground.svc("web"))));
    let asks: Vec<Ask> = asks
        .into_iter()
        .map(|ask| {
            // Pods come and go between the two requests, on a busy machine too.
            ask.set("keep", true)
                .set("interval_ms", 8000)
                .set("count", 2)
        })
        .collect();
    thread::scope(|scope| {
        let clients = scope.spawn(|| ground.send(&asks));
        thread::park_timeout(Duration::from_millis(500));
        ground.apply([server("b2", "n3")]);
        ground.delete("Pod", "b1");
        for answer in clients.join().unwrap() {
            assert_eq!(answer["allowed"], false, "{answer}");
            assert!(answer["peers"].get(ground.own("b2")).is_none(), "{answer}");
        }
    });
}
