// SPDX-License-Identifier: Apache-2.0
//! Objects that are taken in, and the field that is named for each that is not.

use serde_json::json;
use weir_model::HostPort;

use super::*;

fn refused(raw: Value) -> (String, String) {
    let problem = convert(raw).unwrap_err();
    (problem.field, problem.message)
}

fn pod_with(change: impl FnOnce(&mut Value)) -> Value {
    let mut raw = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"},
                     "creationTimestamp": "2026-01-02T03:04:05Z"},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}]},
        "status": {"podIP": "10.244.1.5", "podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd00::5"}]}
    });
    change(&mut raw);
    raw
}

#[test]
fn a_pod_is_taken_in() {
    let Converted::Object(Object::Pod(pod)) = convert(pod_with(|_| {})).unwrap() else {
        panic!()
    };
    assert_eq!(pod.reference.to_string(), "shop/web");
    assert_eq!(pod.addresses.len(), 2);
    assert_eq!(pod.container_ports.len(), 2);
    assert_eq!(pod.created, 1_767_323_045);
    assert!(!pod.host_network);
    let ended = pod_with(|raw| raw["status"]["phase"] = json!("Succeeded"));
    assert!(matches!(convert(ended), Ok(Converted::Ended)));
}

#[test]
fn host_ports_are_taken_in() {
    let raw = pod_with(|raw| {
        let ports = &mut raw["spec"]["containers"][0]["ports"];
        ports[0]["hostPort"] = json!(8080);
        ports[1]["hostPort"] = json!(53);
        ports[1]["hostIP"] = json!("127.0.0.1");
    });
    let Converted::Object(Object::Pod(pod)) = convert(raw).unwrap() else {
        panic!()
    };
    let host = |index: usize| pod.container_ports[index].host;
    let at = |port, address| Some(HostPort { port, address });
    assert_eq!(host(0), at(8080, None));
    assert_eq!(host(1), at(53, Some("127.0.0.1".parse().unwrap())));
}

#[test]
fn the_field_that_is_wrong_is_named() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str, &str); 13] = [
        (
            |raw| raw["metadata"]["name"] = json!("x".repeat(254)),
            "metadata.name",
            "at most 253 bytes",
        ),
        (
            |raw| raw["metadata"]["name"] = json!("Web"),
            "metadata.name",
            "`Web` holds `W`",
        ),
        (
            |raw| raw["metadata"]["namespace"] = json!("a.b"),
            "metadata.namespace",
            "holds `.`",
        ),
        (
            |raw| raw["metadata"]["labels"]["a b"] = json!("c"),
            "metadata.labels",
            "label key `a b`",
        ),
        (
            |raw| raw["status"]["podIPs"][1]["ip"] = json!("fd00::x"),
            "status.podIPs[1].ip",
            "not an IP",
        ),
        (
            |raw| raw["status"]["podIP"] = json!("127.0.0.1"),
            "status.podIP",
            "cannot be",
        ),
        (
            |raw| raw["status"]["podIP"] = json!("::ffff:10.0.0.1"),
            "status.podIP",
            "write the IPv4 address",
        ),
        (
            |raw| raw["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(70000),
            "spec.containers[c].ports",
            "70000 is not a port",
        ),
        (
            |raw| raw["spec"]["containers"][0]["ports"][0]["containerPort"] = json!("http"),
            "spec.containers[0].ports[0].containerPort",
            "invalid type",
        ),
        (
            |raw| raw["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(-1),
            "spec.containers[c].ports",
            "-1 is not a port",
        ),
        (
            |raw| {
                raw["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(8080);
                raw["spec"]["containers"][0]["ports"][0]["hostIP"] = json!("here");
            },
            "spec.containers[c].ports",
            "`here` is not an IP",
        ),
        (
            |raw| raw["spec"]["containers"] = json!(7),
            "spec.containers",
            "invalid type",
        ),
        (
            |raw| drop(raw.as_object_mut().unwrap().remove("apiVersion")),
            "apiVersion",
            "missing",
        ),
    ];
    for (edit, field, message) in cases {
        let found = refused(pod_with(edit));
        assert_eq!(found.0, field);
        assert!(found.1.contains(message), "{field}: {}", found.1);
    }
}

#[test]
fn nodes_are_proven() {
    let node = |cidr: &str, address: &str| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
               "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
               "status": {"addresses": [{"type": "Hostname", "address": "n1"},
                                        {"type": "InternalIP", "address": address}]}})
    };
    assert!(convert(node("10.244.1.0/24", "172.18.0.2")).is_ok());
    assert_eq!(
        refused(node("10.244.1.1/24", "172.18.0.2")).0,
        "spec.podCIDRs"
    );
    assert_eq!(
        refused(node("10.244.1.0/24", "n1")).0,
        "status.addresses[1].address"
    );
}

#[test]
fn pods_tell_what_made_them() {
    let check = |kind: &str, name: &str, hash: Option<&str>, expected: Option<(&str, &str)>| {
        let raw = pod_with(|raw| {
            let controller = expected.is_some();
            raw["metadata"]["ownerReferences"] = json!([
                {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "a"},
                {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "b", "controller": controller},
            ]);
            if let Some(hash) = hash {
                raw["metadata"]["labels"]["pod-template-hash"] = json!(hash);
            }
        });
        let Converted::Object(Object::Pod(pod)) = convert(raw).unwrap() else {
            panic!()
        };
        let found = pod.workload.as_deref();
        let found = found.map(|one| (one.kind.as_str(), one.name.as_str()));
        assert_eq!(found, expected, "{kind} {name}");
    };
    let deployment = Some(("Deployment", "web"));
    check("ReplicaSet", "web-5c4", Some("5c4"), deployment);
    check(
        "ReplicaSet",
        "web-5c4",
        None,
        Some(("ReplicaSet", "web-5c4")),
    );
    check(
        "ReplicaSet",
        "web",
        Some("5c4"),
        Some(("ReplicaSet", "web")),
    );
    check("Job", "backup-29012345", None, Some(("CronJob", "backup")));
    check("Job", "backup-1", None, Some(("Job", "backup-1")));
    check("StatefulSet", "db", None, Some(("StatefulSet", "db")));
    check("Node", "n1", None, None);
}

#[test]
fn namespaces_have_their_denials_logged() {
    let check = |value: Value, expected: bool| {
        let raw = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": "shop", "annotations": {"policy.network.gke.io/enable-deny-logging": value}}});
        let Ok(Converted::Object(object)) = convert(raw) else {
            panic!()
        };
        let told: Vec<_> = object.changes().collect();
        let name = Namespace::new("shop").unwrap();
        let logged = weir_model::Change::NamespaceLogging(name);
        assert_eq!(told.get(1) == Some(&logged), expected);
        assert_eq!(told.len(), 1 + usize::from(expected));
    };
    check(json!("true"), true);
    check(json!("false"), false);
    check(json!("True"), false);
}

#[test]
fn other_kinds_are_skipped_by_name() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    assert!(matches!(convert(map), Ok(Converted::Skipped(kind)) if kind == "ConfigMap"));
}
