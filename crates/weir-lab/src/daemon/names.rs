// SPDX-License-Identifier: Apache-2.0
//! The cluster's DNS: the objects of its server, and telling the servers what there are names for.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::Result;
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    handle::Sandbox,
    services::{SERVICE_NAME, cluster_ips, condition, is_headless, kind_of, nth},
    store::Store,
};
use crate::{
    config::Topology,
    names::{Endpoint, Names, Namespace, Port, Service, Update},
    object::{Key, Object},
    protocol::Order,
};

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
/// The label of DNS servers, whichever program they run.
const LABEL: &str = "k8s-app";
/// The port that they answer on.
const PORT: u16 = 53;
/// By custom the DNS server has the tenth address of a service range.
const PLACE: u128 = 10;
const ORDER_LIMIT: Duration = Duration::from_secs(5);

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

/// Tells the DNS servers what there are names for, in a thread of its own: whoever changes objects does not wait.
#[derive(Clone, Debug)]
pub(crate) struct Teller(Sender<News>);

#[derive(Debug)]
enum News {
    Server(Arc<Sandbox>),
    Names(BTreeMap<String, Option<Namespace>>),
    /// Everything before this has been told.
    Until(Sender<()>),
}

impl Teller {
    pub(crate) fn start(domain: String) -> Result<Self> {
        let (sender, news) = channel();
        thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || tell(&domain, &news))?;
        Ok(Self(sender))
    }

    /// There is one more server.
    pub(crate) fn add(&self, server: &Arc<Sandbox>) {
        self.send(News::Server(Arc::clone(server)));
    }

    /// Takes in what has changed since it was published the last time.
    pub(crate) fn follow(&self, store: &Store) {
        let mut dirty = store.dirty(&["Service", "EndpointSlice"]);
        if !store.dirty(&["Namespace"]).is_empty() {
            let all = store.of_kind("Namespace");
            dirty.extend(all.map(|namespace| namespace.name().to_owned()));
        }
        if dirty.is_empty() {
            return;
        }
        let there: BTreeSet<&str> = store.of_kind("Namespace").map(Object::name).collect();
        let names = dirty.into_iter().map(|namespace| {
            let services = there
                .contains(namespace.as_str())
                .then(|| services(store, &namespace));
            (namespace, services)
        });
        self.send(News::Names(names.collect()));
    }

    /// Waits until every server knows what there is now.
    pub(crate) fn wait(&self) {
        let (sender, told) = channel();
        self.send(News::Until(sender));
        told.recv_timeout(ORDER_LIMIT * 2).ok();
    }

    fn send(&self, news: News) {
        if self.0.send(news).is_err() {
            tracing::error!("nobody tells names any more");
        }
    }
}

fn tell(domain: &str, news: &Receiver<News>) {
    let mut names = Names {
        domain: domain.to_owned(),
        ..Names::default()
    };
    let mut servers: Vec<Arc<Sandbox>> = Vec::new();
    for news in news {
        match news {
            // It serves both protocols.
            News::Server(server) if servers.iter().any(|own| Arc::ptr_eq(own, &server)) => {}
            News::Server(server) => {
                let all = names.namespaces.iter();
                let update = Update {
                    domain: domain.to_owned(),
                    namespaces: all.map(|(n, s)| (n.clone(), Some(s.clone()))).collect(),
                };
                if reaches(&server, &update) {
                    servers.push(server);
                }
            }
            News::Names(mut namespaces) => {
                namespaces.retain(|name, services| names.namespaces.get(name) != services.as_ref());
                if !namespaces.is_empty() {
                    let update = Update {
                        domain: domain.to_owned(),
                        namespaces,
                    };
                    servers.retain(|server| reaches(server, &update));
                    names.update(update);
                }
            }
            // Whoever waited may have given up.
            News::Until(sender) => drop(sender.send(())),
        }
    }
}

/// Tells a server; one that is gone is not told again.
fn reaches(server: &Sandbox, update: &Update) -> bool {
    let told = server.call(Order::Names(update.clone()), ORDER_LIMIT);
    if let Err(error) = &told {
        tracing::info!(
            error = format!("{error:#}"),
            "a DNS server is not told names"
        );
    }
    told.is_ok()
}

/// The services of a namespace as names.
fn services(store: &Store, namespace: &str) -> Namespace {
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
