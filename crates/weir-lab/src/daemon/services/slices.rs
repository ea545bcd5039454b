// SPDX-License-Identifier: Apache-2.0
//! `EndpointSlices`: which endpoints are in which slice.
//!
//! Endpoints whose pods give the service's ports different numbers are in different slices, no slice has more than a
//! hundred, and an endpoint stays in the slice that it is in.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};
use weir_net::Family;

use super::{
    super::store::Store,
    SERVICE_NAME, endpoints, families,
    hints::{self, Nodes},
    is_headless, kind_of,
};
use crate::object::{Key, Object};

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
const OWN: &str = "lab.weir.dev";
/// What the controller of a real cluster calls itself. Slices of its making are part of a dump.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// As many endpoints as the controller puts into one slice.
const LIMIT: usize = 100;

/// Endpoints that share their ports.
#[derive(Debug, Default)]
struct Group {
    ports: Vec<Value>,
    endpoints: Vec<Value>,
}

/// The slices of a namespace's services with a selector. A service whose slices came with the objects is left alone.
pub(super) fn slices(store: &Store, namespace: &str) -> BTreeMap<Key, Object> {
    let mut brought: BTreeSet<String> = BTreeSet::new();
    let mut own: BTreeMap<String, Vec<&Object>> = BTreeMap::new();
    for slice in store.in_namespace("EndpointSlice", namespace) {
        let mut labels = slice.labels();
        let Some(service) = labels.remove(SERVICE_NAME) else {
            continue;
        };
        match labels.get(MANAGED_BY).map(String::as_str) {
            Some(OWN) => own.entry(service).or_default().push(slice),
            None | Some(CONTROLLER) => {
                brought.insert(service);
            }
            // Somebody adds endpoints of his own to those of the selector.
            Some(_) => {}
        }
    }
    let nodes = Nodes::of(store);
    let mut slices = BTreeMap::new();
    for service in store.in_namespace("Service", namespace) {
        let selector = service.get("/spec/selector").and_then(Value::as_object);
        if selector.is_none_or(serde_json::Map::is_empty)
            || kind_of(service) == "ExternalName"
            || brought.contains(service.name())
        {
            continue;
        }
        let pods: Vec<&Object> = store
            .in_namespace("Pod", namespace)
            .filter(|pod| endpoints::selects(service, pod))
            .collect();
        let before = own.get(service.name()).map_or(&[][..], Vec::as_slice);
        for family in families(service) {
            let mut groups = grouped(store, service, &pods, family);
            let all = groups.values_mut().flat_map(|group| &mut group.endpoints);
            hints::give(service, all.collect(), &nodes);
            for (number, group) in placed(groups, before, family) {
                if let Some(slice) = slice(service, family, number, &group) {
                    slices.insert(slice.key(), slice);
                }
            }
        }
    }
    slices
}

/// Whether the lab made a slice.
pub(super) fn is_own(slice: &Object) -> bool {
    slice
        .labels()
        .get(MANAGED_BY)
        .is_some_and(|manager| manager == OWN)
}

/// The endpoints of one family, by the port numbers that the service's ports stand for in their pods.
fn grouped(
    store: &Store,
    service: &Object,
    pods: &[&Object],
    family: Family,
) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for pod in pods {
        let Some(endpoint) = endpoints::endpoint(store, service, pod, family) else {
            continue;
        };
        let ports = endpoints::ports(service, pod);
        let group = groups.entry(Value::from(ports.clone()).to_string());
        let group = group.or_insert_with(|| Group {
            ports,
            endpoints: Vec::new(),
        });
        group.endpoints.push(endpoint);
    }
    groups
}

/// Puts the endpoints of each group into numbered slices. A service without endpoints has one empty slice.
fn placed(
    groups: BTreeMap<String, Group>,
    before: &[&Object],
    family: Family,
) -> BTreeMap<usize, Group> {
    let mut old: BTreeMap<String, Vec<(usize, &Object)>> = BTreeMap::new();
    for slice in before {
        if slice.text("/addressType") == Some(&family.to_string())
            && let Some(number) = number_of(slice)
        {
            let ports = Value::from(slice.list("/ports").to_vec()).to_string();
            old.entry(ports).or_default().push((number, slice));
        }
    }
    let mut placed: BTreeMap<usize, Group> = BTreeMap::new();
    let mut homeless = Vec::new();
    for (key, group) in groups {
        let mut left: BTreeMap<String, Value> = group
            .endpoints
            .into_iter()
            .map(|endpoint| (endpoint["targetRef"]["name"].to_string(), endpoint))
            .collect();
        let mut own: Vec<(usize, Vec<Value>)> = Vec::new();
        for (number, slice) in old.remove(&key).unwrap_or_default() {
            let stay = slice.list("/endpoints").iter();
            let stay: Vec<Value> = stay
                .filter_map(|endpoint| left.remove(&endpoint["targetRef"]["name"].to_string()))
                .collect();
            if !stay.is_empty() {
                own.push((number, stay));
            }
        }
        let mut left: VecDeque<Value> = left.into_values().collect();
        for (number, mut endpoints) in own {
            let room = LIMIT.saturating_sub(endpoints.len()).min(left.len());
            endpoints.extend(left.drain(..room));
            let ports = group.ports.clone();
            placed.insert(number, Group { ports, endpoints });
        }
        homeless.push((group.ports, left));
    }
    let mut free = 0..;
    for (ports, mut left) in homeless {
        while !left.is_empty() {
            let endpoints = left.drain(..LIMIT.min(left.len())).collect();
            let number = free.find(|number| !placed.contains_key(number));
            let ports = ports.clone();
            placed.insert(number.unwrap_or_default(), Group { ports, endpoints });
        }
    }
    if placed.is_empty() {
        placed.insert(0, Group::default());
    }
    placed
}

fn number_of(slice: &Object) -> Option<usize> {
    slice.name().rsplit_once('-')?.1.parse().ok()
}

fn slice(service: &Object, family: Family, number: usize, group: &Group) -> Option<Object> {
    let word = family.to_string();
    let name = format!("{}-{}-{number}", service.name(), word.to_lowercase());
    let mut labels = service.labels();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), service.name().to_owned());
    labels.insert(MANAGED_BY.to_owned(), OWN.to_owned());
    Object::new(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": service.namespace(),
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": service.name(),
                "uid": service.text("/metadata/uid").unwrap_or_default(),
                "controller": true,
            }],
        },
        "addressType": word,
        "ports": group.ports,
        "endpoints": group.endpoints,
    }))
    .ok()
}
