// SPDX-License-Identifier: Apache-2.0
//! What a control plane adds to services: addresses and ports, load balancers, and `EndpointSlices` that follow the pods.

mod addresses;
mod admission;
mod balancer;
mod endpoints;
mod hints;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use weir_net::Family;

use super::store::Store;
use crate::{
    config::Topology,
    object::{Key, Object},
};

pub(crate) use addresses::nth;
pub(crate) use admission::Admission;
pub(crate) use balancer::Balancer;

/// The label of a slice that names its service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Makes load balancers and slices follow services, pods and nodes. Looks only at what changes can have touched since
/// the last time they were published.
pub(crate) fn follow(store: &mut Store, topology: &Topology) {
    if !store.dirty(&["Service"]).is_empty() {
        balancer::assign(store, &topology.load_balancer_cidrs);
    }
    // A node's zone is in every endpoint on it.
    let namespaces: BTreeSet<String> = if store.dirty(&["Node"]).is_empty() {
        store.dirty(&["Service", "Pod", "EndpointSlice"])
    } else {
        let services = store.of_kind("Service");
        services
            .map(|service| service.namespace().to_owned())
            .collect()
    };
    for namespace in namespaces {
        let wanted = slices::slices(store, &namespace);
        let stale: Vec<Key> = store
            .in_namespace("EndpointSlice", &namespace)
            .filter(|slice| slices::is_own(slice) && !wanted.contains_key(&slice.key()))
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

/// What a service is reachable at.
pub(crate) fn kind_of(service: &Object) -> &str {
    service.text("/spec/type").unwrap_or("ClusterIP")
}

/// The cluster IPs of a service; `None` is the only one of a headless service.
pub(crate) fn cluster_ips(service: &Object) -> Vec<String> {
    let listed: Vec<String> = service.texts("/spec/clusterIPs");
    if !listed.is_empty() {
        return listed;
    }
    let single = service.text("/spec/clusterIP");
    single
        .filter(|text| !text.is_empty())
        .map(ToOwned::to_owned)
        .into_iter()
        .collect()
}

/// Whether a service has neither cluster IP nor name elsewhere.
pub(crate) fn is_headless(service: &Object) -> bool {
    kind_of(service) != "ExternalName"
        && cluster_ips(service).first().map(String::as_str) == Some("None")
}

/// The families of a service, its first one first.
pub(crate) fn families(service: &Object) -> Vec<Family> {
    service
        .list("/spec/ipFamilies")
        .iter()
        .filter_map(|family| serde_json::from_value(family.clone()).ok())
        .collect()
}

/// Whether a condition of an endpoint holds; the API takes a missing one for its default.
pub(crate) fn condition(endpoint: &serde_json::Value, name: &str, default: bool) -> bool {
    endpoint["conditions"][name].as_bool().unwrap_or(default)
}
