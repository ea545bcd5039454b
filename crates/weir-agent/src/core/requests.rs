// SPDX-License-Identifier: Apache-2.0
//! What the CNI plugin, the lab and people ask of endpoints: a file for each verb. Here: is a request
//! sound, and which endpoint is meant?

mod check;
mod connect;
mod delete;
mod regenerate;

use std::collections::BTreeSet;

use weir_api::endpoint::EndpointRequest;
use weir_model::PodRef;

use super::Core;
use crate::endpoint::Endpoint;
use crate::error::EndpointError;

pub(super) use connect::created;

/// A request that has been proven.
struct Proven {
    request: EndpointRequest,
    pod: PodRef,
}

fn prove(request: EndpointRequest) -> Result<Proven, EndpointError> {
    let invalid = |field, message: String| EndpointError::Invalid { field, message };
    let container = &request.container_id;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if container.is_empty() || container.len() > 128 || !container.chars().all(legal) {
        let message = "1 to 128 letters, digits, `-`, `_` and `.` are needed".to_owned();
        return Err(invalid("containerId", message));
    }
    let name = &request.interface;
    let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    if name.is_empty()
        || name.len() > 15
        || !name.chars().all(legal)
        || matches!(name.as_str(), "." | ".." | "lo")
    {
        return Err(invalid(
            "interface",
            format!("`{name}` cannot be the name of an interface"),
        ));
    }
    if !request.netns.starts_with('/') || request.netns.len() > 4096 || request.netns.contains('\0')
    {
        return Err(invalid("netns", "an absolute path is needed".to_owned()));
    }
    let pod = PodRef::new(&request.namespace, &request.pod)
        .map_err(|error| invalid("pod", error.to_string()))?;
    if request.requested_addresses.len() > 8 {
        return Err(invalid(
            "requestedAddresses",
            "at most 8 are possible".to_owned(),
        ));
    }
    let mut seen = BTreeSet::new();
    if let Some(address) = request
        .requested_addresses
        .iter()
        .find(|one| !seen.insert(*one))
    {
        let message = format!("{address} stands there twice");
        return Err(invalid("requestedAddresses", message));
    }
    Ok(Proven { request, pod })
}

impl Core {
    fn known(&self, request: &EndpointRequest) -> Option<&Endpoint> {
        self.endpoints.values().find(|endpoint| {
            endpoint.record.container_id == request.container_id
                && endpoint.record.interface == request.interface
        })
    }
}
