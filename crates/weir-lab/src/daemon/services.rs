// SPDX-License-Identifier: Apache-2.0
//! What a control plane adds to services: cluster IPs, node ports, and `EndpointSlices` that follow the pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde_json::{Value, json};
use weir_net::Family;

use super::store::Store;
use crate::object::{Key, Object};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const OWN: &str = "lab.weir.dev";
const NODE_PORTS: std::ops::RangeInclusive<u64> = 30000..=32767;
/// The first addresses of a range are by custom those of the API server and of the DNS server.
const FIRST: u128 = 16;

/// Gives every service the addresses and ports that it lacks, and makes the slices follow services and pods.
/// Looks only at what changes can have touched since the last time they were published.
pub(crate) fn follow(store: &mut Store, cidrs: &[IpNet]) {
    if !store.dirty(&["Service"]).is_empty() {
        for service in complete(store, cidrs) {
            store.upsert(service);
        }
    }
    for namespace in store.dirty(&["Service", "Pod", "EndpointSlice"]) {
        let wanted = slices(store, &namespace);
        let stale: Vec<Key> = store
            .in_namespace("EndpointSlice", &namespace)
            .filter(|slice| is_own(slice) && !wanted.contains_key(&slice.key()))
            .map(Object::key)
            .collect();
        for key in stale {
            store.remove(&key);
        }
        for slice in wanted.into_values() {
            store.upsert(slice);
        }
    }
}

/// The services that lack something, completed.
fn complete(store: &Store, cidrs: &[IpNet]) -> Vec<Object> {
    let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
    let mut node_ports: BTreeSet<u64> = BTreeSet::new();
    for service in store.of_kind("Service") {
        addresses.extend(
            cluster_ips(service)
                .iter()
                .filter_map(|text| text.parse::<IpAddr>().ok()),
        );
        let ports = service.list("/spec/ports").iter();
        node_ports.extend(ports.filter_map(|port| port["nodePort"].as_u64()));
    }
    let mut search = Search::new(cidrs, addresses);
    let mut completed = Vec::new();
    for service in store.of_kind("Service") {
        let kind = service.text("/spec/type").unwrap_or("ClusterIP");
        if kind == "ExternalName" {
            continue;
        }
        let mut new = service.clone();
        let spec = &mut new.value_mut()["spec"];
        let mut own = cluster_ips(service);
        if own.is_empty() {
            for family in families(service, cidrs) {
                own.extend(search.take(family).map(|free| free.to_string()));
            }
        }
        spec["clusterIP"] = json!(own.first());
        spec["clusterIPs"] = json!(own);
        if matches!(kind, "NodePort" | "LoadBalancer") {
            for port in spec["ports"].as_array_mut().into_iter().flatten() {
                let free = NODE_PORTS
                    .clone()
                    .find(|number| !node_ports.contains(number));
                if let (true, Some(number)) = (port["nodePort"].is_null(), free) {
                    node_ports.insert(number);
                    port["nodePort"] = json!(number);
                }
            }
        }
        if new != *service {
            completed.push(new);
        }
    }
    completed
}

fn cluster_ips(service: &Object) -> Vec<String> {
    let listed = service
        .list("/spec/clusterIPs")
        .iter()
        .filter_map(Value::as_str);
    let mut texts: Vec<String> = listed.map(ToOwned::to_owned).collect();
    if texts.is_empty() {
        let single = service
            .text("/spec/clusterIP")
            .filter(|text| !text.is_empty());
        texts.extend(single.map(ToOwned::to_owned));
    }
    texts
}

/// The families that a service gets addresses of, its first one first.
fn families(service: &Object, cidrs: &[IpNet]) -> Vec<Family> {
    let mut families: Vec<Family> = service
        .list("/spec/ipFamilies")
        .iter()
        .filter_map(|family| serde_json::from_value(family.clone()).ok())
        .collect();
    let dual = service
        .text("/spec/ipFamilyPolicy")
        .is_some_and(|policy| matches!(policy, "PreferDualStack" | "RequireDualStack"));
    for family in cidrs.iter().map(|cidr| Family::of(cidr.addr())) {
        if !families.contains(&family) && (families.is_empty() || dual) {
            families.push(family);
        }
    }
    families
}

/// Looks for addresses nobody has; what was passed over is not looked at again.
struct Search<'a> {
    cidrs: &'a [IpNet],
    next: Vec<u128>,
    taken: BTreeSet<IpAddr>,
}

impl<'a> Search<'a> {
    fn new(cidrs: &'a [IpNet], taken: BTreeSet<IpAddr>) -> Self {
        Self {
            cidrs,
            next: vec![FIRST; cidrs.len()],
            taken,
        }
    }

    fn take(&mut self, family: Family) -> Option<IpAddr> {
        for (cidr, next) in self.cidrs.iter().zip(&mut self.next) {
            while let Some(address) = nth(*cidr, *next).filter(|ip| Family::of(*ip) == family) {
                *next += 1;
                if self.taken.insert(address) {
                    return Some(address);
                }
            }
        }
        None
    }
}

fn nth(cidr: IpNet, offset: u128) -> Option<IpAddr> {
    let address = match cidr.network() {
        IpAddr::V4(base) => IpAddr::V4(
            u32::from(base)
                .checked_add(u32::try_from(offset).ok()?)?
                .into(),
        ),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).checked_add(offset)?.into()),
    };
    cidr.contains(&address).then_some(address)
}

/// The slices of a namespace's services with a selector. A service whose slices came with the objects is left alone.
fn slices(store: &Store, namespace: &str) -> BTreeMap<Key, Object> {
    let brought: BTreeSet<String> = store
        .in_namespace("EndpointSlice", namespace)
        .filter(|slice| !is_own(slice))
        .filter_map(|slice| slice.labels().remove(SERVICE_NAME))
        .collect();
    let mut slices = BTreeMap::new();
    for service in store.in_namespace("Service", namespace) {
        let selector = service.get("/spec/selector").and_then(Value::as_object);
        let Some(selector) = selector.filter(|selector| !selector.is_empty()) else {
            continue;
        };
        if brought.contains(service.name()) {
            continue;
        }
        let pods: Vec<&Object> = store
            .in_namespace("Pod", namespace)
            .filter(|pod| {
                let labels = pod.labels();
                selector
                    .iter()
                    .all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
            })
            .collect();
        for family in Family::BOTH {
            for (number, (ports, endpoints)) in grouped(store, service, &pods, family)
                .into_iter()
                .enumerate()
            {
                if let Some(slice) = slice(service, family, number, &ports, &endpoints) {
                    slices.insert(slice.key(), slice);
                }
            }
        }
    }
    slices
}

/// The endpoints of one family, by the port numbers that the service's ports stand for in their pods.
fn grouped(
    store: &Store,
    service: &Object,
    pods: &[&Object],
    family: Family,
) -> Vec<(Vec<Value>, Vec<Value>)> {
    let mut groups: BTreeMap<String, (Vec<Value>, Vec<Value>)> = BTreeMap::new();
    let always = service
        .get("/spec/publishNotReadyAddresses")
        .is_some_and(|value| value == true);
    for pod in pods {
        if matches!(pod.text("/status/phase"), Some("Succeeded" | "Failed")) {
            continue;
        }
        let listed = pod
            .list("/status/podIPs")
            .iter()
            .filter_map(|entry| entry["ip"].as_str());
        let Some(address) = listed
            .filter_map(|text| text.parse::<IpAddr>().ok())
            .find(|address| Family::of(*address) == family)
        else {
            continue;
        };
        let ports: Vec<Value> = service
            .list("/spec/ports")
            .iter()
            .filter_map(|port| resolve(port, pod))
            .collect();
        let ready = pod
            .list("/status/conditions")
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
        let node = pod.text("/spec/nodeName").unwrap_or_default();
        let zone = store
            .get(&Key::new("Node", "", node))
            .and_then(|node| node.labels().remove("topology.kubernetes.io/zone"));
        let mut endpoint = json!({
            "addresses": [address],
            "conditions": {"ready": ready || always, "serving": ready, "terminating": false},
            "nodeName": node,
            "targetRef": {
                "kind": "Pod",
                "namespace": pod.namespace(),
                "name": pod.name(),
                "uid": pod.text("/metadata/uid"),
            },
        });
        if let Some(zone) = zone {
            endpoint["zone"] = json!(zone);
        }
        let group = groups.entry(Value::from(ports.clone()).to_string());
        group
            .or_insert_with(|| (ports, Vec::new()))
            .1
            .push(endpoint);
    }
    groups.into_values().collect()
}

/// A service's port as a pod has it; none when the pod lacks the name.
fn resolve(port: &Value, pod: &Object) -> Option<Value> {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let target = if port["targetPort"].is_null() {
        &port["port"]
    } else {
        &port["targetPort"]
    };
    let number = match target.as_str() {
        None => target.as_u64()?,
        Some(name) => pod
            .list("/spec/containers")
            .iter()
            .flat_map(|container| container["ports"].as_array().into_iter().flatten())
            .find(|own| {
                own["name"] == name && own["protocol"].as_str().unwrap_or("TCP") == protocol
            })
            .and_then(|own| own["containerPort"].as_u64())?,
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

fn slice(
    service: &Object,
    family: Family,
    number: usize,
    ports: &[Value],
    endpoints: &[Value],
) -> Option<Object> {
    let word = family.to_string();
    let name = format!("{}-{}-{number}", service.name(), word.to_lowercase());
    Object::new(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": service.namespace(),
            "labels": {SERVICE_NAME: service.name(), MANAGED_BY: OWN},
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": service.name(),
                "uid": service.text("/metadata/uid").unwrap_or_default(),
                "controller": true,
            }],
        },
        "addressType": word,
        "ports": ports,
        "endpoints": endpoints,
    }))
    .ok()
}

fn is_own(slice: &Object) -> bool {
    slice
        .labels()
        .get(MANAGED_BY)
        .is_some_and(|manager| manager == OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
        spec: {type: NodePort, selector: {app: web}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: http}]}\n";
    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop, labels: {app: web}}\n\
        spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}\n\
        status: {podIPs: [{ip: 10.244.1.5}], conditions: [{type: Ready, status: 'True'}]}\n";

    fn store(texts: &[&str]) -> Store {
        let mut store = Store::default();
        for object in texts
            .iter()
            .flat_map(|text| Object::parse_all(text).unwrap())
        {
            store.upsert(object);
        }
        follow(
            &mut store,
            &[
                "10.96.0.0/16".parse().unwrap(),
                "fd00:96::/112".parse().unwrap(),
            ],
        );
        store
    }

    fn service<'a>(store: &'a Store, name: &str) -> &'a Object {
        store.get(&Key::new("Service", "shop", name)).unwrap()
    }

    #[test]
    fn services_get_addresses_and_ports_once() {
        let mut store = store(&[WEB, &WEB.replace("name: web", "name: other")]);
        let other = service(&store, "other").clone();
        assert_eq!(
            other.get("/spec/clusterIPs"),
            Some(&json!(["10.96.0.16", "fd00:96::10"]))
        );
        assert_eq!(other.get("/spec/ports/0/nodePort"), Some(&json!(30000)));
        assert_eq!(
            service(&store, "web").text("/spec/clusterIP"),
            Some("10.96.0.17")
        );
        follow(&mut store, &["10.96.0.0/16".parse().unwrap()]);
        assert_eq!(*service(&store, "other"), other);
        let headless = WEB.replace("type: NodePort", "clusterIP: None");
        let store = self::store(&[&headless]);
        assert_eq!(
            service(&store, "web").get("/spec/clusterIPs"),
            Some(&json!(["None"]))
        );
    }

    #[test]
    fn slices_follow_readiness_and_named_ports() {
        let key = Key::new("EndpointSlice", "shop", "web-ipv4-0");
        let mut store = store(&[WEB, POD]);
        let slice = store.get(&key).unwrap();
        assert_eq!(slice.get("/ports/0/port"), Some(&json!(8080)));
        assert_eq!(
            slice.get("/endpoints/0/addresses"),
            Some(&json!(["10.244.1.5"]))
        );
        assert_eq!(
            slice.get("/endpoints/0/conditions/ready"),
            Some(&json!(true))
        );
        store.upsert(
            Object::parse_all(&POD.replace("'True'", "'False'"))
                .unwrap()
                .remove(0),
        );
        follow(&mut store, &[]);
        let slice = store.get(&key).unwrap();
        assert_eq!(
            slice.get("/endpoints/0/conditions/ready"),
            Some(&json!(false))
        );
        store.remove(&Key::new("Pod", "shop", "a"));
        follow(&mut store, &[]);
        assert!(store.get(&key).is_none());
    }

    #[test]
    fn slices_that_came_with_the_objects_stay_alone() {
        let dumped = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
            metadata: {name: web-x7, namespace: shop, labels: {kubernetes.io/service-name: web}}\n";
        let store = store(&[WEB, POD, dumped]);
        assert_eq!(store.of_kind("EndpointSlice").count(), 1);
    }
}
