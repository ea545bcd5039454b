// SPDX-License-Identifier: Apache-2.0
//! The load balancer in front of the cluster: it gives services addresses, and the underlay's router sends what goes to
//! them to the nodes, as a load balancer that announces them by routing does.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Result;
use ipnet::IpNet;
use serde_json::{Value, json};
use weir_net::{Family, NetNamespace};

use super::{
    super::{
        store::Store,
        underlay::{self, Vips},
    },
    SERVICE_NAME,
    addresses::Search,
    condition, families, kind_of,
};
use crate::{
    config::Topology,
    object::{Key, Object},
};

/// The addresses that a service shall have, instead of those from the lab's range; empty: none.
const ADDRESSES: &str = "lab.weir.dev/load-balancer-ips";
/// What its `ipMode` shall be.
const MODE: &str = "lab.weir.dev/load-balancer-ip-mode";

/// Gives every service of type `LoadBalancer` its ingress addresses. Those that came with the object stay.
pub(super) fn assign(store: &mut Store, cidrs: &[IpNet]) {
    let mut search = None;
    let mut changes: Vec<(Key, Value)> = Vec::new();
    for service in store.of_kind("Service") {
        let old = service.list("/status/loadBalancer/ingress");
        let ingress = if kind_of(service) == "LoadBalancer" {
            let search = search.get_or_insert_with(|| Search::new(cidrs, 1, taken(store)));
            ingress(service, old, cidrs, search)
        } else {
            Vec::new()
        };
        if ingress != old {
            changes.push((service.key(), ingress.into()));
        }
    }
    for (key, ingress) in changes {
        store.change(&key, |service| {
            service["status"]["loadBalancer"] = json!({"ingress": ingress});
        });
    }
}

fn taken(store: &Store) -> BTreeSet<IpAddr> {
    let services = store.of_kind("Service");
    services
        .flat_map(|service| vips(service).into_iter().chain(external_ips(service)))
        .collect()
}

fn ingress(service: &Object, old: &[Value], cidrs: &[IpNet], search: &mut Search) -> Vec<Value> {
    let mode = service.annotation(MODE).unwrap_or("VIP");
    let entry = |address: IpAddr| json!({"ip": address, "ipMode": mode});
    if let Some(list) = service.annotation(ADDRESSES) {
        let words = list.split(',').filter_map(|word| word.trim().parse().ok());
        return words.map(entry).collect();
    }
    let is_own = |ingress: &Value| {
        let address = address_of(ingress);
        address.is_some_and(|address| cidrs.iter().any(|cidr| cidr.contains(&address)))
    };
    if !old.iter().all(is_own) {
        let complete = |ingress: &Value| {
            let mut ingress = ingress.clone();
            if ingress["ipMode"].is_null() && ingress["ip"].is_string() {
                ingress["ipMode"] = json!(mode);
            }
            ingress
        };
        return old.iter().map(complete).collect();
    }
    // Somebody else serves this class.
    if service.text("/spec/loadBalancerClass").is_some() {
        return Vec::new();
    }
    let wished = service.text("/spec/loadBalancerIP");
    let wished: Option<IpAddr> = wished.and_then(|text| text.parse().ok());
    let known = |family| {
        let mut known = wished.into_iter().chain(old.iter().filter_map(address_of));
        known.find(|address| Family::of(*address) == family)
    };
    families(service)
        .into_iter()
        .filter_map(|family| known(family).or_else(|| search.take(family)))
        .map(entry)
        .collect()
}

fn address_of(ingress: &Value) -> Option<IpAddr> {
    ingress["ip"].as_str()?.parse().ok()
}

/// The ingress addresses that stand for the nodes themselves; those of a proxy belong to another host.
fn vips(service: &Object) -> Vec<IpAddr> {
    let ingress = service.list("/status/loadBalancer/ingress").iter();
    ingress
        .filter(|entry| entry["ipMode"] != "Proxy")
        .filter_map(address_of)
        .collect()
}

fn external_ips(service: &Object) -> Vec<IpAddr> {
    let texts = service.texts("/spec/externalIPs");
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The router's end of the load balancer.
#[derive(Debug)]
pub(crate) struct Balancer {
    router: NetNamespace,
    routed: Vips,
}

impl Balancer {
    pub(crate) fn new(router: NetNamespace) -> Self {
        Self {
            router,
            routed: Vips::new(),
        }
    }

    /// Makes the router's routes follow services and their endpoints.
    pub(crate) fn follow(&mut self, store: &Store, topology: &Topology) -> Result<()> {
        if store.dirty(&["Service", "EndpointSlice"]).is_empty() {
            return Ok(());
        }
        let wanted = wanted(store, topology);
        if wanted != self.routed {
            underlay::route_vips(&self.router, &self.routed, &wanted, topology)?;
            self.routed = wanted;
        }
        Ok(())
    }
}

/// With `externalTrafficPolicy: Local` only nodes with a ready endpoint are healthy. Where none is, all get the packets,
/// as load balancers do it that would rather fail open.
fn wanted(store: &Store, topology: &Topology) -> Vips {
    let hosts = topology.nodes.iter().map(|node| &node.addresses);
    let outside = topology.externals.iter().map(|host| &host.addresses);
    let hosts: BTreeSet<IpAddr> = hosts.chain(outside).flatten().copied().collect();
    let mut wanted = Vips::new();
    for service in store.of_kind("Service") {
        let mut addresses = external_ips(service);
        if kind_of(service) == "LoadBalancer" {
            addresses.extend(vips(service));
        }
        addresses.retain(|address| !hosts.contains(address));
        if addresses.is_empty() {
            continue;
        }
        let local = service.text("/spec/externalTrafficPolicy") == Some("Local");
        let healthy = if local {
            nodes_with_endpoints(store, service)
        } else {
            BTreeSet::new()
        };
        for address in addresses {
            let able: BTreeSet<String> = topology
                .nodes
                .iter()
                .filter(|node| node.address(Family::of(address)).is_some())
                .map(|node| node.name.clone())
                .collect();
            let mut chosen: BTreeSet<String> = able.intersection(&healthy).cloned().collect();
            if chosen.is_empty() {
                chosen = able;
            }
            wanted.entry(address).or_default().extend(chosen);
        }
    }
    wanted.retain(|_, nodes| !nodes.is_empty());
    wanted
}

fn nodes_with_endpoints(store: &Store, service: &Object) -> BTreeSet<String> {
    store
        .in_namespace("EndpointSlice", service.namespace())
        .filter(|slice| {
            slice.labels().get(SERVICE_NAME).map(String::as_str) == Some(service.name())
        })
        .flat_map(|slice| slice.list("/endpoints"))
        .filter(|endpoint| condition(endpoint, "ready", true))
        .filter_map(|endpoint| endpoint["nodeName"].as_str().map(ToOwned::to_owned))
        .collect()
}
