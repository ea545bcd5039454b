// SPDX-License-Identifier: Apache-2.0
//! Endpoint slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1 as discovery;
use weir_model::{
    Endpoint, EndpointSlice, Family, Hints, Namespace, NodeName, PodName, ServiceName, SliceName,
    SlicePort, SliceRef, Zone,
};

use super::{Converted, FieldProblem, name, port_number, protocol, quoted, unicast, wrong};
use crate::object::Object;

/// The label that names the service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Labels by whose presence, whatever their value, a slice is not for who translates addresses of services. The
/// controller sets them on the slices of a service that has them, others on slices of their own making.
const UNBALANCED: [&str; 2] = [
    "service.kubernetes.io/headless",
    "service.kubernetes.io/service-proxy-name",
];

pub(super) fn endpoint_slice(slice: discovery::EndpointSlice) -> Result<Converted, FieldProblem> {
    let metadata = slice.metadata;
    let namespace = Namespace::new(metadata.namespace.as_deref().unwrap_or("default"))
        .map_err(|error| wrong("metadata.namespace", error))?;
    let name = SliceName::new(name(&metadata)).map_err(|error| wrong("metadata.name", error))?;
    let family = match slice.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        // No meaning is defined for these (API reference).
        "FQDN" => return Ok(Converted::Skipped("EndpointSlice of type FQDN".to_owned())),
        other => {
            let message = format!("{} is not IPv4, IPv6 or FQDN", quoted(other));
            return Err(wrong("addressType", message));
        }
    };
    let labels = metadata.labels.unwrap_or_default();
    if UNBALANCED.iter().any(|label| labels.contains_key(*label)) {
        return Ok(Converted::Unbalanced);
    }
    let label = labels.get(SERVICE_NAME);
    let Some(service) = label.filter(|service| !service.is_empty()) else {
        let kind = "EndpointSlice without a service".to_owned();
        return Ok(Converted::Skipped(kind));
    };
    let service = ServiceName::new(service)
        .map_err(|error| wrong(format!("metadata.labels[{SERVICE_NAME}]"), error))?;
    let mut shared = Shared::default();
    let endpoints = slice
        .endpoints
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(index, endpoint)| shared.endpoint(index, endpoint, family))
        .collect::<Result<_, _>>()?;
    Ok(Converted::Object(Object::EndpointSlice(Arc::new(
        EndpointSlice {
            reference: SliceRef { namespace, name },
            service,
            family,
            ports: ports(slice.ports.as_deref().unwrap_or_default())?,
            endpoints,
        },
    ))))
}

fn ports(ports: &[discovery::EndpointPort]) -> Result<Box<[SlicePort]>, FieldProblem> {
    let convert = |(index, port): (usize, &discovery::EndpointPort)| {
        let field = |name: &str| format!("ports[{index}].{name}");
        Ok(SlicePort {
            name: port.name.as_deref().unwrap_or_default().into(),
            protocol: protocol(&field("protocol"), port.protocol.as_deref())?,
            port: port
                .port
                .filter(|port| *port != 0)
                .map(|port| port_number(&field("port"), port))
                .transpose()?,
        })
    };
    ports.iter().enumerate().map(convert).collect()
}

/// What the endpoints of one slice say alike is held once.
#[derive(Default)]
struct Shared {
    nodes: BTreeMap<String, NodeName>,
    zones: BTreeMap<String, Zone>,
    hints: BTreeMap<Hints, Arc<Hints>>,
}

impl Shared {
    fn endpoint(
        &mut self,
        index: usize,
        endpoint: &discovery::Endpoint,
        family: Family,
    ) -> Result<Endpoint, FieldProblem> {
        let field = |name: &str| format!("endpoints[{index}].{name}");
        let Some(text) = endpoint.addresses.first() else {
            return Err(wrong(field("addresses"), "must not be empty"));
        };
        let address = unicast(&field("addresses[0]"), text, "an endpoint")?;
        if Family::of(address) != family {
            let message = format!("{address} is not of type {}", family.name());
            return Err(wrong(field("addresses[0]"), message));
        }
        let present = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let node = present(&endpoint.node_name)
            .map(|node| self.node(&field("nodeName"), &node))
            .transpose()?;
        let zone = present(&endpoint.zone)
            .map(|zone| self.zone(&field("zone"), &zone))
            .transpose()?;
        let conditions = endpoint.conditions.as_ref();
        let condition = |read: fn(&discovery::EndpointConditions) -> Option<bool>, absent| {
            conditions.and_then(read).unwrap_or(absent)
        };
        let target = endpoint.target_ref.as_ref();
        let pod = target
            .filter(|target| target.kind.as_deref() == Some("Pod"))
            .and_then(|target| target.name.as_deref())
            .map(|pod| PodName::new(pod).map_err(|error| wrong(field("targetRef.name"), error)))
            .transpose()?;
        Ok(Endpoint {
            address,
            ready: condition(|conditions| conditions.ready, true),
            serving: condition(|conditions| conditions.serving, true),
            terminating: condition(|conditions| conditions.terminating, false),
            node,
            zone,
            hints: self.hints(&field("hints"), endpoint.hints.as_ref())?,
            pod,
        })
    }

    fn node(&mut self, field: &str, text: &str) -> Result<NodeName, FieldProblem> {
        if let Some(node) = self.nodes.get(text) {
            return Ok(node.clone());
        }
        let node = NodeName::new(text).map_err(|error| wrong(field, error))?;
        self.nodes.insert(text.to_owned(), node.clone());
        Ok(node)
    }

    fn zone(&mut self, field: &str, text: &str) -> Result<Zone, FieldProblem> {
        if let Some(zone) = self.zones.get(text) {
            return Ok(zone.clone());
        }
        let zone = Zone::new(text).map_err(|error| wrong(field, error))?;
        self.zones.insert(text.to_owned(), zone.clone());
        Ok(zone)
    }

    fn hints(
        &mut self,
        field: &str,
        hints: Option<&discovery::EndpointHints>,
    ) -> Result<Option<Arc<Hints>>, FieldProblem> {
        let Some(hints) = hints else { return Ok(None) };
        let mut zones = Vec::new();
        for (index, zone) in hints.for_zones.iter().flatten().enumerate() {
            zones.push(self.zone(&format!("{field}.forZones[{index}].name"), &zone.name)?);
        }
        let mut nodes = Vec::new();
        for (index, node) in hints.for_nodes.iter().flatten().enumerate() {
            nodes.push(self.node(&format!("{field}.forNodes[{index}].name"), &node.name)?);
        }
        if zones.is_empty() && nodes.is_empty() {
            return Ok(None);
        }
        let hints = Hints {
            zones: zones.into(),
            nodes: nodes.into(),
        };
        let shared = self.hints.entry(hints);
        let shared = shared.or_insert_with_key(|hints| Arc::new(hints.clone()));
        Ok(Some(Arc::clone(shared)))
    }
}

#[cfg(test)]
mod tests;
