// SPDX-License-Identifier: Apache-2.0
//! The lab itself, on the kernel's own routing: everything that has to hold whatever forwards the packets.
//!
//! These tests need root: without it they fail when `WEIR_REQUIRE_KERNEL=1` is set and do nothing otherwise.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Lab, can_run};

const SHOP: &str = include_str!("shop.yaml");

fn check_pairs(lab: &Lab, ends: &[(&str, u16)]) {
    let mut requests = Vec::new();
    for (from, _) in ends {
        for (to, port) in ends.iter().filter(|(to, _)| to != from) {
            for protocol in ["tcp", "udp", "icmp"] {
                for family in [4, 6] {
                    requests.push(json!({
                        "id": format!("{from} to {to} {protocol} {family}"), "from": from, "to": to, "port": port,
                        "protocol": protocol, "family": family, "timeout_ms": 5000, "serve": true,
                    }));
                }
            }
        }
    }
    let answers = lab.probe_batch(&requests);
    assert_eq!(answers.len(), requests.len());
    for (answer, request) in answers.iter().zip(&requests) {
        assert_eq!(answer["id"], request["id"]);
        assert_eq!(answer["outcome"], "connected", "{answer}");
        let peer = match request["to"].as_str().unwrap() {
            "world" => "external:world".to_owned(),
            to => to.to_owned(),
        };
        assert_eq!(answer["peer"], peer, "{answer}");
    }
}

#[test]
fn everyone_reaches_everyone() {
    if !can_run() {
        return;
    }
    for dataplane in ["kernel-routing", "kernel-vxlan"] {
        let lab = Lab::up(dataplane, &["--dataplane", dataplane], SHOP);
        check_pairs(
            &lab,
            &[
                ("shop/client", 7001),
                ("shop/web-1", 80),
                ("shop/web-2", 80),
                ("node:n1", 7002),
                ("node:n2", 7003),
                ("world", 80),
            ],
        );
        let seen = lab.probe(&[
            "--from",
            "shop/client",
            "--to",
            "shop/web-2",
            "--port",
            "80",
        ]);
        let own = lab.pod("shop", "client")["status"]["podIP"].clone();
        let source = seen["source_seen"].as_str().unwrap();
        assert!(source.starts_with(own.as_str().unwrap()), "{seen}");
        let big = [
            "--from",
            "shop/client",
            "--to",
            "shop/web-2",
            "--port",
            "80",
            "--protocol",
            "udp",
            "--size",
            "20000",
        ];
        assert_eq!(lab.probe(&big)["outcome"], "connected");
        let moved = lab.json(&[
            "transfer",
            "--from",
            "shop/client",
            "--to",
            "shop/web-2",
            "--port",
            "80",
            "--send",
            "10000000",
            "--receive",
            "10000000",
        ]);
        assert_eq!(moved["checksums"], "equal");
    }
}

#[test]
fn outcomes_are_told_apart() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("outcomes", &["--no-agents"], SHOP);
    for (arguments, outcome, code) in [
        (["--to", "shop/web-1", "--port", "80"], "connected", 0),
        (["--to", "shop/web-1", "--port", "81"], "refused", 1),
        (["--to", "198.51.100.1", "--port", "80"], "unreachable", 1),
        (["--to", "shop/nobody", "--port", "80"], "error", 2),
    ] {
        let output = lab.run(&[&["probe", "--from", "shop/client"], arguments.as_slice()].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["outcome"], outcome, "{answer}");
        assert_eq!(output.status.code(), Some(code), "{answer}");
    }
    // A filter that swallows packets is a timeout.
    lab.text(&[
        "exec",
        "shop/web-1",
        "--",
        "ip",
        "link",
        "set",
        "eth0",
        "down",
    ]);
    let answer = lab.probe(&[
        "--from",
        "shop/client",
        "--to",
        "shop/web-1",
        "--port",
        "80",
        "--timeout",
        "300ms",
    ]);
    assert!(
        matches!(answer["outcome"].as_str(), Some("timeout" | "unreachable")),
        "{answer}"
    );
}

#[test]
fn a_thousand_probes_run_in_parallel() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("thousand", &["--no-agents"], SHOP);
    let requests: Vec<Value> = (0..1000)
        .map(|id| json!({"id": id, "from": "shop/client", "to": "shop/web-2", "port": 80, "timeout_ms": 10000}))
        .collect();
    let begin = Instant::now();
    let answers = lab.probe_batch(&requests);
    assert!(answers.iter().all(|answer| answer["allowed"] == true));
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}

#[test]
fn pods_have_their_own_world() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("own-world", &["--no-agents"], SHOP);
    let words = lab.text(&[
        "exec",
        "shop/client",
        "--",
        "cat",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/etc/hosts",
    ]);
    assert!(
        words.contains("client\n") && words.contains("search shop.svc.cluster.local"),
        "{words}"
    );
    let own = lab.pod("shop", "client")["status"]["podIP"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(words.contains(&format!("{own} client")), "{words}");
    assert_eq!(
        lab.text(&[
            "exec",
            "shop/client",
            "--",
            "sh",
            "-c",
            "echo $$ $(hostname)"
        ])
        .split(' ')
        .nth(1),
        Some("client\n")
    );
    assert_eq!(
        lab.run(&["exec", "shop/client", "--", "sh", "-c", "exit 7"])
            .status
            .code(),
        Some(7)
    );
    assert_eq!(lab.text(&["node", "n1", "--", "hostname"]), "n1\n");
    assert_eq!(lab.text(&["world", "--", "hostname"]), "world\n");
    let page = lab.text(&["exec", "shop/client", "--", "cat", "/proc/1/comm"]);
    assert_eq!(page, "exe\n");
}

#[test]
fn objects_come_change_and_go() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("objects", &["--no-agents"], SHOP);
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, namespace: x}\n\
        spec: {replicas: 3, template: {metadata: {labels: {app: d}}, spec: {containers: [{name: c, ports: [{containerPort: 80}], readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}]}}}\n";
    lab.apply(deployment);
    assert_eq!(lab.names("pods", "x"), ["d-0", "d-1", "d-2"]);
    assert!(
        lab.objects("pods", "x")
            .iter()
            .all(|pod| pod["status"]["phase"] == "Running")
    );
    lab.apply(&deployment.replace("replicas: 3", "replicas: 1"));
    assert_eq!(lab.names("pods", "x"), ["d-0"]);
    let answer = lab.probe(&["--from", "shop/client", "--to", "x/d-0"]);
    assert_eq!(answer["peer"], "x/d-0");
    lab.delete(deployment);
    assert_eq!(lab.names("pods", "x"), Vec::<String>::new());
    // A container that ends is started again; one that must not is done.
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: once, namespace: x}\nspec: {restartPolicy: Never, containers: [{name: c, command: ['true']}]}\n",
    );
    // It may still be on its way to its end.
    let deadline = Instant::now() + Duration::from_secs(10);
    while lab.pod("x", "once")["status"]["phase"] != "Succeeded" {
        assert!(
            Instant::now() < deadline,
            "{}",
            lab.pod("x", "once")["status"]
        );
    }
}

#[test]
fn dumped_objects_replay_with_their_names_and_addresses() {
    if !can_run() {
        return;
    }
    let dump = include_str!("dump.yaml");
    let lab = Lab::up("replay", &["--no-agents"], dump);
    assert_eq!(
        lab.names("nodes", ""),
        [
            "gke-prod-pool-1-0a1b2c3d-x7z9",
            "gke-prod-pool-1-0a1b2c3d-y8w2"
        ]
    );
    let pod = lab.pod("prod", "api-6d5f7c9b8-abcde");
    assert_eq!(pod["status"]["podIP"], "10.8.1.77");
    assert_eq!(pod["spec"]["nodeName"], "gke-prod-pool-1-0a1b2c3d-y8w2");
    let answer = lab.probe(&[
        "--from",
        "prod/cron-1",
        "--to",
        "prod/api-6d5f7c9b8-abcde",
        "--port",
        "8443",
    ]);
    assert_eq!(answer["address"], "10.8.1.77:8443");
    assert_eq!(answer["allowed"], true);
}

#[test]
fn mistakes_end_with_two_and_a_reason() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("mistakes", &["--no-agents"], SHOP);
    for (manifest, reason) in [
        ("kind: [", ""),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: A}\n",
            "not a DNS name",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {nodeName: n9, containers: [{name: c}]}\n",
            "there is no node n9",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {nodeName: n1, containers: [{name: c, command: [/no/such/program]}]}\n",
            "cannot start",
        ),
    ] {
        let output = lab.run_with_input(&["apply", "-f", "-", "--timeout", "3s"], manifest);
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words}");
        assert!(words.contains(reason), "{words}");
    }
    let web = lab.pod("shop", "web-1")["status"]["podIP"]
        .as_str()
        .unwrap()
        .to_owned();
    let twice = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: twice}}\nspec: {{nodeName: n1, containers: [{{name: c}}]}}\nstatus: {{podIP: {web}}}\n"
    );
    let output = lab.run_with_input(&["apply", "-f", "-"], &twice);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("belongs to Pod shop/web-1"), "{words}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn flows_run_for_as_long_as_they_should() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("flows", &["--no-agents"], SHOP);
    let counts = lab.json(&[
        "traffic",
        "--from",
        "shop/client",
        "--to",
        "shop/web-2",
        "--port",
        "9000",
        "--serve",
        "--tcp",
        "20",
        "--udp",
        "20",
        "--duration",
        "1s",
    ]);
    for protocol in ["tcp", "udp"] {
        assert_eq!(counts[protocol]["broken"], 0, "{counts}");
        assert_eq!(counts[protocol]["lost"], 0, "{counts}");
        assert!(
            counts[protocol]["requests"].as_u64().unwrap() > 100,
            "{counts}"
        );
    }
}

#[test]
fn two_labs_do_not_meet_and_a_killed_one_goes_without_trace() {
    if !can_run() {
        return;
    }
    let first = Lab::up("first", &["--no-agents"], SHOP);
    let second = Lab::up("second", &["--no-agents"], SHOP);
    assert_eq!(first.names("pods", "shop"), second.names("pods", "shop"));
    second.kill_daemon();
    assert_eq!(second.run(&["get", "pods"]).status.code(), Some(2));
    assert_eq!(second.run(&["down"]).status.code(), Some(0));
    assert!(!second.leaves_traces());
    let answer = first.probe(&[
        "--from",
        "shop/client",
        "--to",
        "shop/web-2",
        "--port",
        "80",
    ]);
    assert_eq!(answer["allowed"], true);
    assert_eq!(first.run(&["down"]).status.code(), Some(0));
    assert!(!first.leaves_traces());
}

#[test]
fn a_dead_sandbox_says_how_it_ended() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("dead", &["--no-agents"], SHOP);
    lab.kill_pod("n1", "shop_web-1");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = lab.probe(&["--from", "shop/web-1", "--to", "shop/web-2"]);
        let error = answer["error"].as_str().unwrap_or_default();
        if error.contains("was ended by SIGKILL") {
            return;
        }
        assert!(Instant::now() < deadline, "{answer}");
    }
}
