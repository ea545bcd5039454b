// SPDX-License-Identifier: Apache-2.0
//! What the agent of a small node answers.

use super::agent::{Answers, json, lines};
use super::{policies, services};
use weir_api::Problem;
use weir_api::endpoint::{
    Addressing, Endpoint, EndpointHealth, EndpointIdentity, EndpointState, EndpointStatus,
    ExternalIdentifiers, HealthLevel, LogEntry, Networking, PolicyStatus, Regenerated,
};
use weir_api::event::{AgentEvent, Event, LostEvent, PacketEvent, Peer};
use weir_api::kernel::{
    EndpointEntry, Flow, IdentityEntry, IpcacheEntry, MapEntry, MapState, MetricEntry, NodeEntry,
    Translated,
};
use weir_api::status::{
    Controller, Device, EndpointCounts, EventStatus, IpamPool, PolicySetUse, Status, Subsystem,
};

pub(crate) fn text(text: &str) -> String {
    text.to_owned()
}

pub(crate) fn texts(all: &[&str]) -> Vec<String> {
    all.iter().copied().map(text).collect()
}

pub(crate) fn answers() -> Answers {
    let endpoints = endpoints();
    let [cli, web] = &endpoints;
    let gone = (
        404,
        serde_json::to_string(&Problem {
            error: text("there is no endpoint 999 on node n1"),
            hint: Some(text("`weir endpoint list` shows all of them")),
        })
        .unwrap(),
    );
    let nothing: Vec<String> = Vec::new();
    let regenerated = |id, repaired| json(&Regenerated { id, repaired });
    [
        ("GET /v1/status", json(&status())),
        ("GET /v1/endpoints", json(&endpoints)),
        ("GET /v1/endpoints/12", json(cli)),
        ("GET /v1/endpoints/shop%2Fcli", json(cli)),
        ("GET /v1/endpoints/34", json(web)),
        ("GET /v1/endpoints/999", gone),
        ("GET /v1/endpoints/12/log", json(&log())),
        ("GET /v1/endpoints/12/health", json(&health(HealthLevel::Ok))),
        ("GET /v1/endpoints/34/health", json(&health(HealthLevel::Failure))),
        ("POST /v1/endpoints/12/regenerate", regenerated(12, nothing.clone())),
        (
            "POST /v1/endpoints/34/regenerate",
            regenerated(34, texts(&["ipcache 10.8.3.41/32 was missing", "link weir0a1b2c3d was down"])),
        ),
        ("POST /v1/endpoints/shop%2Fcli/regenerate", regenerated(12, nothing)),
        ("GET /v1/events", lines(&events())),
        ("GET /v1/kernel/flows", lines(&flows())),
        ("GET /v1/kernel/ipcache", json(&ipcache())),
        ("GET /v1/kernel/endpoints", json(&kernel_endpoints())),
        ("GET /v1/kernel/metrics", json(&kernel_metrics())),
        ("GET /v1/kernel/maps", json(&maps())),
        ("GET /v1/kernel/maps/ipcache", json(&map_rows("sync"))),
        ("GET /v1/kernel/maps/endpoints", json(&map_rows("foreign"))),
        ("GET /v1/identities", json(&identities())),
        ("GET /v1/nodes", json(&nodes())),
        (
            "GET /v1/config",
            (
                200,
                text(r#"{"routingMode":"tunnel","masquerade":true,"nonMasqueradeCIDRs":["10.0.0.0/8","172.16.0.0/12"],"mtu":null,"mapSizes":{"flows":524288}}"#),
            ),
        ),
        ("GET /metrics", (200, text(METRICS))),
    ]
    .into_iter()
    .chain(services::answers())
    .chain(policies::answers())
    .map(|(request, answer)| (text(request), answer))
    .collect()
}

/// The same node with one part broken.
pub(crate) fn unhealthy() -> Answers {
    let mut status = status();
    status.healthy = false;
    status.subsystems[1].healthy = false;
    status.subsystems[1].message = text("to_netdev is not attached to eth0: EBUSY");
    status.controllers[1].consecutive_errors = 3;
    status.controllers[1].last_error = Some(text("2026-03-01T10:00:04Z"));
    status.controllers[1].message = text("EBUSY");
    let mut answers = answers();
    answers.insert(text("GET /v1/status"), json(&status));
    answers
}

fn status() -> Status {
    let part = |name, message| Subsystem {
        name: text(name),
        healthy: true,
        message: text(message),
    };
    let controller = |name| Controller {
        name: text(name),
        last_success: Some(text("2026-03-01T10:00:00Z")),
        last_error: None,
        consecutive_errors: 0,
        message: text("no error"),
    };
    Status {
        version: text("0.1.0"),
        node_name: text("n1"),
        healthy: true,
        subsystems: vec![
            part("source", "objects at revision 42"),
            part("datapath", "4 programs attached"),
            part("maps", "11 maps, 0 rows differ"),
            part("ipam", "2 pools"),
        ],
        revision: 42,
        uptime_seconds: 7500,
        routing_mode: text("tunnel"),
        masquerade: true,
        devices: vec![Device {
            name: text("eth0"),
            ifindex: 2,
            mtu: 1500,
            addresses: texts(&["172.18.0.2", "fd00:18::2"]),
        }],
        ipam: vec![
            IpamPool {
                cidr: text("10.8.3.0/24"),
                used: 2,
                capacity: 253,
            },
            IpamPool {
                cidr: text("fd00:8:3::/64"),
                used: 2,
                capacity: u64::MAX,
            },
        ],
        endpoints: EndpointCounts { total: 2, ready: 1 },
        controllers: vec![controller("reconcile"), controller("garbage-collection")],
        events: EventStatus {
            received: 1234,
            lost: 5,
            dropped: 0,
            listeners: 1,
        },
        maps: maps(),
        nodes: nodes(),
        services: services::status(),
        policy_sets: vec![
            PolicySetUse {
                set: 1,
                endpoints: 2,
                rows: 12,
                bytes: 2208,
            },
            PolicySetUse {
                set: 3,
                endpoints: 1,
                rows: 3,
                bytes: 552,
            },
        ],
        repairs: 1,
    }
}

fn endpoint(id: u16, pod: &str, state: EndpointState, v4: &str, v6: &str) -> Endpoint {
    Endpoint {
        id,
        status: EndpointStatus {
            state,
            external_identifiers: ExternalIdentifiers {
                container_id: format!("c{id}"),
                k8s_namespace: text("shop"),
                k8s_pod_name: text(pod),
                pod_name: format!("shop/{pod}"),
            },
            identity: EndpointIdentity {
                id: 256 + u32::from(id),
                labels: vec![
                    format!("k8s:app={pod}"),
                    text("k8s:io.kubernetes.pod.namespace=shop"),
                ],
            },
            networking: Networking {
                addressing: vec![Addressing {
                    ipv4: Some(text(v4)),
                    ipv6: Some(text(v6)),
                }],
                mac: text("0e:00:00:00:00:01"),
                host_mac: text("0a:57:45:49:52:01"),
                interface_index: 31,
                interface_name: text("weir0a1b2c3d"),
                container_interface_name: text("eth0"),
            },
            health: health(HealthLevel::Ok),
            policy: PolicyStatus::default(),
            named_ports: [(text("http"), text("80/TCP"))].into(),
            log: log(),
        },
    }
}

fn endpoints() -> [Endpoint; 2] {
    [
        endpoint(12, "cli", EndpointState::Ready, "10.8.3.9", "fd00:8:3::9"),
        endpoint(
            34,
            "web",
            EndpointState::NotReady,
            "10.8.3.41",
            "fd00:8:3::41",
        ),
    ]
}

fn health(level: HealthLevel) -> EndpointHealth {
    EndpointHealth {
        overall_health: level,
        bpf: level,
        policy: HealthLevel::Disabled,
        connected: level == HealthLevel::Ok,
    }
}

fn log() -> Vec<LogEntry> {
    let entry = |timestamp, state, message| LogEntry {
        timestamp: text(timestamp),
        code: text("OK"),
        state,
        message: text(message),
    };
    vec![
        entry(
            "2026-03-01T10:00:01Z",
            EndpointState::Ready,
            "rows are in the kernel",
        ),
        entry(
            "2026-03-01T10:00:00Z",
            EndpointState::WaitingForIdentity,
            "created",
        ),
    ]
}

pub(crate) fn peer(address: &str, port: u16, name: &str, identity: u32, endpoint: u16) -> Peer {
    Peer {
        address: text(address),
        port: Some(port),
        identity,
        endpoint,
        name: text(name),
        labels: Vec::new(),
    }
}

fn events() -> Vec<Event> {
    let packet = PacketEvent {
        time: text("2026-03-01T10:00:00.000000042Z"),
        node: text("n1"),
        state: text("new"),
        hook: text("from_container"),
        ifindex: 31,
        interface: text("weir0a1b2c3d"),
        flow_hash: 0x5be1_c2d0,
        length: 54,
        source: peer("10.8.3.9", 47110, "shop/cli", 268, 12),
        destination: peer("10.8.5.99", 8080, "", 0, 0),
        protocol: Some(text("TCP")),
        flags: text("SYN"),
        direction: text("egress"),
        capture: text(
            "0a5745495201020202020202080045000028000040004006212b0a0803090a080563b8061f90000003e8000000005002faf000000000",
        ),
        ..PacketEvent::default()
    };
    vec![
        Event::Agent(AgentEvent {
            time: text("2026-03-01T09:59:59.000000000Z"),
            node: text("n1"),
            subtype: text("endpoint-created"),
            message: text("endpoint 12 shop/cli with 10.8.3.9, fd00:8:3::9"),
        }),
        Event::Drop(PacketEvent {
            reason_code: Some(151),
            reason: Some(text("Stale or unroutable IP")),
            reason_enum: Some(text("STALE_OR_UNROUTABLE_IP")),
            hint: Some(text("no pod has 10.8.5.99 (any more)")),
            ..packet.clone()
        }),
        Event::Trace(PacketEvent {
            observation_point: Some(text("to-endpoint")),
            source: peer("fd00:8:5::7", 80, "shop/db", 300, 0),
            destination: peer("fd00:8:3::41", 40000, "shop/web", 290, 34),
            flags: text("SYN, ACK"),
            state: text("reply"),
            reply: true,
            direction: text("ingress"),
            ..packet
        }),
        Event::Lost(LostEvent {
            time: text("2026-03-01T10:00:02.000000000Z"),
            node: text("n1"),
            place: text("kernel"),
            count: 17,
        }),
    ]
}

fn flows() -> Vec<Flow> {
    let opened = Flow {
        protocol: text("TCP"),
        direction: text("OUT"),
        reply: false,
        source: text("10.8.3.9"),
        source_port: 51990,
        destination: text("93.184.216.34"),
        destination_port: 443,
        source_name: text("shop/cli"),
        destination_name: text("world"),
        source_identity: 268,
        service: String::new(),
        allowed_by: Vec::new(),
        translated: Some(Translated {
            source: text("172.18.0.2"),
            source_port: 51990,
            destination: text("93.184.216.34"),
            destination_port: 443,
        }),
        masquerade: true,
        expires_in: 7995,
        created_ago: 12,
        packets: 7,
        bytes: 900,
        tcp_flags_seen: 0x1b,
        flags: texts(&["SeenNonSyn", "Answered"]),
        action: text("to-device"),
        current: true,
    };
    vec![
        opened.clone(),
        Flow {
            reply: true,
            source: text("93.184.216.34"),
            source_port: 443,
            destination: text("172.18.0.2"),
            destination_port: 51990,
            source_name: text("world"),
            destination_name: text("node/n1"),
            source_identity: 9,
            translated: Some(Translated {
                source: text("93.184.216.34"),
                source_port: 443,
                destination: text("10.8.3.9"),
                destination_port: 51990,
            }),
            action: text("to-endpoint"),
            ..opened.clone()
        },
        Flow {
            protocol: text("UDP"),
            direction: text("IN"),
            source: text("fd00:8:5::7"),
            source_port: 5353,
            destination: text("fd00:8:3::41"),
            destination_port: 53,
            source_name: text("shop/db"),
            destination_name: text("shop/web"),
            source_identity: 300,
            translated: None,
            masquerade: false,
            expires_in: -1,
            tcp_flags_seen: 0,
            flags: Vec::new(),
            action: text("to-endpoint"),
            current: false,
            ..opened
        },
    ]
}

fn ipcache() -> Vec<IpcacheEntry> {
    let entry =
        |prefix, identity, labels: &[&str], name, tunnel: Option<&str>, source| IpcacheEntry {
            prefix: text(prefix),
            identity,
            labels: texts(labels),
            name: text(name),
            tunnel_endpoint: tunnel.map(text),
            flags: Vec::new(),
            source: text(source),
        };
    let namespace = "k8s:io.kubernetes.pod.namespace=shop";
    vec![
        entry(
            "0.0.0.0/0",
            9,
            &["reserved:world-ipv4"],
            "world",
            None,
            "reserved",
        ),
        entry(
            "10.8.3.9/32",
            268,
            &["k8s:app=cli", namespace],
            "shop/cli",
            None,
            "agent-local",
        ),
        entry(
            "10.8.5.7/32",
            300,
            &["k8s:app=db", namespace],
            "shop/db",
            Some("172.18.0.3"),
            "k8s",
        ),
        entry(
            "172.18.0.3/32",
            6,
            &["reserved:remote-node"],
            "node/n2",
            None,
            "k8s",
        ),
    ]
}

fn kernel_endpoints() -> Vec<EndpointEntry> {
    vec![
        EndpointEntry {
            address: text("10.8.3.9"),
            id: 12,
            identity: 268,
            ifindex: 31,
            mac: text("0e:00:00:00:00:01"),
            flags: 1,
            name: text("shop/cli"),
            localhost: false,
        },
        EndpointEntry {
            address: text("172.18.0.2"),
            id: 1,
            identity: 1,
            ifindex: 0,
            mac: text("00:00:00:00:00:00"),
            flags: 0,
            name: text("node/n1"),
            localhost: true,
        },
    ]
}

fn kernel_metrics() -> Vec<MetricEntry> {
    let entry = |code, reason, direction, packets, bytes| MetricEntry {
        code,
        reason: text(reason),
        direction: text(direction),
        packets,
        bytes,
    };
    vec![
        entry(0, "Success", "INGRESS", 1_000_000, 64_000_000),
        entry(0, "Success", "EGRESS", 999, 64_000),
        entry(133, "Policy denied", "INGRESS", 0, 0),
        entry(151, "Stale or unroutable IP", "EGRESS", 3, 180),
    ]
}

fn maps() -> Vec<MapState> {
    let map = |name, title, kind, used, size| MapState {
        name: text(name),
        title: text(title),
        kind: text(kind),
        used,
        size,
        errors: 0,
    };
    vec![
        map(
            "flows",
            "ct-global (connection tracking and NAT)",
            "lru-hash",
            Some(131_072),
            524_288,
        ),
        map(
            "fragments",
            "ct-fragments (IP fragmentation)",
            "lru-hash",
            Some(0),
            8192,
        ),
        map("ipcache", "IP cache", "lpm-trie", Some(4), 512_000),
        map("events", "Events", "ringbuf", None, 1 << 20),
    ]
}

fn map_rows(state: &str) -> Vec<MapEntry> {
    let row = |key, value, state| MapEntry {
        key: text(key),
        value: text(value),
        state: text(state),
    };
    vec![
        row("10.8.3.9/32", "identity=268 node=0 flags=0", "sync"),
        row("10.8.5.7/32", "identity=300 node=1 flags=0", state),
    ]
}

fn identities() -> Vec<IdentityEntry> {
    let entry = |id, labels: &[&str], references| IdentityEntry {
        id,
        labels: texts(labels),
        references,
    };
    let namespace = "k8s:io.kubernetes.pod.namespace=shop";
    vec![
        entry(1, &["reserved:host"], 1),
        entry(268, &["k8s:app=cli", namespace], 1),
        entry(300, &["k8s:app=db", namespace], 3),
    ]
}

fn nodes() -> Vec<NodeEntry> {
    let node = |name, local, addresses: &[&str], pod_cidrs: &[&str], index| NodeEntry {
        name: text(name),
        local,
        addresses: texts(addresses),
        pod_cidrs: texts(pod_cidrs),
        index,
        source: text("k8s"),
    };
    vec![
        node(
            "n1",
            true,
            &["172.18.0.2", "fd00:18::2"],
            &["10.8.3.0/24", "fd00:8:3::/64"],
            0,
        ),
        node(
            "n2",
            false,
            &["172.18.0.3", "fd00:18::3"],
            &["10.8.5.0/24", "fd00:8:5::/64"],
            1,
        ),
    ]
}

const METRICS: &str = "\
# HELP weir_drop_count_total Packets dropped.
# TYPE weir_drop_count_total counter
weir_drop_count_total{reason=\"Stale or unroutable IP\",direction=\"EGRESS\"} 3
weir_forward_count_total{direction=\"INGRESS\"} 1000000
weir_bpf_map_pressure{map_name=\"flows\"} 0.25
# EOF
";
