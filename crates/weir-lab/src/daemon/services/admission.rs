// SPDX-License-Identifier: Apache-2.0
//! What an API server does with a Service: it refuses what cannot be, carries over what it had given, and fills in the
//! rest. Its words are those of the real one.

mod families;
mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use weir_net::Family;

use super::{super::store::Store, addresses::Search, cluster_ips, is_headless, kind_of};
use crate::{
    config::Topology,
    object::{Key, Object},
};

/// The first addresses of a range are by custom those of the API server and of the DNS server.
const FIRST: u128 = 16;

/// Takes the services of one operation in.
#[derive(Debug)]
pub(crate) struct Admission<'a> {
    topology: &'a Topology,
    addresses: BTreeMap<IpAddr, Key>,
    search: Search,
    node_ports: BTreeMap<u16, Key>,
    /// Ports that objects of this operation ask for by number.
    wished_ports: BTreeSet<u16>,
}

impl<'a> Admission<'a> {
    /// Notes what is taken, and what the objects of this operation ask for themselves: nobody else gets that.
    pub(crate) fn new(store: &Store, topology: &'a Topology, batch: &[Object]) -> Self {
        let mut admission = Self {
            topology,
            addresses: BTreeMap::new(),
            search: Search::new(&topology.service_cidrs, FIRST, BTreeSet::new()),
            node_ports: BTreeMap::new(),
            wished_ports: BTreeSet::new(),
        };
        for service in store.of_kind("Service") {
            admission.note(service);
        }
        for service in batch.iter().filter(|object| object.kind() == "Service") {
            for address in addresses(service) {
                admission.search.reserve(address);
            }
            admission.wished_ports.extend(ports::node_ports(service));
        }
        admission
    }

    /// Completes a service, or says why it cannot be.
    pub(crate) fn admit(&mut self, store: &Store, service: &mut Object) -> Result<()> {
        let key = service.key();
        let old = store.get(&key);
        let mut new = service.clone();
        let refused = || format!("Service \"{}\" is invalid", key.name);
        self.complete(&mut new, old).with_context(refused)?;
        self.addresses.retain(|_, owner| *owner != key);
        self.node_ports.retain(|_, owner| *owner != key);
        self.note(&new);
        *service = new;
        Ok(())
    }

    fn note(&mut self, service: &Object) {
        for address in addresses(service) {
            self.search.reserve(address);
            self.addresses.insert(address, service.key());
        }
        for port in ports::node_ports(service) {
            self.node_ports.insert(port, service.key());
        }
    }

    fn complete(&mut self, service: &mut Object, old: Option<&Object>) -> Result<()> {
        let kind = kind_of(service).to_owned();
        ensure!(
            matches!(
                kind.as_str(),
                "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName"
            ),
            "spec.type: Unsupported value: \"{kind}\""
        );
        let spec = &mut service.value_mut()["spec"];
        spec["type"] = json!(kind);
        if spec["sessionAffinity"].is_null() {
            spec["sessionAffinity"] = json!("None");
        }
        let timeout = &spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
        if spec["sessionAffinity"] == "ClientIP" && timeout.is_null() {
            spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
        }
        ports::complete(service)?;
        if kind == "ExternalName" {
            let named = service.text("/spec/externalName").is_some();
            ensure!(named, "spec.externalName: Required value");
            forget(
                service,
                &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"],
            );
            return Ok(());
        }
        let old = old.filter(|old| kind_of(old) != "ExternalName");
        keep_cluster_ips(service, old)?;
        families::complete(service, old, &self.families())?;
        self.give_cluster_ips(service)?;
        let spec = &mut service.value_mut()["spec"];
        if spec["internalTrafficPolicy"].is_null() {
            spec["internalTrafficPolicy"] = json!("Cluster");
        }
        let outside = kind != "ClusterIP" || spec["externalIPs"][0].is_string();
        if !outside {
            forget(service, &["externalTrafficPolicy"]);
        } else if spec["externalTrafficPolicy"].is_null() {
            spec["externalTrafficPolicy"] = json!("Cluster");
        }
        if kind == "LoadBalancer" {
            let allocate = &mut service.value_mut()["spec"]["allocateLoadBalancerNodePorts"];
            if allocate.is_null() {
                *allocate = json!(true);
            }
        }
        self.give_node_ports(service, old)
    }

    /// The families of the cluster's service ranges, the first one first.
    fn families(&self) -> Vec<Family> {
        let mut families = Vec::new();
        for cidr in &self.topology.service_cidrs {
            let family = Family::of(cidr.addr());
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }

    /// Checks the cluster IPs that a service has and gives it those that it lacks.
    fn give_cluster_ips(&mut self, service: &mut Object) -> Result<()> {
        if is_headless(service) {
            let kind = kind_of(service);
            ensure!(
                kind == "ClusterIP",
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for {kind} services"
            );
            service.value_mut()["spec"]["clusterIP"] = json!("None");
            service.value_mut()["spec"]["clusterIPs"] = json!(["None"]);
            return Ok(());
        }
        let key = service.key();
        let mut own: Vec<IpAddr> = Vec::new();
        for text in cluster_ips(service) {
            let refused =
                |why: &str| format!("spec.clusterIPs: Invalid value: [\"{text}\"]: {why}");
            let address: IpAddr = text
                .parse()
                .with_context(|| refused("must be a valid IP address"))?;
            // It may lie outside the ranges: services of a dumped cluster replay as they were.
            let owner = self.addresses.get(&address);
            ensure!(
                owner.is_none_or(|owner| *owner == key),
                refused(&format!(
                    "failed to allocate IP {text}: provided IP is already allocated"
                ))
            );
            own.push(address);
        }
        let families = super::families(service);
        // What is left of two families when one goes.
        own.retain(|address| families.contains(&Family::of(*address)));
        for family in families {
            if !own.iter().any(|address| Family::of(*address) == family) {
                let free = self.search.take(family);
                own.push(free.with_context(|| {
                    format!("failed to allocate a serviceIP: the {family} range is full")
                })?);
            }
        }
        let spec = &mut service.value_mut()["spec"];
        spec["clusterIP"] = json!(own.first());
        spec["clusterIPs"] = json!(own);
        Ok(())
    }

    /// Checks the node ports that a service has, those for the health check too, and gives it those that it lacks.
    fn give_node_ports(&mut self, service: &mut Object, old: Option<&Object>) -> Result<()> {
        let key = service.key();
        ports::keep(service, old);
        let owners = &self.node_ports;
        for port in ports::node_ports(service) {
            let (range, port_is) = (&self.topology.node_ports, format!("Invalid value: {port}"));
            ensure!(
                range.contains(port),
                "spec.ports[0].nodePort: {port_is}: provided port is not in the valid range. The range of valid ports is {range}"
            );
            ensure!(
                owners.get(&port).is_none_or(|owner| *owner == key),
                "spec.ports[0].nodePort: {port_is}: provided port is already allocated"
            );
        }
        let mut given: BTreeSet<u16> = ports::node_ports(service).into_iter().collect();
        let (range, wished) = (self.topology.node_ports, &self.wished_ports);
        let mut free = || {
            let port = range.ports().find(|port| {
                let taken = owners.get(port).is_some_and(|owner| *owner != key);
                !taken && !wished.contains(port) && !given.contains(port)
            });
            given.extend(port);
            port.context("failed to allocate a nodePort: range is full")
        };
        ports::give(service, &mut free)
    }
}

/// The cluster IPs that are addresses.
fn addresses(service: &Object) -> Vec<IpAddr> {
    let texts = cluster_ips(service);
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn forget(service: &mut Object, fields: &[&str]) {
    if let Some(spec) = service.value_mut()["spec"].as_object_mut() {
        for field in fields {
            spec.remove(*field);
        }
    }
}

/// A service that names no address keeps the one that it has, and cannot get another.
fn keep_cluster_ips(service: &mut Object, old: Option<&Object>) -> Result<()> {
    let (own, before) = (cluster_ips(service), old.map(cluster_ips));
    let Some(before) = before.filter(|before| !before.is_empty()) else {
        return Ok(());
    };
    match own.first() {
        None => service.value_mut()["spec"]["clusterIPs"] = json!(before),
        Some(first) if Some(first) != before.first() => {
            bail!(
                "spec.clusterIPs[0]: Invalid value: [\"{first}\"]: may not change once set (it is {})",
                before.join(",")
            )
        }
        // One family alone was named; the other stays.
        Some(_) if own.len() < before.len() => {
            service.value_mut()["spec"]["clusterIPs"] = Value::from(before);
        }
        Some(_) => {}
    }
    Ok(())
}
