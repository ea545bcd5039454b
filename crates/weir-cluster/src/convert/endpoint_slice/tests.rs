// SPDX-License-Identifier: Apache-2.0
//! Slices that are taken in, and the field that is named for each that is not.

use serde_json::{Value, json};

use super::super::convert;
use super::*;

fn raw() -> Value {
    let hints = json!({"forZones": [{"name": "a"}], "forNodes": [{"name": "n1"}]});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-x1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "none"}],
        "endpoints": [
            {"addresses": ["10.244.1.5", "10.244.1.99"], "nodeName": "n1", "zone": "a", "hints": hints,
             "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "shop"},
             "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.244.2.5"], "nodeName": "n1", "zone": "a", "hints": hints,
             "targetRef": {"kind": "Node", "name": "n1"}}]
    })
}

#[test]
fn every_field_is_taken_in() {
    let Converted::Object(Object::EndpointSlice(slice)) = convert(raw()).unwrap() else {
        panic!()
    };
    assert_eq!(slice.reference.to_string(), "shop/web-x1");
    assert_eq!(
        (slice.service_ref().to_string(), slice.family),
        ("shop/web".to_owned(), Family::V4)
    );
    let ports: Vec<_> = slice
        .ports
        .iter()
        .map(|port| (&*port.name, port.port))
        .collect();
    assert_eq!(
        ports,
        [("http", Some(8080)), ("dns", Some(53)), ("none", None)]
    );
    let [first, second] = &*slice.endpoints else {
        panic!()
    };
    assert_eq!(first.address.to_string(), "10.244.1.5");
    assert_eq!(
        (first.ready, first.serving, first.terminating),
        (false, true, true)
    );
    assert_eq!(first.pod.as_ref().map(PodName::as_str), Some("web-1"));
    // Absent conditions are those of a ready endpoint.
    assert_eq!(
        (second.ready, second.serving, second.terminating),
        (true, true, false)
    );
    assert_eq!(second.pod, None);
    let (Some(one), Some(other)) = (&first.hints, &second.hints) else {
        panic!()
    };
    assert!(Arc::ptr_eq(one, other));
    assert_eq!((one.zones.len(), one.nodes.len()), (1, 1));
}

#[test]
fn slices_of_no_use_are_told_by_kind() {
    for (pointer, value, kind) in [
        ("/addressType", json!("FQDN"), "EndpointSlice of type FQDN"),
        (
            "/metadata/labels",
            json!({}),
            "EndpointSlice without a service",
        ),
    ] {
        let mut raw = raw();
        *raw.pointer_mut(pointer).unwrap() = value;
        assert!(matches!(convert(raw), Ok(Converted::Skipped(found)) if found == kind));
    }
}

#[test]
fn labels_say_that_nobody_balances_over_a_slice() {
    for label in UNBALANCED {
        let mut raw = raw();
        raw["metadata"]["labels"][label] = json!("");
        assert!(matches!(convert(raw), Ok(Converted::Unbalanced)), "{label}");
    }
}

#[test]
fn the_field_that_is_wrong_is_named() {
    let cases: [(&str, Value, &str, &str); 11] = [
        ("/metadata/name", json!("A"), "metadata.name", "holds `A`"),
        (
            "/metadata/labels",
            json!({"kubernetes.io/service-name": "a.b"}),
            "metadata.labels[kubernetes.io/service-name]",
            "holds `.`",
        ),
        (
            "/addressType",
            json!("IPX"),
            "addressType",
            "`IPX` is not IPv4",
        ),
        (
            "/ports/1/port",
            json!(70000),
            "ports[1].port",
            "70000 is not a port",
        ),
        (
            "/ports/1/protocol",
            json!("ICMP"),
            "ports[1].protocol",
            "not TCP",
        ),
        (
            "/endpoints/0/addresses",
            json!([]),
            "endpoints[0].addresses",
            "must not be empty",
        ),
        (
            "/endpoints/0/addresses/0",
            json!("0.0.0.0"),
            "endpoints[0].addresses[0]",
            "cannot be the address of an endpoint",
        ),
        (
            "/endpoints/1/addresses/0",
            json!("fd00::1"),
            "endpoints[1].addresses[0]",
            "not of type IPv4",
        ),
        (
            "/endpoints/1/nodeName",
            json!("N 1"),
            "endpoints[1].nodeName",
            "holds `N`",
        ),
        (
            "/endpoints/0/hints/forZones/0/name",
            json!("a b"),
            "endpoints[0].hints.forZones[0].name",
            "only letters",
        ),
        (
            "/endpoints/0/targetRef/name",
            json!("A"),
            "endpoints[0].targetRef.name",
            "holds `A`",
        ),
    ];
    for (pointer, value, field, message) in cases {
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
}
