// SPDX-License-Identifier: Apache-2.0
//! Pods: where they run, by which addresses and ports they are reached, and what made them.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use weir_model::{ContainerPort, HostPort, Namespace, NodeName, Pod, PodRef, Uid, Workload};

use super::{
    Converted, FieldProblem, address, labels, name, port_number, protocol, quoted, seconds, uid,
    unmapped, wrong,
};
use crate::object::Object;

/// Annotation of the objects that stand for static pods.
const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn pod(pod: core::Pod) -> Result<Converted, FieldProblem> {
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
            let number = port_number(&field, port.container_port)?;
            let protocol = protocol(&field, port.protocol.as_deref())?;
            container_ports.push(ContainerPort {
                name: port.name.clone(),
                port: number,
                protocol,
                host: host_port(&field, port)?,
            });
        }
    }
    Ok(Converted::Object(Object::Pod(Arc::new(Pod {
        reference,
        uid: uid_at_node(&pod.metadata),
        labels: labels(&pod.metadata)?,
        node,
        addresses,
        announced: false,
        host_network: spec.host_network.unwrap_or_default(),
        container_ports,
        created: seconds(pod.metadata.creation_timestamp.as_ref()),
        workload: workload(&pod.metadata).map(Box::new),
    }))))
}

/// The object of a static pod is only a mirror: its node calls the pod by what the annotation says.
fn uid_at_node(metadata: &ObjectMeta) -> Option<Uid> {
    let annotations = metadata.annotations.as_ref();
    match annotations.and_then(|all| all.get(MIRROR)) {
        Some(of_node) => Uid::new(of_node).ok(),
        None => uid(metadata),
    }
}

/// What made the pod. Of a `ReplicaSet` and a `Job` that were made in turn, their names say by what.
fn workload(metadata: &ObjectMeta) -> Option<Workload> {
    let mut owners = metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    let made = |kind: &str, name: &str| Workload {
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let mut labels = metadata.labels.iter().flatten();
    let hash = labels.find(|(key, _)| *key == "pod-template-hash");
    let (name, suffix) = owner.name.rsplit_once('-').unwrap_or((&owner.name, ""));
    let is_time = (8..=10).contains(&suffix.len()) && suffix.bytes().all(|c| c.is_ascii_digit());
    Some(match owner.kind.as_str() {
        "ReplicaSet" if hash.is_some_and(|(_, hash)| hash == suffix) => made("Deployment", name),
        "Job" if is_time => made("CronJob", name),
        kind => made(kind, &owner.name),
    })
}

/// An address of loopback is legal: only the node's own sockets come there.
fn host_port(field: &str, port: &core::ContainerPort) -> Result<Option<HostPort>, FieldProblem> {
    let Some(number) = port.host_port.filter(|number| *number != 0) else {
        return Ok(None);
    };
    let number = port_number(field, number)?;
    let address = port
        .host_ip
        .as_deref()
        .filter(|text| !text.is_empty())
        .map(|text| unmapped(field, text))
        .transpose()?;
    if address.is_some_and(|address| address.is_multicast()) {
        let message = format!(
            "{} cannot be a hostIP",
            quoted(&port.host_ip.clone().unwrap_or_default())
        );
        return Err(wrong(field, message));
    }
    Ok(Some(HostPort {
        port: number,
        address,
    }))
}
