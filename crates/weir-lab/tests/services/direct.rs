// SPDX-License-Identifier: Apache-2.0
//! C25: backends on other nodes answer clients from outside themselves, in the name of the service.

use std::thread;

use serde_json::{Value, json};

use super::{
    answer::sources,
    ask::{Ask, ask, both_families, both_protocols},
    ground::Ground,
    objects::{With, server, service_of},
};

const WORLD: [(u8, &str); 2] = [(4, "203.0.113.10"), (6, "2001:db8:113::10")];
/// On no node; the network brings them to the first one.
const EXTERNAL: [&str; 2] = ["203.0.113.250", "2001:db8:113::250"];

/// A node that has no way to the client cannot answer it, nor send on what others answer. There is
/// one again when this is dropped.
struct NoWayBack<'a> {
    ground: &'a Ground<'a>,
    node: &'static str,
}

impl<'a> NoWayBack<'a> {
    fn from(ground: &'a Ground<'a>, node: &'static str) -> Self {
        let cut = Self { ground, node };
        cut.change("add");
        cut
    }

    fn change(&self, verb: &str) {
        for (family, world) in WORLD {
            let (family, to) = (format!("-{family}"), world);
            let words = ["ip", &family, "route", verb, "unreachable", to];
            self.ground.on_node(self.node, &words);
        }
    }
}

impl Drop for NoWayBack<'_> {
    fn drop(&mut self) {
        self.change("del");
    }
}

/// Connections that a node follows with a client outside.
fn followed(ground: &Ground<'_>, node: &str) -> Vec<Value> {
    let words = ["weir", "bpf", "ct", "list", "global", "-o", "json"];
    let listed: Value = serde_json::from_str(&ground.on_node(node, &words)).unwrap();
    let flows = listed.as_array().or_else(|| listed["flows"].as_array());
    let outside = |flow: &&Value| {
        WORLD.iter().any(|(_, world)| {
            [
                &flow["source"],
                &flow["destination"],
                &flow["translated"]["destination"],
            ]
            .into_iter()
            .any(|end| *end == json!(world))
        })
    };
    flows.unwrap().iter().filter(outside).cloned().collect()
}

pub(crate) fn c25_backends_answer_clients_themselves(ground: &Ground<'_>) {
    ground.apply([
        service_of("LoadBalancer", "web").with("spec.externalIPs", json!(EXTERNAL)),
        server("b0", "n2"),
    ]);
    let port = ground.node_port("web", 0);
    let cut = NoWayBack::from(ground, "n1");
    for (family, world) in WORLD {
        let asks = [ask("world", "node:n1").port(port).family(family).times(5)];
        for answer in ground.answered(both_protocols(asks)) {
            let seen: Vec<_> = sources(&answer).into_keys().collect();
            assert_eq!(seen, [world], "{answer}");
        }
    }
    let flows = followed(ground, "n1");
    // Rows before this one may have had a backend on the node itself.
    let backend = [4, 6].map(|family| ground.pod_ip(&ground.own("b0"), family));
    let is_reply = |flow: &&Value| {
        backend
            .iter()
            .any(|address| flow["source"] == json!(address))
    };
    // How many there were before says nothing: old ones end at any time.
    let is_sent_on = |flow: &Value| {
        let to = &flow["translated"]["destination"];
        backend.iter().any(|address| *to == json!(address))
    };
    assert!(flows.iter().any(is_sent_on), "{flows:?}");
    let replies: Vec<_> = flows.iter().filter(is_reply).collect();
    assert!(replies.is_empty(), "{replies:?}");
    drop(cut);

    // Whichever node the network asks for addresses that are nobody's own.
    for (family, world) in WORLD {
        let place = usize::from(family == 6);
        let ways = [ground.ingress("web", family), EXTERNAL[place].to_owned()];
        let asks = ways.map(|to| ask("world", &to).family(family).times(5));
        for answer in ground.answered(both_protocols(asks)) {
            let seen: Vec<_> = sources(&answer).into_keys().collect();
            assert_eq!(seen, [world], "{answer}");
        }
    }
}

pub(crate) fn c25_one_port_of_a_client_has_many_connections(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 0);
    for family in [4, 6] {
        // All of these become one tuple at the backend, unless somebody tells them apart.
        let asks = ["node:n1", "node:n2", "node:n3", "node:n4"].map(|to| {
            ask("world", to)
                .port(port)
                .family(family)
                // None that the kernel gives to others.
                .set("source_port", 7020)
        });
        let asks = both_protocols(asks);
        for ask in asks.iter().chain(&asks) {
            ground.answered_by(&["b0"], [ask.clone()]);
        }
    }
}

/// A client that has one port takes it again and again, whatever became of its connection before: it was answered and
/// closed, it was begun in vain, it was refused, and its backend is another one, on another node or on the one that is
/// asked.
pub(crate) fn c25_a_port_is_used_again(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 0);
    let asks = || {
        let one = ask("world", "node:n1").port(port);
        both_protocols(both_families([one.set("source_port", 7021)]))
    };
    let answered_by = |pod: &str| {
        for ask in asks() {
            ground.answered_by(&[pod], [ask.clone()]);
            ground.answered_by(&[pod], [ask]);
        }
    };
    answered_by("b0");
    let cut = NoWayBack::from(ground, "n2");
    for ask in asks() {
        ground.silent([ask]);
    }
    drop(cut);
    answered_by("b0");
    ground.delete("Pod", "b0");
    for ask in asks() {
        ground.refused([ask]);
    }
    for (pod, node, before) in [
        ("b1", "n3", None),
        ("b2", "n1", Some("b1")),
        ("b3", "n2", Some("b2")),
    ] {
        ground.apply([server(pod, node)]);
        if let Some(before) = before {
            ground.delete("Pod", before);
        }
        answered_by(pod);
    }
}

pub(crate) fn c25_clients_hear_that_packets_do_not_fit(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 0).to_string();
    for family in ["4", "6"] {
        let words = [
            "transfer",
            "--from",
            "world",
            "--to",
            "node:n1",
            "--port",
            &port,
            "--family",
            family,
            "--send",
            "3000000",
            "--receive",
            "3000000",
            "--timeout",
            "20s",
        ];
        let output = ground.lab.run(&words);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
    }
}

pub(crate) fn c25_connections_outlive_agents(ground: &Ground<'_>) {
    ground.apply([service_of("NodePort", "web"), server("b0", "n2")]);
    let port = ground.node_port("web", 0);
    let one = ask("world", "node:n1").port(port).set("keep", true);
    let asks = both_protocols(both_families([one
        .set("interval_ms", 500)
        .set("count", 16)]));
    thread::scope(|scope| {
        let kept = scope.spawn(|| ground.answered(asks));
        for node in ["n1", "n2"] {
            ground.lab.text(&["restart-agent", node, "--kill"]);
        }
        for answer in kept.join().unwrap() {
            let seen = sources(&answer);
            assert_eq!(seen.len(), 1, "{answer}");
        }
    });
    let one = ask("world", "node:n1").port(port);
    ground.answered_by(&["b0"], both_protocols(both_families([one])));
}

pub(crate) fn c25_policies_know_the_client(ground: &Ground<'_>) {
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "one-client"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": WORLD.map(|(family, world)| {
                let length = if family == 4 { 32 } else { 128 };
                json!({"ipBlock": {"cidr": format!("{world}/{length}")}})
            })}],
        },
    });
    ground.apply([service_of("NodePort", "web"), server("b0", "n2"), policy]);
    let port = ground.node_port("web", 0);
    let from = |name: &str| -> Vec<Ask> {
        let asks = [4, 6].map(|family| ask(name, "node:n1").port(port).family(family));
        both_protocols(asks)
    };
    ground.answered(from("world"));
    ground.silent(from("external:other"));
}

pub(crate) fn c25_backends_in_the_network_of_nodes_are_relayed_to(ground: &Ground<'_>) {
    let pod = server("b0", "n2").with("spec.hostNetwork", true);
    ground.apply([service_of("NodePort", "web"), pod]);
    let port = ground.node_port("web", 0);
    for family in [4, 6] {
        let asks = [ask("world", "node:n1").port(port).family(family)];
        ground.answered(both_protocols(asks));
    }
}
