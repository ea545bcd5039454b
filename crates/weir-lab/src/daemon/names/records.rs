// SPDX-License-Identifier: Apache-2.0
//! What there are names for: the services of a namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde_json::Value;

use crate::{
    daemon::{
        services::{SERVICE_NAME, cluster_ips, condition, is_headless, kind_of},
        store::Store,
    },
    names::{Endpoint, Namespace, Port, Service},
    object::Object,
};

/// The services of a namespace as names.
pub(super) fn services(store: &Store, namespace: &str) -> Namespace {
    let mut slices: BTreeMap<String, Vec<&Object>> = BTreeMap::new();
    for slice in store.in_namespace("EndpointSlice", namespace) {
        if let Some(service) = slice.labels().remove(SERVICE_NAME) {
            slices.entry(service).or_default().push(slice);
        }
    }
    store
        .in_namespace("Service", namespace)
        .map(|service| {
            let own = slices.get(service.name()).map_or(&[][..], Vec::as_slice);
            (service.name().to_owned(), names_of(service, own))
        })
        .collect()
}

fn names_of(service: &Object, slices: &[&Object]) -> Service {
    let mut names = Service {
        ports: ports(service.list("/spec/ports")),
        ..Service::default()
    };
    if kind_of(service) == "ExternalName" {
        names.alias = service.text("/spec/externalName").map(ToOwned::to_owned);
        return names;
    }
    if !is_headless(service) {
        let texts = cluster_ips(service);
        names.addresses = texts.iter().filter_map(|text| text.parse().ok()).collect();
        return names;
    }
    for slice in slices {
        let ports = ports(slice.list("/ports"));
        let endpoints = slice.list("/endpoints").iter();
        for endpoint in endpoints.filter(|endpoint| condition(endpoint, "ready", true)) {
            let addresses = endpoint["addresses"].as_array().into_iter().flatten();
            for address in addresses.filter_map(|a| a.as_str()?.parse::<IpAddr>().ok()) {
                let label = match endpoint["hostname"].as_str() {
                    Some(hostname) => hostname.to_owned(),
                    None => address.to_string().replace(['.', ':'], "-"),
                };
                let ports = ports.clone();
                names.endpoints.push(Endpoint {
                    label,
                    address,
                    ports,
                });
            }
        }
    }
    let addresses: BTreeSet<IpAddr> = names.endpoints.iter().map(|e| e.address).collect();
    names.addresses = addresses.into_iter().collect();
    names
}

fn ports(ports: &[Value]) -> Vec<Port> {
    let port = |port: &Value| {
        Some(Port {
            name: port["name"].as_str().unwrap_or_default().to_owned(),
            protocol: port["protocol"].as_str().unwrap_or("TCP").to_lowercase(),
            number: u16::try_from(port["port"].as_u64()?).ok()?,
        })
    };
    ports.iter().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_headless_service_is_its_ready_endpoints() {
        let mut store = Store::default();
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, ports: [{name: sql, port: 5432}]}\n\
            ---\napiVersion: v1\nkind: Service\nmetadata: {name: far}\nspec: {type: ExternalName, externalName: example.org}\n\
            ---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIPs: [10.96.0.7]}\n\
            ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: x, labels: {kubernetes.io/service-name: db}}\n\
            addressType: IPv4\nports: [{name: sql, port: 6000, protocol: TCP}]\nendpoints:\n\
            - {addresses: [10.0.0.1], hostname: db-0}\n- {addresses: [10.0.0.2]}\n- {addresses: [10.0.0.3], conditions: {ready: false}}\n";
        for object in Object::parse_all(text).unwrap() {
            store.upsert(object);
        }
        let services = services(&store, "default");
        let labels: Vec<&str> = services["db"]
            .endpoints
            .iter()
            .map(|e| e.label.as_str())
            .collect();
        assert_eq!(labels, ["db-0", "10-0-0-2"]);
        assert_eq!(services["db"].addresses.len(), 2);
        assert_eq!(services["db"].endpoints[0].ports[0].number, 6000);
        assert_eq!(services["far"].alias.as_deref(), Some("example.org"));
        assert_eq!(
            services["web"].addresses,
            ["10.96.0.7".parse::<IpAddr>().unwrap()]
        );
    }
}
