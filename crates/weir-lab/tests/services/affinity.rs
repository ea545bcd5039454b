// SPDX-License-Identifier: Apache-2.0
//! E: session affinity.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::{Value, json};

use super::{
    answer::peers,
    ask::{Ask, all_ways, ask, both_families, both_protocols},
    ground::Ground,
    objects::{With, server, service, service_of},
};

fn sticky(service: Value, seconds: u32) -> Value {
    service.with("spec.sessionAffinity", "ClientIP").with(
        "spec.sessionAffinityConfig",
        json!({"clientIP": {"timeoutSeconds": seconds}}),
    )
}

fn servers() -> [Value; 3] {
    [server("b0", "n1"), server("b1", "n2"), server("b2", "n3")]
}

/// All exchanges of a probe, one after the other, end at one backend; who that is.
fn stick(ground: &Ground<'_>, ask: &Ask) -> String {
    let ask = ask.clone().times(15).set("interval_ms", 5);
    let answers = ground.answered([ask]);
    let peers = peers(&answers[0]);
    assert_eq!(peers.len(), 1, "{}", answers[0]);
    peers.into_iter().next().unwrap()
}

fn spread(ground: &Ground<'_>, ask: &Ask) {
    let answers = ground.answered([ask.clone().times(40)]);
    assert_eq!(peers(&answers[0]).len(), 3, "{}", answers[0]);
}

pub(crate) fn e1_a_client_keeps_its_backend(ground: &Ground<'_>) {
    ground.apply([sticky(service("web"), 100)]);
    ground.apply(servers());
    for from in ["base/c1", "base/c2", "node:n1"] {
        for ask in both_families([ask(from, &ground.svc("web"))]) {
            stick(ground, &ask);
        }
    }
}

pub(crate) fn e2_affinity_ends(ground: &Ground<'_>) {
    ground.apply([sticky(service("web"), 1)]);
    ground.apply(servers());
    let asks = all_ways([ask("base/c1", &ground.svc("web"))]);
    let mut seen: Vec<BTreeSet<String>> = vec![BTreeSet::new(); asks.len()];
    // Three backends are met within so many rounds but for one time in ten million.
    for _ in 0..40 {
        let answers = ground.answered(asks.clone());
        for (seen, answer) in seen.iter_mut().zip(&answers) {
            seen.extend(peers(answer));
        }
        if seen.iter().all(|seen| seen.len() > 1) {
            return;
        }
        thread::park_timeout(Duration::from_millis(2100));
    }
    panic!("clients stay for ever: {seen:?}");
}

pub(crate) fn e3_affinity_is_switched_on_and_off(ground: &Ground<'_>) {
    ground.apply([service("web")]);
    ground.apply(servers());
    let asks = both_families([ask("base/c1", &ground.svc("web"))]);
    let both = |check: &dyn Fn(&Ask)| asks.iter().for_each(check);
    both(&|ask| spread(ground, ask));
    ground.apply([sticky(service("web"), 100)]);
    both(&|ask| drop(stick(ground, ask)));
    ground.apply([service("web")]);
    both(&|ask| spread(ground, ask));
}

pub(crate) fn e4_clients_of_node_ports_keep_their_backends(ground: &Ground<'_>) {
    ground.apply([sticky(service_of("NodePort", "web"), 100)]);
    ground.apply(servers());
    let port = ground.node_port("web", 0);
    let asks = ["base/c1", "node:n2", "world"].map(|from| ask(from, "node:n1").port(port));
    for ask in both_families(asks) {
        stick(ground, &ask);
    }
    ground.apply([service_of("NodePort", "web")]);
    spread(ground, &ask("world", "node:n1").port(port));
}

pub(crate) fn e5_clients_of_load_balancers_keep_their_backends(ground: &Ground<'_>) {
    ground.apply(servers());
    for policy in ["Cluster", "Local"] {
        let balanced = service_of("LoadBalancer", "web").with("spec.externalTrafficPolicy", policy);
        ground.apply([sticky(balanced, 100)]);
        for family in [4, 6] {
            let vip = ground.ingress("web", family);
            stick(ground, &ask("base/c1", &vip).family(family));
            // The router spreads connections over the nodes, each of which remembers on its own; from one node on the
            // client stays.
            let port = ground.node_port("web", 0);
            stick(ground, &ask("world", "node:n2").family(family).port(port));
        }
    }
}

pub(crate) fn e6_a_backend_that_goes_is_left(ground: &Ground<'_>) {
    ground.apply([sticky(service("web"), 100)]);
    ground.apply(servers());
    let asks = ask("base/c1", &ground.svc("web"));
    let first = stick(ground, &asks);
    let name = first.rsplit('/').next().unwrap().to_owned();
    ground.apply([server(
        &name,
        ["n1", "n2", "n3"][name[1..].parse::<usize>().unwrap()],
    )
    .unready()]);
    let second = stick(ground, &asks);
    assert_ne!(first, second);
    ground.delete("Pod", second.rsplit('/').next().unwrap());
    let third = stick(ground, &asks);
    assert!(third != first && third != second);
}

pub(crate) fn e7_each_client_has_its_own(ground: &Ground<'_>) {
    ground.apply([sticky(service("web"), 100)]);
    ground.apply(servers());
    let mut of_clients = BTreeSet::new();
    for number in 0..6 {
        let client = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("k{number}")},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        });
        ground.apply([client]);
        let asks = ask(&ground.own(&format!("k{number}")), &ground.svc("web"));
        of_clients.insert(stick(ground, &asks));
    }
    // Six clients with one backend would be one case in 243.
    assert!(of_clients.len() > 1, "{of_clients:?}");
}

pub(crate) fn e8_datagrams_stick_too(ground: &Ground<'_>) {
    ground.apply([sticky(service("web"), 100)]);
    ground.apply(servers());
    for ask in both_families([ask("base/c1", &ground.svc("web")).udp()]) {
        let connected = stick(ground, &ask);
        let unconnected = stick(ground, &ask.set("unconnected", true));
        assert_eq!(connected, unconnected);
    }
}

/// The choice of a backend by the connection's tuple, which is another one for each port, gives way to the client's.
pub(crate) fn e9_a_choice_by_tuple_keeps_to_the_client(ground: &Ground<'_>) {
    assert_eq!(ground.variant.algorithm, "maglev");
    ground.apply([sticky(service_of("NodePort", "web"), 100)]);
    ground.apply(servers());
    let port = ground.node_port("web", 0);
    for ask in both_protocols(both_families([ask("world", "node:n1").port(port)])) {
        stick(ground, &ask);
    }
    ground.apply([service_of("NodePort", "web")]);
    spread(ground, &ask("world", "node:n1").port(port));
}

pub(crate) fn e10_each_port_of_a_service_has_its_own_affinity(ground: &Ground<'_>) {
    let two = json!([
        {"name": "a", "port": 80, "targetPort": "http"},
        {"name": "b", "port": 81, "targetPort": "http"},
    ]);
    ground.apply([sticky(service("web").with("spec.ports", two), 100)]);
    ground.apply(servers());
    let mut differs = false;
    for client in super::ground::CLIENTS {
        let [one, two] =
            [80, 81].map(|port| stick(ground, &ask(client, &ground.svc("web")).port(port)));
        differs |= one != two;
    }
    // That both ports have one backend for every client would be one case in 81.
    assert!(differs, "the ports share their affinity");
    let asks = both_protocols([ask("base/c1", &ground.svc("web"))]);
    stick(ground, &asks[0]);
}
