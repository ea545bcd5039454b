// SPDX-License-Identifier: Apache-2.0
//! Weir in the lab: agents, eBPF and traffic.
//!
//! These tests need root and the whole `weir` program in `WEIR_BIN`: without them they fail when
//! `WEIR_REQUIRE_KERNEL=1` is set and do nothing otherwise.

use std::{thread, time::Instant};

use serde_json::{Value, json};

use super::harness::{Lab, can_run_weir};

const SHOP: &str = include_str!("shop.yaml");
const HOST: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: host, namespace: shop}\n\
    spec: {nodeName: n2, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 8080}]}]}\n";
const ENDS: [&str; 7] = [
    "shop/client",
    "shop/web-1",
    "shop/web-2",
    "shop/host",
    "node:n1",
    "node:n2",
    "world",
];

/// The world's addresses are for documentation, and these are exempt from masquerading by default; here they are not.
fn up(name: &str, mode: &str, config: &str) -> Lab {
    let config = format!(
        "agent: {{routingMode: {mode}, nonMasqueradeCIDRs: [10.0.0.0/8, 172.16.0.0/12, \"fd00::/8\"]}}\n{config}"
    );
    Lab::up_with_config(name, &config, &format!("{SHOP}{HOST}"))
}

fn own_address(lab: &Lab, end: &str, family: u64) -> String {
    let at = usize::from(family == 6);
    match end {
        "world" => ["203.0.113.10", "[2001:db8:113::10]"][at].to_owned(),
        "node:n1" => ["172.18.0.2", "[fd00:18::2]"][at].to_owned(),
        "node:n2" | "shop/host" => ["172.18.0.3", "[fd00:18::3]"][at].to_owned(),
        pod => {
            let name = pod.split('/').nth(1).unwrap();
            let ip = lab.pod("shop", name)["status"]["podIPs"][at]["ip"].clone();
            let ip = ip.as_str().unwrap();
            if family == 6 {
                format!("[{ip}]")
            } else {
                ip.to_owned()
            }
        }
    }
}

/// The source address that a destination must see.
fn expected_source(lab: &Lab, from: &str, to: &str, family: u64) -> String {
    let masqueraded = to == "world" && from.starts_with("shop/");
    match (masqueraded, from) {
        (true, "shop/web-2") => own_address(lab, "node:n2", family),
        (true, "shop/client" | "shop/web-1") => own_address(lab, "node:n1", family),
        _ => own_address(lab, from, family),
    }
}

fn check_everyone(lab: &Lab) {
    let mut requests = Vec::new();
    for (number, from) in ENDS.iter().enumerate() {
        for to in ENDS.iter().filter(|to| *to != from) {
            let port = if to.starts_with("shop/web") {
                80
            } else {
                7000 + number
            };
            for protocol in ["tcp", "udp", "icmp"] {
                for family in [4, 6] {
                    requests.push(json!({
                        "id": format!("{from} to {to}, {protocol}, IPv{family}"),
                        "from": from, "to": to, "port": port, "protocol": protocol,
                        "family": family, "timeout_ms": 5000, "serve": true,
                    }));
                }
            }
        }
    }
    let answers = lab.probe_batch(&requests);
    assert_eq!(answers.len(), requests.len());
    let mut wrong = Vec::new();
    for (answer, request) in answers.iter().zip(&requests) {
        let (from, to) = (
            request["from"].as_str().unwrap(),
            request["to"].as_str().unwrap(),
        );
        let source = expected_source(lab, from, to, request["family"].as_u64().unwrap());
        // Whoever owns the address may answer a ping in the name of another on the same host.
        let seen = answer["source_seen"].as_str();
        let good_source = seen.is_none_or(|seen| {
            seen.rsplit_once(':')
                .is_some_and(|(address, _)| address == source)
        });
        if answer["allowed"] != true || !good_source {
            wrong.push(format!("{answer} (expected source {source})"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        answers.len(),
        wrong.join("\n")
    );
}

fn check_volume(lab: &Lab, bytes: &str) {
    for to in ["shop/web-1", "shop/web-2"] {
        for family in ["4", "6"] {
            let moved = lab.json(&[
                "transfer",
                "--from",
                "shop/client",
                "--to",
                to,
                "--port",
                "80",
                "--family",
                family,
                "--send",
                bytes,
                "--receive",
                bytes,
            ]);
            assert_eq!(moved["checksums"], "equal");
            let big = lab.probe(&[
                "--from",
                "shop/client",
                "--to",
                to,
                "--port",
                "80",
                "--protocol",
                "udp",
                "--size",
                "20000",
                "--family",
                family,
                "--timeout",
                "3s",
            ]);
            assert_eq!(big["allowed"], true, "{to} IPv{family}: {big}");
        }
    }
}

#[test]
fn everyone_reaches_everyone_through_tunnels() {
    if can_run_weir() {
        let lab = up("tunnel", "tunnel", "");
        check_everyone(&lab);
        check_volume(&lab, "100000000");
    }
}

#[test]
fn everyone_reaches_everyone_with_native_routing() {
    if can_run_weir() {
        let lab = up("native", "native", "");
        check_everyone(&lab);
        check_volume(&lab, "100000000");
    }
}

#[test]
fn small_mtus_are_found_out() {
    if !can_run_weir() {
        return;
    }
    for mode in ["tunnel", "native"] {
        let lab = up(&format!("mtu-{mode}"), mode, "underlayMTU: 1400");
        check_volume(&lab, "5000000");
        lab.set_mtu_of_world(1300);
        for family in ["4", "6"] {
            let moved = lab.json(&[
                "transfer",
                "--from",
                "shop/client",
                "--to",
                "world",
                "--port",
                "80",
                "--family",
                family,
                "--send",
                "2000000",
                "--receive",
                "2000000",
            ]);
            assert_eq!(moved["checksums"], "equal");
        }
    }
}

#[test]
fn underlays_of_one_family_carry_both() {
    if !can_run_weir() {
        return;
    }
    for (name, first, second) in [
        ("under4", "172.18.0.2", "172.18.0.3"),
        ("under6", "fd00:18::2", "fd00:18::3"),
    ] {
        let config =
            format!("nodes: [{{addresses: [\"{first}\"]}}, {{addresses: [\"{second}\"]}}]");
        let lab = up(name, "tunnel", &config);
        check_volume(&lab, "1000000");
    }
}

#[test]
fn agents_die_and_traffic_lives() {
    if !can_run_weir() {
        return;
    }
    let restarts: usize =
        std::env::var("WEIR_RESTARTS").map_or(10, |number| number.parse().unwrap());
    let lab = up("restart", "tunnel", "");
    let traffic = &|from: &str, seconds: u64| -> Value {
        let duration = format!("{seconds}s");
        let output = lab.run(&[
            "traffic",
            "--from",
            from,
            "--to",
            "shop/web-2",
            "--port",
            "9000",
            "--serve",
            "--tcp",
            "50",
            "--udp",
            "50",
            "--pause",
            "20ms",
            "--duration",
            &duration,
        ]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let calm = traffic("shop/client", 3);
    let begin = Instant::now();
    lab.text(&["restart-agent", "n1", "--kill"]);
    let one = begin.elapsed().as_secs() + 1;
    let mut runs = vec![calm];
    let mut done = 0;
    // A machine may become busy at any time. Where flows end before their restarts, new ones see the rest of these.
    while done < restarts {
        let duration = 3 + 2 * one * u64::try_from(restarts - done).unwrap();
        let stormy = thread::scope(|scope| {
            let flows = scope.spawn(move || traffic("shop/client", duration));
            while done < restarts {
                let node = ["n1", "n2"][done % 2];
                lab.text(&["restart-agent", node, "--kill"]);
                if flows.is_finished() {
                    break;
                }
                done += 1;
            }
            flows.join().unwrap()
        });
        runs.push(stormy);
    }
    for (number, flows) in runs.iter().enumerate() {
        for protocol in ["tcp", "udp"] {
            for what in ["broken", "lost"] {
                assert_eq!(
                    flows[protocol][what], 0,
                    "run {number}, of which the first had no restarts: {flows}"
                );
            }
        }
    }
    check_everyone(&lab);
}

#[test]
fn forwarding_goes_on_without_agents() {
    if !can_run_weir() {
        return;
    }
    let lab = up("headless", "tunnel", "");
    lab.text(&["stop-agent", "n1"]);
    lab.text(&["stop-agent", "n2"]);
    check_everyone(&lab);
    lab.text(&["start-agent", "n1"]);
    lab.text(&["start-agent", "n2"]);
    check_everyone(&lab);
}

#[test]
fn what_cannot_be_networked_is_refused_with_a_reason() {
    if !can_run_weir() {
        return;
    }
    let config = "nodes: [{podCIDRs: [10.244.1.0/29, \"fd00:244:1::/64\"]}, {}]";
    let lab = up("refused", "tunnel", config);
    let pods: Vec<String> = (0..10)
        .map(|number| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: full-{number}}}\n\
                 spec: {{nodeName: n1, containers: [{{name: c}}]}}\n"
            )
        })
        .collect();
    let output = lab.run_with_input(&["apply", "-f", "-"], &pods.join("---\n"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(
        words.contains("cannot run") && words.contains("10.244.1.0/29"),
        "{words}"
    );
    let own = own_address(&lab, "shop/web-2", 4);
    let twice = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: twice}}\n\
         spec: {{nodeName: n2, containers: [{{name: c}}]}}\nstatus: {{podIP: {own}}}\n"
    );
    let output = lab.run_with_input(&["apply", "-f", "-"], &twice);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains(&own), "{words}");
    // Nothing of it has hurt those who were there.
    check_everyone(&lab);
}

#[test]
fn addresses_come_back_when_pods_go() {
    if !can_run_weir() {
        return;
    }
    let config = "nodes: [{podCIDRs: [10.244.1.0/28, \"fd00:244:1::/64\"]}, {}]";
    let lab = up("churn", "tunnel", config);
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: churn}\n\
        spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}]}]}\n";
    for _ in 0..20 {
        lab.apply(pod);
        let answer = lab.probe(&["--from", "shop/web-2", "--to", "default/churn"]);
        assert_eq!(answer["peer"], "default/churn", "{answer}");
        lab.delete(pod);
    }
}
