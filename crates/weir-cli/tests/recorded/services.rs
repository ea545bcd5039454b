// SPDX-License-Identifier: Apache-2.0
//! Services of the same small node.

use super::agent::{json, lines};
use super::world::{peer, text, texts};
use weir_api::event::{AgentEvent, Event, PacketEvent};
use weir_api::lb::{LbAffinity, LbBackend, LbFrontend, LbMaglev, LbShare, LbSocket, LbSourceRange};
use weir_api::policy::PolicyRule;
use weir_api::service::{
    BackendAddress, FrontendAddress, Service, ServiceFlags, ServiceSpec, ServiceStatus,
    ServicesCompared,
};
use weir_api::status;

pub(crate) fn answers() -> Vec<(&'static str, (u16, String))> {
    let compared = ServicesCompared {
        services: 3,
        frontends: 4,
        backends: 2,
        rows: 23,
        repaired: texts(&["set frontends 10.96.0.9:80/TCP", "delete backends 7"]),
        failed: Vec::new(),
        took_ms: 4,
    };
    let mut live = flows();
    live.insert(
        2,
        Event::Agent(AgentEvent {
            time: text("2026-03-01T10:00:00Z"),
            node: text("n1"),
            subtype: text("flows-live"),
            message: text("from now on"),
        }),
    );
    let [table, entries] = maglev();
    vec![
        ("GET /v1/services", lines(&services())),
        ("POST /v1/services/compare", json(&compared)),
        ("GET /v1/flows", lines(&flows())),
        ("GET /v1/flows?follow=true", lines(&live)),
        ("GET /v1/kernel/lb/frontends", lines(&frontends())),
        ("GET /v1/kernel/lb/backends", lines(&backends())),
        ("GET /v1/kernel/lb/source-ranges", lines(&source_ranges())),
        ("GET /v1/kernel/lb/maglev", lines(&[table])),
        ("GET /v1/kernel/lb/maglev?entries=true", lines(&[entries])),
        ("GET /v1/kernel/lb/affinity", lines(&affinity())),
        ("GET /v1/kernel/lb/sockets", lines(&sockets())),
    ]
}

pub(crate) fn status() -> status::ServiceStatus {
    status::ServiceStatus {
        socket_lb: true,
        algorithm: text("random"),
        mode: text("snat"),
        acceleration: text("disabled"),
        no_backend: text("reject"),
        node_port_range: text("30000-32767"),
        services: 3,
        frontends: 4,
        backends: 2,
        without_backend: 1,
    }
}

fn service(id: u32, ip: &str, port: u16, kind: &str, name: &str) -> Service {
    Service {
        spec: ServiceSpec {
            id,
            frontend_address: FrontendAddress {
                ip: text(ip),
                port,
                protocol: text("TCP"),
            },
            flags: ServiceFlags {
                kind: text(kind),
                namespace: text("shop"),
                name: text(name),
                port_name: text("http"),
                ext_traffic_policy: text("Cluster"),
                int_traffic_policy: text("Cluster"),
                ..ServiceFlags::default()
            },
            backend_addresses: Vec::new(),
        },
        status: ServiceStatus {
            realized: true,
            ..ServiceStatus::default()
        },
    }
}

fn backend(ip: &str, pod: &str, state: &str, internal: bool, external: bool) -> BackendAddress {
    BackendAddress {
        ip: text(ip),
        port: 8080,
        protocol: text("TCP"),
        state: text(state),
        node_name: text("n1"),
        pod_name: text(pod),
        internal,
        external,
        ..BackendAddress::default()
    }
}

fn services() -> Vec<Service> {
    let mut inside = service(1, "10.96.0.9", 80, "ClusterIP", "web");
    inside.spec.backend_addresses = vec![
        backend("10.8.3.41", "shop/web", "active", true, true),
        backend("10.8.5.12", "shop/web-2", "terminating", false, false),
    ];
    let mut outside = service(7, "172.18.0.2", 31080, "NodePort", "web");
    outside.spec.flags.ext_traffic_policy = text("Local");
    outside.spec.flags.affinity_timeout = 10_800;
    outside.spec.flags.health_check_node_port = Some(32_000);
    outside.spec.backend_addresses = vec![
        backend("10.8.3.41", "shop/web", "active", true, true),
        backend("10.8.5.12", "shop/web-2", "active", true, false),
    ];
    let mut empty = service(8, "fd00:96::5", 443, "ClusterIP", "db");
    empty.spec.flags.port_name = String::new();
    empty.spec.flags.source_ranges = texts(&["203.0.113.0/24"]);
    empty.status.no_backend = Some(text("its selector app=db matches no pod"));
    let mut local = service(9, "203.0.113.7", 80, "LoadBalancer", "web");
    local.spec.backend_addresses = vec![backend("10.8.5.12", "shop/web-2", "active", true, false)];
    local.status.no_external_backend = Some(text("none of its pods runs on this node"));
    vec![inside, outside, empty, local]
}

fn frontends() -> Vec<LbFrontend> {
    let frontend = LbFrontend {
        address: text("10.96.0.9:80/TCP"),
        id: 1,
        service: 1,
        name: text("shop/web:http"),
        kind: text("ClusterIP"),
        flags: texts(&["non-routable"]),
        internal: texts(&["10.8.3.41:8080", "10.8.5.12:8080"]),
        external: None,
    };
    vec![
        frontend.clone(),
        LbFrontend {
            address: text("[fd00:18::2]:31080/TCP"),
            id: 7,
            kind: text("NodePort"),
            flags: texts(&["local", "affinity 10800s"]),
            internal: texts(&["[fd00:8:3::41]:8080", "[fd00:8:5::12]:8080"]),
            external: Some(texts(&["[fd00:8:3::41]:8080"])),
            ..frontend
        },
    ]
}

fn backends() -> Vec<LbBackend> {
    let backend = |address, name, flags: &[&str]| LbBackend {
        address: text(address),
        service: 1,
        service_name: text("shop/web:http"),
        name: text(name),
        flags: texts(flags),
    };
    vec![
        backend(
            "10.8.3.41:8080",
            "shop/web",
            &["internal", "external", "local"],
        ),
        backend("10.8.5.12:8080", "shop/web-2", &["terminating"]),
    ]
}

fn source_ranges() -> Vec<LbSourceRange> {
    vec![LbSourceRange {
        service: 3,
        service_name: String::new(),
        range: text("203.0.113.0/24"),
    }]
}

/// Without entries, and with them.
fn maglev() -> [LbMaglev; 2] {
    let share = |backend, entries| LbShare {
        backend: text(backend),
        entries,
    };
    let table = LbMaglev {
        table: 0,
        size: 7,
        services: texts(&["shop/web:http"]),
        shares: vec![share("10.8.3.41:8080", 4), share("10.8.5.12:8080", 3)],
        entries: Vec::new(),
    };
    let entries = LbMaglev {
        entries: vec![0, 1, 0, 1, 1, 0, 0],
        ..table.clone()
    };
    [table, entries]
}

fn affinity() -> Vec<LbAffinity> {
    vec![LbAffinity {
        client: text("10.8.3.9"),
        client_name: text("shop/cli"),
        service: 1,
        service_name: text("shop/web:http"),
        backend: text("10.8.3.41:8080"),
        last_used: 75,
    }]
}

fn sockets() -> Vec<LbSocket> {
    vec![LbSocket {
        cookie: 4711,
        protocol: text("UDP"),
        backend: text("10.8.3.41:5353"),
        frontend: text("10.96.0.10:53"),
        service: 4,
        service_name: text("kube-system/kube-dns:dns"),
    }]
}

fn flows() -> Vec<Event> {
    let packet = PacketEvent {
        time: text("2026-03-01T10:00:00.000000042Z"),
        node: text("n1"),
        state: text("new"),
        hook: text("from_container"),
        source: peer("10.8.3.9", 47110, "shop/cli", 268, 12),
        destination: peer("10.96.0.9", 80, "svc:shop/web", 2, 0),
        protocol: Some(text("TCP")),
        flags: text("SYN"),
        direction: text("egress"),
        observation_point: Some(text("to-endpoint")),
        service: Some(text("shop/web:http")),
        translated_destination: Some(text("10.8.3.41:8080")),
        translated_destination_name: Some(text("shop/web")),
        ..PacketEvent::default()
    };
    let denied = PacketEvent {
        observation_point: None,
        reason_code: Some(133),
        reason: Some(text("Policy denied")),
        reason_enum: Some(text("POLICY_DENIED")),
        hint: Some(text("run `weir policy trace`")),
        source: peer("10.8.5.7", 40001, "shop/db", 300, 0),
        destination: peer("10.8.3.41", 8080, "shop/web", 290, 34),
        service: None,
        translated_destination: None,
        translated_destination_name: None,
        direction: text("ingress"),
        isolated_by: vec![PolicyRule {
            kind: text("NetworkPolicy"),
            namespace: text("shop"),
            name: text("web"),
            rule: None,
        }],
        ..packet.clone()
    };
    vec![
        Event::Trace(packet),
        Event::PolicyVerdict(denied.clone()),
        Event::Drop(denied),
    ]
}
