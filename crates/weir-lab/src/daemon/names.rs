// SPDX-License-Identifier: Apache-2.0
//! The cluster's DNS: the objects of its server; `teller` tells the servers what there are names for.

mod records;
mod teller;

use std::net::IpAddr;

use anyhow::Result;
use ipnet::IpNet;
use serde_json::json;

use super::{
    services::{cluster_ips, nth},
    store::Store,
};
use crate::{
    config::Topology,
    object::{Key, Object},
};

pub(crate) use teller::Teller;

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
/// The label of DNS servers, whichever program they run.
const LABEL: &str = "k8s-app";
/// The port that they answer on.
const PORT: u16 = 53;
/// By custom the DNS server has the tenth address of a service range.
const PLACE: u128 = 10;

/// The objects of a DNS server for a cluster that brings none.
pub(crate) fn manifest(topology: &Topology, objects: &[Object]) -> Result<Vec<Object>> {
    let own = Key::new("Service", NAMESPACE, SERVICE);
    if !topology.dns || objects.iter().any(|object| object.key() == own) {
        return Ok(Vec::new());
    }
    let labels = json!({LABEL: SERVICE});
    let ports = json!([
        {"name": "dns", "protocol": "UDP", "containerPort": PORT},
        {"name": "dns-tcp", "protocol": "TCP", "containerPort": PORT},
    ]);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "clusterIPs": servers(&topology.service_cidrs),
            "ipFamilyPolicy": "PreferDualStack",
            "selector": labels,
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": PORT, "targetPort": "dns"},
                {"name": "dns-tcp", "protocol": "TCP", "port": PORT, "targetPort": "dns-tcp"},
            ],
        },
    });
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "coredns", "ports": ports}]},
            },
        },
    });
    [service, deployment].into_iter().map(Object::new).collect()
}

/// The addresses of the DNS server, one of each family.
fn servers(cidrs: &[IpNet]) -> Vec<IpAddr> {
    let mut servers: Vec<IpAddr> = Vec::new();
    for address in cidrs.iter().filter_map(|cidr| nth(*cidr, PLACE)) {
        if servers.iter().all(|own| own.is_ipv4() != address.is_ipv4()) {
            servers.push(address);
        }
    }
    servers
}

/// What pods ask: the DNS service that there is, else the one that there would be.
pub(crate) fn nameservers(store: &Store, topology: &Topology) -> Vec<IpAddr> {
    let service = store.get(&Key::new("Service", NAMESPACE, SERVICE));
    let texts = service.map(cluster_ips).unwrap_or_default();
    let own: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    if own.is_empty() {
        return servers(&topology.service_cidrs);
    }
    own
}

/// Whether the built-in server of a pod answers questions for names on a port.
pub(crate) fn is_server(pod: &Object, port: u16) -> bool {
    port == PORT
        && pod.namespace() == NAMESPACE
        && pod.labels().get(LABEL).map(String::as_str) == Some(SERVICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_brings_a_dns_service_gets_no_other() {
        let topology = crate::config::LabConfig::default()
            .resolve(None, &[])
            .unwrap();
        let own = manifest(&topology, &[]).unwrap();
        assert_eq!(
            own[0].texts("/spec/clusterIPs"),
            ["10.96.0.10", "fd00:96::a"]
        );
        assert!(manifest(&topology, &own).unwrap().is_empty());
    }
}
