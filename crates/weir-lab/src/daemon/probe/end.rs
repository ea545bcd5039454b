// SPDX-License-Identifier: Apache-2.0
//! What the references of a probe stand for.

use std::{net::IpAddr, sync::Arc};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::{
    handle::Sandbox,
    lab::{Lab, State, pod_key},
    pod::Container,
    services::{SERVICE_NAME, cluster_ips},
};
use crate::{
    args::parse_address,
    locked,
    object::{Key, Object},
    protocol::{ProbeRequest, Protocol},
};

/// One end of a probe.
#[derive(Debug)]
pub(super) struct End {
    pub(super) name: String,
    /// Who can be made to answer there.
    pub(super) servers: Vec<Server>,
    pub(super) addresses: Vec<IpAddr>,
    /// Whether the reference was an address, which then has to be used.
    pub(super) exact: bool,
    /// The port to take when the request names none.
    pub(super) port: Option<u16>,
}

/// One of those behind an end.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) sandbox: Arc<Sandbox>,
    /// The port that it is asked on, if another than the probe's.
    pub(super) port: Option<u16>,
}

impl End {
    fn host(name: String, sandbox: &Arc<Sandbox>, addresses: &[IpAddr]) -> Self {
        Self {
            name,
            servers: vec![Server {
                sandbox: Arc::clone(sandbox),
                port: None,
            }],
            addresses: addresses.to_vec(),
            exact: false,
            port: None,
        }
    }

    /// The sandbox, where there is exactly one.
    pub(super) fn sandbox(&self) -> Option<Arc<Sandbox>> {
        match self.servers.as_slice() {
            [server] => Some(Arc::clone(&server.sandbox)),
            _ => None,
        }
    }
}

/// Finds where a probe goes to.
pub(super) fn find_destination(lab: &Lab, request: &ProbeRequest) -> Result<End> {
    let Some(service) = request.to.strip_prefix("svc:") else {
        return find(lab, &request.to);
    };
    let (namespace, name) = service
        .split_once('/')
        .context("a service is svc:NAMESPACE/NAME")?;
    find_service(lab, namespace, name, request)
}

/// Finds whom a reference names.
pub(super) fn find(lab: &Lab, reference: &str) -> Result<End> {
    if let Some(address) = parse_address(reference) {
        return Ok(find_address(lab, address));
    }
    if let Some(name) = reference.strip_prefix("node:") {
        let node = lab.node(name)?;
        let name = reference.to_owned();
        return Ok(End::host(name, &node.sandbox, &node.own.addresses));
    }
    if reference == "world" || reference.starts_with("external:") {
        let host = match reference.strip_prefix("external:") {
            Some(name) => lab.external(name)?,
            None => lab.world()?,
        };
        let name = format!("external:{}", host.own.name);
        return Ok(End::host(name, &host.sandbox, &host.own.addresses));
    }
    let key = pod_key(reference)?;
    let pod = lab.pod(&key)?;
    let port = pod.containers.iter().flat_map(Container::ports).next();
    Ok(End {
        port: port.map(|(_, port)| port),
        ..End::host(reference.to_owned(), &pod.sandbox, &pod.addresses)
    })
}

fn find_service(lab: &Lab, namespace: &str, name: &str, request: &ProbeRequest) -> Result<End> {
    let state = locked(&lab.state);
    let key = Key::new("Service", namespace, name);
    let service = state
        .store
        .get(&key)
        .with_context(|| format!("there is no {key}"))?;
    let texts = cluster_ips(service);
    let addresses: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    ensure!(!addresses.is_empty(), "{key} has no cluster IP");
    let ports = service.list("/spec/ports");
    let number = |port: &Value| port["port"].as_u64().and_then(|n| u16::try_from(n).ok());
    let fits = |port: &&Value| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        protocol == word(request.protocol) && request.port.is_none_or(|n| number(port) == Some(n))
    };
    let port = ports.iter().find(fits);
    let servers = match port {
        Some(port) if request.serve => servers(&state, service, port),
        _ => Vec::new(),
    };
    Ok(End {
        name: format!("svc:{namespace}/{name}"),
        servers,
        addresses,
        exact: false,
        port: port.or(ports.first()).and_then(number),
    })
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
        Protocol::Icmp => "ICMP",
    }
}

/// The pods behind a service's port, with their own numbers of that port.
fn servers(state: &State, service: &Object, port: &Value) -> Vec<Server> {
    let name = port["name"].as_str().unwrap_or_default();
    let mut servers = Vec::new();
    for slice in state
        .store
        .in_namespace("EndpointSlice", service.namespace())
    {
        if slice.labels().get(SERVICE_NAME).map(String::as_str) != Some(service.name()) {
            continue;
        }
        let number = slice.list("/ports").iter().find_map(|own| {
            let same = own["name"].as_str().unwrap_or_default() == name;
            u16::try_from(own["port"].as_u64().filter(|_| same)?).ok()
        });
        let Some(number) = number else { continue };
        let endpoints = slice.list("/endpoints").iter();
        let addresses = endpoints.flat_map(|e| e["addresses"].as_array().into_iter().flatten());
        for address in addresses.filter_map(|a| a.as_str()?.parse::<IpAddr>().ok()) {
            let owners = state.pods.values();
            servers.extend(
                owners
                    .filter(|pod| pod.addresses.contains(&address))
                    .map(|pod| Server {
                        sandbox: Arc::clone(&pod.sandbox),
                        port: Some(number),
                    }),
            );
        }
    }
    servers
}

/// The owner of an address, if it has one.
fn find_address(lab: &Lab, address: IpAddr) -> End {
    let nodes = lab.nodes.values().map(|node| {
        let name = format!("node:{}", node.own.name);
        End::host(name, &node.sandbox, &node.own.addresses)
    });
    let externals = lab.externals.iter().map(|host| {
        let name = format!("external:{}", host.own.name);
        End::host(name, &host.sandbox, &host.own.addresses)
    });
    // A pod in its node's network has the node's addresses; they stand for the node.
    let pods: Vec<End> = locked(&lab.state)
        .pods
        .iter()
        .filter(|(_, pod)| !pod.host_network && pod.addresses.contains(&address))
        .map(|(key, pod)| {
            let name = format!("{}/{}", key.namespace, key.name);
            End::host(name, &pod.sandbox, &pod.addresses)
        })
        .collect();
    let owner = nodes
        .chain(externals)
        .chain(pods)
        .find(|end| end.addresses.contains(&address));
    let (name, servers) = match owner {
        Some(owner) => (owner.name, owner.servers),
        None => (address.to_string(), Vec::new()),
    };
    End {
        name,
        servers,
        addresses: vec![address],
        exact: true,
        port: None,
    }
}
