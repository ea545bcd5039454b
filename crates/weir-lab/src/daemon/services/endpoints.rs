// SPDX-License-Identifier: Apache-2.0
//! One pod as an endpoint of a service, as the endpoint-slice controller sees it.

use std::net::IpAddr;

use serde_json::{Value, json};
use weir_net::Family;

use super::super::store::Store;
use crate::object::{Key, Object};

/// The label of a node that says where it stands.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Whether a service's selector takes a pod.
pub(super) fn selects(service: &Object, pod: &Object) -> bool {
    let labels = pod.labels();
    let selector = service.get("/spec/selector").and_then(Value::as_object);
    selector.is_some_and(|selector| {
        let fits = |key: &str, value: &Value| labels.get(key).map(String::as_str) == value.as_str();
        !selector.is_empty() && selector.iter().all(|(key, value)| fits(key, value))
    })
}

/// A pod as an endpoint; none when it has no address of the family, or has ended, whatever it was.
pub(super) fn endpoint(
    store: &Store,
    service: &Object,
    pod: &Object,
    family: Family,
) -> Option<Value> {
    if matches!(pod.text("/status/phase"), Some("Succeeded" | "Failed")) {
        return None;
    }
    let address = addresses(pod)
        .into_iter()
        .find(|address| Family::of(*address) == family)?;
    let always = service.flag("/spec/publishNotReadyAddresses");
    let serving = pod
        .list("/status/conditions")
        .iter()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
    let terminating = pod.get("/metadata/deletionTimestamp").is_some();
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {
            "ready": always || (serving && !terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.namespace(),
            "name": pod.name(),
            "uid": pod.text("/metadata/uid"),
        },
    });
    if let Some(node) = pod.text("/spec/nodeName") {
        endpoint["nodeName"] = json!(node);
        let zone = store
            .get(&Key::new("Node", "", node))
            .and_then(|node| node.labels().remove(ZONE));
        if let Some(zone) = zone {
            endpoint["zone"] = json!(zone);
        }
    }
    let hostname = pod
        .text("/spec/hostname")
        .filter(|_| pod.text("/spec/subdomain") == Some(service.name()));
    if let Some(hostname) = hostname {
        endpoint["hostname"] = json!(hostname);
    }
    Some(endpoint)
}

/// The addresses of a pod.
pub(super) fn addresses(pod: &Object) -> Vec<IpAddr> {
    let listed = pod.list("/status/podIPs").iter();
    let mut texts: Vec<&str> = listed.filter_map(|entry| entry["ip"].as_str()).collect();
    if texts.is_empty() {
        texts.extend(pod.text("/status/podIP"));
    }
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The ports of a service as a pod has them; a port whose name the pod lacks is left out.
pub(super) fn ports(service: &Object, pod: &Object) -> Vec<Value> {
    let ports = service.list("/spec/ports").iter();
    ports.filter_map(|port| resolve(port, pod)).collect()
}

fn resolve(port: &Value, pod: &Object) -> Option<Value> {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let target = if port["targetPort"].is_null() {
        &port["port"]
    } else {
        &port["targetPort"]
    };
    let number = match target.as_str() {
        None => target.as_u64()?,
        Some(name) => named_port(pod, name, protocol)?,
    };
    let mut resolved = json!({
        "name": port["name"].as_str().unwrap_or_default(),
        "port": number,
        "protocol": protocol,
    });
    if let Some(application) = port["appProtocol"].as_str() {
        resolved["appProtocol"] = json!(application);
    }
    Some(resolved)
}

/// Containers come first, then init containers that keep running.
fn named_port(pod: &Object, name: &str, protocol: &str) -> Option<u64> {
    let sidecars = pod
        .list("/spec/initContainers")
        .iter()
        .filter(|container| container["restartPolicy"] == "Always");
    pod.list("/spec/containers")
        .iter()
        .chain(sidecars)
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .find(|own| own["name"] == name && own["protocol"].as_str().unwrap_or("TCP") == protocol)
        .and_then(|own| own["containerPort"].as_u64())
}
