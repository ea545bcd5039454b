// SPDX-License-Identifier: Apache-2.0
//! The ways to name an endpoint of this node.

use axum::http::StatusCode;
use weir_api::endpoint::Endpoint;

use super::Refusal;

/// Longest part of an unknown name that is repeated to who asked.
const SHOWN: usize = 128;

/// The endpoint that is named.
pub(super) fn find<'a>(
    endpoints: &'a [Endpoint],
    reference: &str,
) -> Result<&'a Endpoint, Refusal> {
    let mut endpoints = endpoints.iter();
    let is = matching(reference);
    endpoints.find(|one| is(one)).ok_or_else(|| {
        let shown: String = reference.chars().take(SHOWN).collect();
        Refusal::new(
            StatusCode::NOT_FOUND,
            format!("no endpoint `{shown}` on this node"),
            Some(
                "name it by number, NAMESPACE/POD, pod-name:NAMESPACE:POD, ipv4:A, ipv6:A or container-id:C",
            ),
        )
    })
}

fn matching(reference: &str) -> Box<dyn Fn(&Endpoint) -> bool + '_> {
    if let Ok(id) = reference.parse::<u16>() {
        return Box::new(move |one| one.id == id);
    }
    let Some((kind, name)) = reference.split_once(':') else {
        return Box::new(move |one| one.status.external_identifiers.pod_name == reference);
    };
    match kind {
        "cilium-local" | "weir-local" => Box::new(move |one| name.parse() == Ok(one.id)),
        "container-id" => Box::new(move |one| one.status.external_identifiers.container_id == name),
        "pod-name" | "cep-name" => {
            let pod = name.replacen(':', "/", 1);
            Box::new(move |one| one.status.external_identifiers.pod_name == pod)
        }
        "ipv4" | "ipv6" => Box::new(move |one| {
            let mut addresses = one.status.networking.addressing.iter();
            addresses.any(|both| {
                both.ipv4.as_deref() == Some(name) || both.ipv6.as_deref() == Some(name)
            })
        }),
        _ => Box::new(|_| false),
    }
}
