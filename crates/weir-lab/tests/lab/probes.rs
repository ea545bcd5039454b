// SPDX-License-Identifier: Apache-2.0
//! Probes of every kind, whatever forwards the packets.

use serde_json::{Value, json};

use super::harness::{Lab, can_run};

const SHOP: &str = include_str!("shop.yaml");

#[test]
fn series_tell_who_answered_when_and_how() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("series", &["--no-agents"], SHOP);
    let check = |request: Value, expected: &[(&str, Value)]| {
        let mut request = request;
        request["from"] = json!("shop/client");
        request["to"] = json!("shop/web-2");
        let answer = lab.probe_batch(&[request]).remove(0);
        for (pointer, value) in expected {
            assert_eq!(answer.pointer(pointer), Some(value), "{pointer}: {answer}");
        }
    };
    let many = json!(40);
    check(
        json!({"port": 80, "count": 40}),
        &[
            ("/allowed", json!(true)),
            ("/outcomes/connected", many.clone()),
            ("/peers/shop~1web-2", many.clone()),
            ("/timeline/0/count", many),
        ],
    );
    check(
        json!({"port": 81, "count": 3, "interval_ms": 10}),
        &[
            ("/allowed", json!(false)),
            ("/outcome", json!("refused")),
            ("/outcomes/refused", json!(3)),
        ],
    );
    for protocol in ["tcp", "udp"] {
        for unconnected in [true, false] {
            let request = json!({
                "port": 80, "protocol": protocol, "count": 5, "interval_ms": 200, "keep": true,
                "unconnected": unconnected, "source_port": 7777,
            });
            check(
                request,
                &[
                    ("/outcomes/connected", json!(5)),
                    ("/timeline/0/peer", json!("shop/web-2")),
                ],
            );
        }
    }
    // A datagram nobody takes is an error on the socket that is kept, and the next one goes out all the same.
    check(
        json!({"port": 81, "protocol": "udp", "count": 3, "interval_ms": 200, "keep": true}),
        &[("/outcomes/refused", json!(3))],
    );
    check(
        json!({"port": 80, "count": 1000, "interval_ms": 1, "until": "shop/web-2"}),
        &[("/outcomes/connected", json!(1))],
    );
}

#[test]
fn pages_are_fetched_with_their_status() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("pages", &["--no-agents"], SHOP);
    let answer = lab.probe(&[
        "--from",
        "node:n1",
        "--to",
        "shop/web-2",
        "--port",
        "80",
        "--http",
        "/hostname",
    ]);
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(answer["body"], "shop/web-2", "{answer}");
}

#[test]
fn sctp_is_spoken_whether_or_not_the_kernel_does() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("sctp", &["--no-agents"], SHOP);
    let ask = |port: u16, family: u8, serve: bool| {
        json!({
            "from": "shop/client", "to": "shop/web-2", "port": port, "family": family,
            "protocol": "sctp", "serve": serve, "timeout_ms": 2000,
        })
    };
    for family in [4, 6] {
        let answers = lab.probe_batch(&[ask(7001, family, true), ask(7002, family, true)]);
        for answer in answers {
            assert_eq!(answer["peer"], "shop/web-2", "{answer}");
        }
        let answer = lab.probe_batch(&[ask(7003, family, false)]).remove(0);
        let outcome = answer["outcome"].as_str();
        assert!(
            matches!(outcome, Some("refused" | "unreachable")),
            "{answer}"
        );
    }
}
