// SPDX-License-Identifier: Apache-2.0
//! From raw values over Kubernetes' types to the model's proven ones.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::Value;
use weir_abi::Protocol;
use weir_model::{ContainerPort, Labels, Namespace, Node, NodeName, Pod, PodCidr, PodRef};

use crate::object::Object;

/// What a raw object turned out to be.
#[derive(Debug)]
pub(crate) enum Converted {
    Object(Object),
    /// A pod that has ended: its addresses belong to nobody.
    Ended,
    /// A kind that the world does not hold.
    Skipped(String),
}

/// A field that cannot be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldProblem {
    pub(crate) field: String,
    pub(crate) message: String,
}

fn wrong(field: impl Into<String>, message: impl Display) -> FieldProblem {
    FieldProblem {
        field: field.into(),
        message: message.to_string(),
    }
}

/// `Pod shop/web`, as far as the raw value says.
pub(crate) fn describe(raw: &Value) -> String {
    let text = |pointer: &str| {
        raw.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let kind = if text("/kind").is_empty() {
        "object"
    } else {
        text("/kind")
    };
    let name: String = text("/metadata/name").chars().take(64).collect();
    match text("/metadata/namespace") {
        "" => format!("{kind} {name}"),
        namespace => format!(
            "{kind} {}/{name}",
            namespace.chars().take(64).collect::<String>()
        ),
    }
}

/// Converts and proves one object.
pub(crate) fn convert(raw: Value) -> Result<Converted, FieldProblem> {
    let text = |field: &str| {
        raw.get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    match (version.as_str(), kind.as_str()) {
        ("v1", "Node") => node(typed(raw)?).map(Converted::Object),
        ("v1", "Namespace") => namespace(&typed(raw)?).map(Converted::Object),
        ("v1", "Pod") => pod(typed(raw)?),
        ("", _) => Err(wrong("apiVersion", "missing")),
        (_, "") => Err(wrong("kind", "missing")),
        _ => Ok(Converted::Skipped(kind)),
    }
}

fn typed<T: DeserializeOwned>(raw: Value) -> Result<T, FieldProblem> {
    serde_path_to_error::deserialize(raw).map_err(|error| {
        let field = error.path().to_string();
        let field = if field == "." { String::new() } else { field };
        FieldProblem {
            field,
            message: error.into_inner().to_string(),
        }
    })
}

fn labels(metadata: &ObjectMeta) -> Result<Labels, FieldProblem> {
    Labels::new(metadata.labels.clone().unwrap_or_default())
        .map_err(|error| wrong("metadata.labels", error))
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

fn address(field: &str, text: &str) -> Result<IpAddr, FieldProblem> {
    let problem = |message: &str| {
        wrong(
            field,
            format!("`{}` {message}", text.chars().take(64).collect::<String>()),
        )
    };
    let ip: IpAddr = text.parse().map_err(|_| problem("is not an IP address"))?;
    // A mapped address would be taken for the IPv4 one in every map.
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if mapped || ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        return Err(problem("cannot be the address of a pod or node"));
    }
    Ok(ip)
}

fn node(node: core::Node) -> Result<Object, FieldProblem> {
    let name =
        NodeName::new(name(&node.metadata)).map_err(|error| wrong("metadata.name", error))?;
    let mut addresses = Vec::new();
    for (index, entry) in node
        .status
        .unwrap_or_default()
        .addresses
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        if entry.type_ == "InternalIP" {
            let ip = address(
                &format!("status.addresses[{index}].address"),
                &entry.address,
            )?;
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
    }
    let spec = node.spec.unwrap_or_default();
    let (field, ranges) = match spec.pod_cidrs {
        Some(ranges) if !ranges.is_empty() => ("spec.podCIDRs", ranges),
        Some(_) | None => ("spec.podCIDR", spec.pod_cidr.into_iter().collect()),
    };
    let pod_cidrs = ranges
        .iter()
        .filter(|range| !range.is_empty())
        .map(|range| PodCidr::parse(range).map_err(|error| wrong(field, error)))
        .collect::<Result<_, _>>()?;
    let labels = labels(&node.metadata)?;
    Ok(Object::Node(Arc::new(Node {
        name,
        labels,
        addresses,
        pod_cidrs,
    })))
}

fn namespace(namespace: &core::Namespace) -> Result<Object, FieldProblem> {
    let name =
        Namespace::new(name(&namespace.metadata)).map_err(|error| wrong("metadata.name", error))?;
    Ok(Object::Namespace(name, labels(&namespace.metadata)?))
}

fn pod(pod: core::Pod) -> Result<Converted, FieldProblem> {
    let status = pod.status.unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    Namespace::new(namespace).map_err(|error| wrong("metadata.namespace", error))?;
    let reference = PodRef::new(namespace, name(&pod.metadata))
        .map_err(|error| wrong("metadata.name", error))?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Ok(Converted::Ended);
    }
    let spec = pod.spec.ok_or_else(|| wrong("spec", "missing"))?;
    let node = spec
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
        .map(|name| NodeName::new(name).map_err(|error| wrong("spec.nodeName", error)))
        .transpose()?;

    let mut addresses = Vec::new();
    let listed = status.pod_ips.unwrap_or_default();
    let listed = listed
        .iter()
        .enumerate()
        .map(|(i, ip)| (format!("status.podIPs[{i}].ip"), ip.ip.as_str()));
    let single = status
        .pod_ip
        .as_deref()
        .map(|ip| ("status.podIP".to_owned(), ip));
    for (field, text) in single
        .into_iter()
        .chain(listed)
        .filter(|(_, text)| !text.is_empty())
    {
        let ip = address(&field, text)?;
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }

    let mut container_ports = Vec::new();
    // An init container with restartPolicy Always is a sidecar; its ports count like any other's.
    let containers = spec
        .containers
        .iter()
        .map(|container| ("containers", container));
    let inits = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| ("initContainers", container));
    for (list, container) in containers.chain(inits) {
        for port in container.ports.iter().flatten() {
            let field = format!("spec.{list}[{}].ports", container.name);
            let number = u16::try_from(port.container_port)
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| wrong(&field, format!("{} is not a port", port.container_port)))?;
            let protocol = match port.protocol.as_deref() {
                None | Some("TCP" | "") => Protocol::TCP,
                Some("UDP") => Protocol::UDP,
                Some("SCTP") => Protocol::SCTP,
                Some(other) => {
                    return Err(wrong(&field, format!("`{other}` is not TCP, UDP or SCTP")));
                }
            };
            container_ports.push(ContainerPort {
                name: port.name.clone(),
                port: number,
                protocol,
            });
        }
    }
    Ok(Converted::Object(Object::Pod(Arc::new(Pod {
        reference,
        labels: labels(&pod.metadata)?,
        node,
        addresses,
        host_network: spec.host_network.unwrap_or_default(),
        container_ports,
        created: pod
            .metadata
            .creation_timestamp
            .map_or(0, |time| time.0.as_second()),
    }))))
}

#[cfg(test)]
mod tests;
