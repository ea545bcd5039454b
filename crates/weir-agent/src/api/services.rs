// SPDX-License-Identifier: Apache-2.0
//! Services: listed from what is compiled, compared by the loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::Response;
use weir_abi::service::flags;
use weir_api::service::{
    BackendAddress, FrontendAddress, Service, ServiceFlags, ServiceSpec, ServiceStatus,
    ServicesCompared,
};
use weir_compile::service::{BackendListing, FrontendListing, FrontendOwner};
use weir_model::World;

use super::stream::walked;
use super::{Answer, Api, ok};
use crate::core::Input;

pub(super) async fn compare(State(api): State<Api>) -> Answer<ServicesCompared> {
    ok(api.ask(Input::CompareServices).await?)
}

/// Frontends that are listed in one go; then changes have their turn.
const PIECE: usize = 256;

pub(super) async fn list(State(api): State<Api>) -> Response {
    let directory = Arc::clone(&api.shared.directory);
    walked(move |sink| {
        let mut last = None;
        loop {
            // Written to the caller without the locks: it may be slow.
            let piece: Vec<Service> = {
                let world = directory.world();
                let services = directory.services();
                let found: Vec<_> = services
                    .listing_behind(last.as_ref(), &world)
                    .take(PIECE)
                    .collect();
                if let Some(frontend) = found.last() {
                    last = Some(frontend.key);
                }
                let realized = directory.services_in_kernel.load(Ordering::Relaxed);
                let shown = |one| shown(one, realized, &world);
                found.iter().map(shown).collect()
            };
            if piece.is_empty() {
                return Ok(());
            }
            for service in piece {
                sink.line(&service);
            }
        }
    })
}

fn shown(listing: &FrontendListing, realized: bool, world: &World) -> Service {
    let FrontendListing {
        key,
        row,
        kind,
        owner,
        port_name,
        source_ranges,
        backends,
        internal_reason,
        external_reason,
        ..
    } = listing;
    let (namespace, name) = match owner {
        Some(FrontendOwner::Service(service)) => {
            (service.namespace.to_string(), service.name.to_string())
        }
        Some(FrontendOwner::Pod(pod)) => (pod.namespace.to_string(), pod.name.to_string()),
        None => (String::new(), String::new()),
    };
    let health_check = match owner {
        Some(FrontendOwner::Service(service)) => world
            .service(service)
            .and_then(|service| service.health_check()),
        Some(FrontendOwner::Pod(_)) | None => None,
    };
    let protocol = key.protocol.to_string();
    Service {
        spec: ServiceSpec {
            id: row.id.0,
            frontend_address: FrontendAddress {
                ip: key.address.to_string(),
                port: key.port.get(),
                protocol: protocol.clone(),
            },
            flags: ServiceFlags {
                kind: kind.map_or("unknown", |kind| kind.name()).to_owned(),
                namespace,
                name,
                port_name: port_name.clone(),
                ext_traffic_policy: policy(row.flags & flags::EXTERNAL_LOCAL != 0),
                int_traffic_policy: policy(row.flags & flags::INTERNAL_LOCAL != 0),
                affinity_timeout: row.affinity_timeout,
                source_ranges: source_ranges
                    .iter()
                    .flatten()
                    .map(ToString::to_string)
                    .collect(),
                health_check_node_port: health_check,
            },
            backend_addresses: backends.iter().map(|one| backend(one, &protocol)).collect(),
        },
        status: ServiceStatus {
            realized,
            no_backend: internal_reason.as_ref().map(ToString::to_string),
            no_external_backend: external_reason.as_ref().map(ToString::to_string),
        },
    }
}

fn policy(local: bool) -> String {
    if local { "Local" } else { "Cluster" }.to_owned()
}

fn backend(listing: &BackendListing, protocol: &str) -> BackendAddress {
    let BackendListing {
        address,
        port,
        state,
        internal,
        external,
        local: _,
        node,
        zone,
        pod,
    } = listing;
    let text = |name: Option<String>| name.unwrap_or_default();
    BackendAddress {
        ip: address.to_string(),
        port: port.get(),
        protocol: protocol.to_owned(),
        state: state.map_or("restored", |state| state.name()).to_owned(),
        node_name: text(node.as_ref().map(ToString::to_string)),
        pod_name: text(pod.as_ref().map(ToString::to_string)),
        zone: text(zone.as_ref().map(ToString::to_string)),
        internal: *internal,
        external: *external,
    }
}
