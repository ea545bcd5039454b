// SPDX-License-Identifier: Apache-2.0
//! The table of what is logged, and records word by word.

use serde_json::{Value, json};
use weir_abi::{FlowKey, Port};

use super::*;
use crate::policy_log::entry::Policy;

const CLIENT: Identity = Identity(300);
const SERVER: Identity = Identity(301);
const RULE: PolicyCookie = PolicyCookie(7);
const OWN_NODE: PolicyCookie = PolicyCookie(8);

fn v4(last: u8) -> Address {
    Address::from_v4([10, 8, 5, last])
}

/// `shop` asks for its denials, and of two policies `loud` for what it allows.
struct Shop;

impl Cluster for Shop {
    fn node(&self) -> &'static str {
        "n1"
    }

    fn time(&self, monotonic_nanoseconds: u64) -> String {
        format!("at {monotonic_nanoseconds}")
    }

    fn end(&self, address: Address) -> End {
        let made = |name: &str| {
            let workload = weir_model::Workload {
                kind: "Deployment".to_owned(),
                name: name.to_owned(),
            };
            End::pod("shop", &format!("{name}-7d9")).made_by(Some(&workload))
        };
        if address == v4(9) {
            made("cli")
        } else if address == v4(41) {
            End::pod("store", "web-5c4")
        } else if address == v4(1) {
            End::Node {
                node_name: "n2".to_owned(),
            }
        } else {
            End::Outside { instance: address }
        }
    }

    fn namespace(&self, identity: Identity) -> Option<String> {
        match identity {
            CLIENT => Some("shop".to_owned()),
            SERVER => Some("store".to_owned()),
            _ => None,
        }
    }

    fn allowing(&self, asked: &Denial, cookie: PolicyCookie) -> Vec<Policy> {
        if cookie == OWN_NODE {
            return Vec::new();
        }
        let namespace = self.namespace(asked.subject).unwrap();
        let policy = |name: &str| Policy {
            kind: "NetworkPolicy".to_owned(),
            name: name.to_owned(),
            namespace: namespace.clone(),
        };
        vec![policy("loud"), policy("quiet")]
    }

    fn logs_allowed(&self, policy: &Policy) -> bool {
        policy.name == "loud" && policy.namespace == "shop"
    }

    fn logs_denied(&self, namespace: &str) -> bool {
        namespace == "shop"
    }
}

/// The first packet from `cli` to `web`, both pods of this node, whose policies are asked on both sides.
fn opening() -> EventRecord {
    EventRecord {
        kind: kind::TRACE,
        flags: flags::HAS_KEY,
        trace_reason: TraceReason::New as u8,
        timestamp: 42,
        source_identity: CLIENT,
        destination_identity: SERVER,
        policy: policy_flags::EGRESS_ASKED | policy_flags::INGRESS_ASKED,
        egress_cookie: RULE,
        ingress_cookie: RULE,
        key: FlowKey {
            source: v4(9),
            destination: v4(41),
            source_port: Port::new(47110),
            destination_port: Port::new(8080),
            protocol: Protocol::TCP,
            ..FlowKey::default()
        },
        ..EventRecord::default()
    }
}

fn denied(side: u8) -> EventRecord {
    EventRecord {
        kind: kind::DROP,
        subtype: 133,
        trace_reason: 0,
        policy: opening().policy | side,
        ..opening()
    }
}

const fn logging(allow: LogScope, deny: LogScope) -> NetworkLogging {
    NetworkLogging { allow, deny }
}

/// `egress allow loud,quiet`, `ingress deny`.
fn shown(logging: NetworkLogging, record: &EventRecord) -> Vec<String> {
    let entries = decisions(record).filter_map(|one| entry(logging, record, one, &Shop));
    let show = |entry: Entry| {
        let names: Vec<_> = entry.policies.iter().map(|one| one.name.as_str()).collect();
        let direction = entry.connection.direction.name();
        let line = format!(
            "{direction} {} {}",
            entry.disposition.name(),
            names.join(",")
        );
        line.trim_end().to_owned()
    };
    entries.map(show).collect()
}

#[track_caller]
fn check_lines(allow: LogScope, deny: LogScope, record: &EventRecord, expected: &[&str]) {
    assert_eq!(shown(logging(allow, deny), record), expected);
}

#[test]
fn the_table_of_what_is_logged() {
    use LogScope::{Delegated, Everything, Nothing};
    let both = ["egress allow loud,quiet", "ingress allow loud,quiet"];
    let open = opening();
    check_lines(Nothing, Everything, &open, &[]);
    check_lines(Everything, Nothing, &open, &both);
    // `loud` asks for it in one of the two namespaces only.
    check_lines(Delegated, Everything, &open, &["egress allow loud"]);

    let out = denied(policy_flags::EGRESS_DENIED);
    let into = denied(policy_flags::INGRESS_DENIED);
    check_lines(Everything, Nothing, &out, &[]);
    check_lines(Nothing, Everything, &out, &["egress deny"]);
    check_lines(Nothing, Delegated, &out, &["egress deny"]);
    // The side that allowed it made no connection.
    check_lines(Everything, Everything, &into, &["ingress deny"]);
    check_lines(Everything, Delegated, &into, &[]);
}

#[track_caller]
fn check_count(logging: NetworkLogging, change: impl FnOnce(&mut EventRecord), expected: usize) {
    let mut record = opening();
    change(&mut record);
    assert_eq!(shown(logging, &record).len(), expected);
}

#[test]
fn only_decisions_of_policies_on_new_connections_count() {
    let all = logging(LogScope::Everything, LogScope::Everything);
    check_count(all, |_| {}, 2);
    check_count(all, |record| record.policy = policy_flags::EGRESS_ASKED, 1);
    check_count(all, |record| record.policy = 0, 0);
    check_count(
        all,
        |record| record.trace_reason = TraceReason::Reopened as u8,
        2,
    );
    check_count(
        all,
        |record| record.trace_reason = TraceReason::Established as u8,
        0,
    );
    check_count(all, |record| record.flags |= flags::REPLY, 0);
    check_count(all, |record| record.flags = 0, 0);
    check_count(all, |record| record.kind = kind::POLICY_VERDICT, 0);
    // For another reason, after both sides allowed it.
    check_count(all, |record| record.kind = kind::DROP, 0);
    // What is allowed by definition alone.
    check_count(all, |record| record.egress_cookie = OWN_NODE, 1);
    // Of a connection that was allowed once.
    let later = |record: &mut EventRecord| {
        *record = denied(policy_flags::INGRESS_DENIED);
        record.flags |= flags::REPLY;
    };
    check_count(all, later, 0);
}

#[track_caller]
fn check_record(record: &EventRecord, expected: &Value) {
    let all = logging(LogScope::Everything, LogScope::Everything);
    let decision = decisions(record).next().unwrap();
    let entry = entry(all, record, decision, &Shop).unwrap();
    assert_eq!(&serde_json::to_value(entry).unwrap(), expected);
}

#[test]
fn records_word_by_word() {
    let cli = json!({"pod_name": "cli-7d9", "pod_namespace": "shop", "namespace": "shop",
                     "workload_kind": "Deployment", "workload_name": "cli"});
    let web = json!({"pod_name": "web-5c4", "pod_namespace": "store", "namespace": "store"});
    let policy = |name: &str| json!({"kind": "NetworkPolicy", "name": name, "namespace": "shop"});
    check_record(
        &opening(),
        &json!({
            "connection": {"src_ip": "10.8.5.9", "dest_ip": "10.8.5.41", "src_port": 47110, "dest_port": 8080,
                           "protocol": "tcp", "direction": "egress"},
            "disposition": "allow",
            "policies": [policy("loud"), policy("quiet")],
            "src": cli, "dest": web, "count": 1, "node_name": "n1", "timestamp": "at 42",
        }),
    );
    let mut into = denied(policy_flags::INGRESS_DENIED);
    into.policy &= !policy_flags::EGRESS_ASKED;
    into.key.source = v4(1);
    into.key.protocol = Protocol::SCTP;
    check_record(
        &into,
        &json!({
            "connection": {"src_ip": "10.8.5.1", "dest_ip": "10.8.5.41", "src_port": 47110, "dest_port": 8080,
                           "protocol": "unknown", "direction": "ingress"},
            "disposition": "deny",
            "src": {"node_name": "n2"}, "dest": web, "count": 1, "node_name": "n1", "timestamp": "at 42",
        }),
    );
    let mut echo = denied(policy_flags::EGRESS_DENIED);
    echo.key.destination = Address::from_v4([203, 0, 113, 9]);
    echo.key.protocol = Protocol::ICMP;
    check_record(
        &echo,
        &json!({
            "connection": {"src_ip": "10.8.5.9", "dest_ip": "203.0.113.9", "protocol": "icmp", "direction": "egress"},
            "disposition": "deny",
            "src": cli, "dest": {"instance": "203.0.113.9"}, "count": 1, "node_name": "n1", "timestamp": "at 42",
        }),
    );
}

#[test]
fn a_service_stands_for_its_backend() {
    let mut record = opening();
    record.key.destination = Address::from_v4([10, 96, 0, 9]);
    record.key.destination_port = Port::new(80);
    record.translated_destination = v4(41);
    record.translated_destination_port = Port::new(8080);
    let all = logging(LogScope::Everything, LogScope::Everything);
    let decision = decisions(&record).next().unwrap();
    let entry = entry(all, &record, decision, &Shop).unwrap();
    assert_eq!(entry.dest, End::pod("store", "web-5c4"));
    assert_eq!(entry.connection.dest_port, Some(8080));
}
