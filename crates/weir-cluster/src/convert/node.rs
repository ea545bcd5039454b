// SPDX-License-Identifier: Apache-2.0
//! Nodes: their addresses and the ranges of their pods.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use weir_model::{Node, NodeName, PodCidr};

use super::{FieldProblem, address, labels, name, uid, wrong};
use crate::object::Object;

pub(super) fn node(node: core::Node) -> Result<Object, FieldProblem> {
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
        uid: uid(&node.metadata),
        labels,
        addresses,
        pod_cidrs,
    })))
}
