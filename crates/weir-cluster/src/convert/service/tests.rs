// SPDX-License-Identifier: Apache-2.0
//! Services that are taken in, and the field that is named for each that is not.

use serde_json::{Value, json};

use super::super::{Converted, convert};
use super::*;

fn raw() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "creationTimestamp": "2026-01-02T03:04:05Z",
                     "annotations": {"service.kubernetes.io/topology-mode": "Auto"}},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00:96::9"],
                 "selector": {"app": "web"}, "externalIPs": ["203.0.113.250"],
                 "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster",
                 "sessionAffinity": "ClientIP", "healthCheckNodePort": 31000,
                 "loadBalancerSourceRanges": [" 203.0.113.7/24", "fd00::/8"],
                 "trafficDistribution": "PreferSameNode",
                 "ports": [{"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                           {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 0}]},
        "status": {"loadBalancer": {"ingress": [
            {"ip": "198.51.100.1"}, {"ip": "198.51.100.2", "ipMode": "Proxy"}, {"hostname": "lb.example"}]}}
    })
}

fn accepted(change: impl FnOnce(&mut Value)) -> Arc<Service> {
    let mut raw = raw();
    change(&mut raw);
    let Converted::Object(Object::Service(service)) = convert(raw).unwrap() else {
        panic!()
    };
    service
}

#[test]
fn every_field_is_taken_in() {
    let service = accepted(|_| {});
    assert_eq!(service.reference.to_string(), "shop/web");
    assert_eq!(service.created, 1_767_323_045);
    assert_eq!(service.kind, ServiceType::LoadBalancer);
    assert_eq!(service.cluster_ips.len(), 2);
    assert_eq!(service.selector.to_string(), "app=web");
    assert_eq!(
        (service.internal_policy, service.external_policy),
        (TrafficPolicy::Cluster, TrafficPolicy::Local)
    );
    assert_eq!(service.affinity_seconds, Some(10_800));
    assert_eq!(service.health_check(), Some(31_000));
    assert!(service.allocate_node_ports && !service.publish_not_ready && service.is_served());
    assert_eq!(service.distribution, Some(Distribution::PreferSameNode));
    assert_eq!(service.topology_mode.as_deref(), Some("Auto"));
    let shown: Vec<_> = service
        .source_ranges
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(shown, ["203.0.113.0/24", "fd00::/8"]);
    let addresses: Vec<_> = service
        .load_balancer_ips()
        .map(|ip| ip.to_string())
        .collect();
    assert_eq!(
        (addresses, service.ingress.len()),
        (vec!["198.51.100.1".to_owned()], 2)
    );
    let [http, dns] = &*service.ports else {
        panic!()
    };
    assert_eq!(
        (http.port, http.node_port, &*http.name),
        (80, Some(30_080), "http")
    );
    assert_eq!(http.target, TargetPort::Name("web".into()));
    assert_eq!(
        (dns.protocol, &dns.target),
        (weir_abi::Protocol::UDP, &TargetPort::Number(53))
    );
}

#[test]
fn services_that_no_node_answers_for() {
    let headless = accepted(|raw| {
        raw["spec"]["clusterIP"] = json!("None");
        raw["spec"]["clusterIPs"] = json!(["None"]);
    });
    assert!(headless.headless && !headless.is_served() && headless.cluster_ips.is_empty());
    for label in ["service-proxy-name", "headless"] {
        let excluded = accepted(|raw| {
            raw["metadata"]["labels"] = json!({format!("service.kubernetes.io/{label}"): ""});
        });
        assert!(!excluded.is_served(), "{label}");
    }
    let name = accepted(|raw| {
        raw["spec"] = json!({"type": "ExternalName", "externalName": "example.org"});
    });
    assert!(!name.is_served() && name.ports.is_empty());
    let new = accepted(|raw| {
        raw["spec"]["clusterIP"] = json!("");
        raw["spec"]["clusterIPs"] = json!(null);
    });
    assert!(new.is_served() && new.cluster_ips.is_empty());
}

/// What is wrong, the field that is named for it, and what is said about it.
type Case = (&'static str, Value, &'static str, &'static str);

fn wrong_fields() -> [Case; 12] {
    [
        ("/metadata/name", json!("a.b"), "metadata.name", "holds `.`"),
        (
            "/spec/type",
            json!("Magic"),
            "spec.type",
            "`Magic` is not a type",
        ),
        (
            "/spec/clusterIPs/0",
            json!("10.96.0"),
            "spec.clusterIPs[0]",
            "not an IP",
        ),
        (
            "/spec/clusterIPs/1",
            json!("10.96.0.10"),
            "spec.clusterIPs",
            "one address of each family",
        ),
        (
            "/spec/clusterIPs/1",
            json!("None"),
            "spec.clusterIPs",
            "beside addresses",
        ),
        (
            "/spec/externalIPs/0",
            json!("127.0.0.1"),
            "spec.externalIPs[0]",
            "cannot be the address of a service",
        ),
        (
            "/spec/selector/app",
            json!("a b"),
            "spec.selector",
            "value `a b`",
        ),
        (
            "/spec/externalTrafficPolicy",
            json!("Near"),
            "spec.externalTrafficPolicy",
            "Cluster or Local",
        ),
        (
            "/spec/internalTrafficPolicy",
            json!("Near"),
            "spec.internalTrafficPolicy",
            "Cluster or Local",
        ),
        (
            "/spec/sessionAffinity",
            json!("Cookie"),
            "spec.sessionAffinity",
            "None or ClientIP",
        ),
        (
            "/spec/healthCheckNodePort",
            json!(70000),
            "spec.healthCheckNodePort",
            "not a port",
        ),
        (
            "/spec/loadBalancerSourceRanges/1",
            json!("fd00::"),
            "spec.loadBalancerSourceRanges[1]",
            "not a CIDR",
        ),
    ]
}

fn wrong_ports() -> [Case; 6] {
    [
        (
            "/spec/ports/0/port",
            json!(0),
            "spec.ports[0].port",
            "0 is not a port",
        ),
        (
            "/spec/ports/0/targetPort",
            json!(-4),
            "spec.ports[0].targetPort",
            "-4 is not a port",
        ),
        (
            "/spec/ports/1/nodePort",
            json!(99999),
            "spec.ports[1].nodePort",
            "not a port",
        ),
        (
            "/spec/ports/1/protocol",
            json!("ICMP"),
            "spec.ports[1].protocol",
            "`ICMP` is not TCP",
        ),
        (
            "/spec/ports/1/name",
            json!("http"),
            "spec.ports[1].name",
            "called `http` too",
        ),
        (
            "/status/loadBalancer/ingress/0/ip",
            json!("::1"),
            "status.loadBalancer.ingress[0].ip",
            "a load balancer",
        ),
    ]
}

/// Whoever writes a status by hand leaves the time out, and the API server sends it as null.
#[test]
fn conditions_do_not_decide_over_a_service() {
    let plain = accepted(|_| {});
    let condition = json!([{"type": "Ready", "status": "True", "reason": "Patched", "message": "",
                            "lastTransitionTime": null}]);
    let service = accepted(|raw| raw["status"]["conditions"] = condition);
    assert_eq!(service, plain);
}

#[test]
fn the_field_that_is_wrong_is_named() {
    for (pointer, value, field, message) in wrong_fields().into_iter().chain(wrong_ports()) {
        let mut raw = raw();
        *raw.pointer_mut(pointer).unwrap() = value;
        let found = convert(raw).unwrap_err();
        assert_eq!(found.field, field);
        assert!(
            found.message.contains(message),
            "{field}: {}",
            found.message
        );
    }
    let mut long = raw();
    long["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 90_000}});
    let found = convert(long).unwrap_err();
    assert_eq!(
        found.field,
        "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
    );
}
