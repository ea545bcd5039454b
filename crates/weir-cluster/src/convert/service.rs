// SPDX-License-Identifier: Apache-2.0
//! Services.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use weir_model::{
    Distribution, Exclusion, Family, Ingress, IngressMode, Namespace, Service, ServiceName,
    ServicePort, ServiceRef, ServiceSelector, ServiceType, TargetPort, TrafficPolicy,
};

use super::{FieldProblem, name, port_number, protocol, quoted, seconds, unicast, wrong};
use crate::object::Object;

/// Of both families together.
const CLUSTER_IPS: usize = 2;
/// What a client keeps its endpoint for unless the service says otherwise (API reference).
const AFFINITY_SECONDS: u32 = 10_800;
/// One day, the most that the API takes.
const AFFINITY_SECONDS_MAX: u32 = 86_400;

pub(super) fn service(service: core::Service) -> Result<Object, FieldProblem> {
    let metadata = service.metadata;
    let namespace = Namespace::new(metadata.namespace.as_deref().unwrap_or("default"))
        .map_err(|error| wrong("metadata.namespace", error))?;
    let name = ServiceName::new(name(&metadata)).map_err(|error| wrong("metadata.name", error))?;
    let status = service.status.unwrap_or_default();
    let spec = service.spec.ok_or_else(|| wrong("spec", "missing"))?;
    let kind = match spec.type_.as_deref() {
        None | Some("" | "ClusterIP") => ServiceType::ClusterIp,
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        Some("ExternalName") => ServiceType::ExternalName,
        Some(other) => return Err(one_of("spec.type", other, "a type of service")),
    };
    let (headless, cluster_ips) = cluster_ips(&spec)?;
    let source_ranges = source_ranges(spec.load_balancer_source_ranges.as_deref())?;
    let health_check_port = spec
        .health_check_node_port
        .filter(|port| *port != 0)
        .map(|port| port_number("spec.healthCheckNodePort", port))
        .transpose()?;
    let exclusion = metadata.labels.as_ref().and_then(|labels| {
        // Their presence decides, whatever the value.
        let other = labels.get("service.kubernetes.io/service-proxy-name");
        let headless = labels.contains_key("service.kubernetes.io/headless");
        other
            .map(|proxy| Exclusion::OtherProxy(proxy.as_str().into()))
            .or(headless.then_some(Exclusion::HeadlessLabel))
    });
    let topology_mode = metadata.annotations.as_ref().and_then(|annotations| {
        let mode = annotations.get("service.kubernetes.io/topology-mode");
        mode.map(|mode| mode.as_str().into())
    });
    let selector = ServiceSelector::new(spec.selector.clone().unwrap_or_default())
        .map_err(|error| wrong("spec.selector", error))?;
    let external_ips = addresses("spec.externalIPs", spec.external_ips.as_deref())?;
    Ok(Object::Service(Arc::new(Service {
        reference: ServiceRef { namespace, name },
        created: seconds(metadata.creation_timestamp.as_ref()),
        kind,
        headless,
        exclusion,
        ports: ports(spec.ports.as_deref().unwrap_or_default())?,
        selector,
        cluster_ips,
        external_ips,
        ingress: ingress(&status)?,
        source_ranges,
        internal_policy: policy(
            "spec.internalTrafficPolicy",
            spec.internal_traffic_policy.as_deref(),
        )?,
        external_policy: policy(
            "spec.externalTrafficPolicy",
            spec.external_traffic_policy.as_deref(),
        )?,
        affinity_seconds: affinity(&spec)?,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        health_check_port,
        allocate_node_ports: spec.allocate_load_balancer_node_ports.unwrap_or(true),
        distribution: spec
            .traffic_distribution
            .as_deref()
            .map(Distribution::parse),
        topology_mode,
    })))
}

fn one_of(field: &str, text: &str, what: &str) -> FieldProblem {
    wrong(field, format!("{} is not {what}", quoted(text)))
}

/// Whether the service is headless, and its addresses.
fn cluster_ips(spec: &core::ServiceSpec) -> Result<(bool, Box<[IpAddr]>), FieldProblem> {
    let listed = spec.cluster_ips.as_deref().unwrap_or_default();
    let single = spec.cluster_ip.as_slice();
    let (field, texts) = if listed.is_empty() {
        ("spec.clusterIP", single)
    } else {
        ("spec.clusterIPs", listed)
    };
    if texts.iter().any(|text| text == "None") {
        return if texts.len() == 1 {
            Ok((true, Box::default()))
        } else {
            Err(wrong(field, "`None` stands beside addresses"))
        };
    }
    let addresses = addresses(field, Some(texts))?;
    let families: BTreeSet<_> = addresses.iter().copied().map(Family::of).collect();
    if families.len() < addresses.len() || addresses.len() > CLUSTER_IPS {
        return Err(wrong(
            field,
            "at most one address of each family is allowed",
        ));
    }
    Ok((false, addresses))
}

/// Addresses without those that are not there yet.
fn addresses(field: &str, texts: Option<&[String]>) -> Result<Box<[IpAddr]>, FieldProblem> {
    let mut found = Vec::new();
    for (index, text) in texts.unwrap_or_default().iter().enumerate() {
        if !text.is_empty() {
            let address = unicast(&format!("{field}[{index}]"), text, "a service")?;
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    Ok(found.into())
}

fn ports(ports: &[core::ServicePort]) -> Result<Box<[ServicePort]>, FieldProblem> {
    let mut found: Vec<ServicePort> = Vec::with_capacity(ports.len());
    for (index, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        let number = port_number(&field("port"), port.port)?;
        let target = match &port.target_port {
            // Zero and the empty text mean "as the port", too.
            None | Some(IntOrString::Int(0)) => TargetPort::Number(number),
            Some(IntOrString::Int(target)) => {
                TargetPort::Number(port_number(&field("targetPort"), *target)?)
            }
            Some(IntOrString::String(text)) => match text.parse() {
                Ok(target) => TargetPort::Number(port_number(&field("targetPort"), target)?),
                Err(_) if text.is_empty() => TargetPort::Number(number),
                Err(_) => TargetPort::Name(text.as_str().into()),
            },
        };
        let node_port = port
            .node_port
            .filter(|port| *port != 0)
            .map(|port| port_number(&field("nodePort"), port))
            .transpose()?;
        let port = ServicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            port: number,
            protocol: protocol(&field("protocol"), port.protocol.as_deref())?,
            target,
            node_port,
        };
        let same_name = |other: &&ServicePort| other.name == port.name;
        if found.iter().any(|other| same_name(&other)) {
            return Err(wrong(
                field("name"),
                format!("another port is called `{}` too", port.name),
            ));
        }
        let key = (port.port, port.protocol);
        if found
            .iter()
            .any(|other| (other.port, other.protocol) == key)
        {
            let message = format!("another port is {}/{} too", key.0, key.1);
            return Err(wrong(field("port"), message));
        }
        found.push(port);
    }
    Ok(found.into())
}

fn ingress(status: &core::ServiceStatus) -> Result<Box<[Ingress]>, FieldProblem> {
    let entries = status
        .load_balancer
        .as_ref()
        .and_then(|balancer| balancer.ingress.as_deref())
        .unwrap_or_default();
    let mut found = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let field = |name: &str| format!("status.loadBalancer.ingress[{index}].{name}");
        let Some(text) = entry.ip.as_deref().filter(|text| !text.is_empty()) else {
            // Known by name only: whoever uses it asks DNS.
            continue;
        };
        let mode = match entry.ip_mode.as_deref() {
            None | Some("" | "VIP") => IngressMode::Vip,
            Some("Proxy") => IngressMode::Proxy,
            Some(other) => return Err(one_of(&field("ipMode"), other, "VIP or Proxy")),
        };
        let address = unicast(&field("ip"), text, "a load balancer")?;
        found.push(Ingress { address, mode });
    }
    Ok(found.into())
}

fn source_ranges(ranges: Option<&[String]>) -> Result<Box<[IpNet]>, FieldProblem> {
    let mut found = Vec::new();
    for (index, text) in ranges.unwrap_or_default().iter().enumerate() {
        // The API takes blanks around a range.
        let text = text.trim();
        let range: IpNet = text.parse().map_err(|_| {
            let field = format!("spec.loadBalancerSourceRanges[{index}]");
            one_of(&field, text, "a CIDR such as 203.0.113.0/24")
        })?;
        found.push(range.trunc());
    }
    found.sort_unstable();
    found.dedup();
    Ok(found.into())
}

fn policy(field: &str, text: Option<&str>) -> Result<TrafficPolicy, FieldProblem> {
    match text {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => Err(one_of(field, other, "Cluster or Local")),
    }
}

fn affinity(spec: &core::ServiceSpec) -> Result<Option<u32>, FieldProblem> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return Ok(None),
        Some("ClientIP") => {}
        Some(other) => {
            return Err(one_of("spec.sessionAffinity", other, "None or ClientIP"));
        }
    }
    let configured = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    let Some(wanted) = configured else {
        return Ok(Some(AFFINITY_SECONDS));
    };
    u32::try_from(wanted)
        .ok()
        .filter(|seconds| (1..=AFFINITY_SECONDS_MAX).contains(seconds))
        .map(Some)
        .ok_or_else(|| {
            wrong(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                format!("{wanted} is not between 1 and {AFFINITY_SECONDS_MAX}"),
            )
        })
}

#[cfg(test)]
mod tests;
