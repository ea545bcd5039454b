// SPDX-License-Identifier: Apache-2.0
//! Where would a packet go, and who decides? Asked without sending one (ADR 0002).
//!
//! This node's part is answered by the loaded programs over the live maps, in dry run; the same code
//! in user space over a read-back looks over their shoulder. What happens on other nodes, and on this
//! one where something is only supposed, is answered by that code over rows compiled for the node,
//! because this agent can ask no other kernel. Each step says which.
//!
//! Read `walk` for the way of a packet, then `scene` and `view` for what it meets, `place` and `port` for
//! who and what is meant by a question, `side` for what policy has to say.

mod frame;
mod hop;
mod lookups;
mod place;
mod port;
mod run;
mod scene;
mod side;
mod view;
mod walk;

use weir_api::trace::{Trace, TraceRequest};
use weir_model::{Change, PolicyRef};

use crate::shared::Shared;
use place::{Role, resolve};
use port::target;
use scene::Scene;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    #[error("the datapath is not loaded")]
    NotLoaded,
    /// What the question is about is not there.
    #[error("{message}")]
    Missing { message: String },
    /// The question makes no sense.
    #[error("{message}")]
    Invalid { message: String },
    #[error(transparent)]
    Datapath(#[from] weir_datapath::Error),
}

impl TraceError {
    pub(crate) const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Missing { .. } => Some(
                "`weir endpoint list`, `weir service list` and `weir node list` show who is there",
            ),
            Self::NotLoaded | Self::Invalid { .. } | Self::Datapath(_) => None,
        }
    }
}

/// Answers a question, once for each port.
pub(crate) fn answer(shared: &Shared, request: &TraceRequest) -> Result<Vec<Trace>, TraceError> {
    let mut scene = Scene::new(shared)?;
    for manifest in &request.with {
        suppose_applied(&mut scene, manifest)?;
    }
    for name in &request.without {
        suppose_deleted(&mut scene, name)?;
    }
    let source = resolve(&mut scene, &request.source, Role::Source)?;
    let destination = resolve(&mut scene, &request.destination, Role::Destination)?;
    let has = |v4| source.address(v4).is_some() && destination.address(v4).is_some();
    let v4 = match request.family {
        Some(4) => true,
        Some(6) => false,
        Some(other) => {
            return Err(TraceError::Invalid {
                message: format!("{other} is no address family: 4 or 6"),
            });
        }
        None => has(true) || !has(false),
    };
    if !has(v4) {
        let family = if v4 { "IPv4" } else { "IPv6" };
        let (source, destination) = (&source.name, &destination.name);
        return Err(TraceError::Invalid {
            message: format!("{source} and {destination} do not both have an {family} address"),
        });
    }
    let mut ports: Vec<Option<&str>> = request
        .ports
        .iter()
        .map(|port| Some(port.as_str()))
        .collect();
    if ports.is_empty() {
        ports.push(None);
    }
    let mut traces = Vec::new();
    for port in ports {
        let target = target(&mut scene, port, &destination, v4)?;
        traces.push(walk::walk(&scene, &source, &destination, target, v4)?);
    }
    Ok(traces)
}

fn suppose_applied(scene: &mut Scene<'_>, manifest: &str) -> Result<(), TraceError> {
    let read = weir_cluster::text::read(manifest);
    if let Some(problem) = read.problems.first() {
        let message = problem.to_string();
        return Err(TraceError::Invalid {
            message: format!(
                "the manifest is refused: {}",
                message.trim_start_matches(": ")
            ),
        });
    }
    for (kind, count) in &read.skipped {
        scene
            .notes
            .push(format!("{count} {kind} in the manifest has no say in this"));
    }
    for change in read.changes {
        let object = if let Change::NetworkPolicy(policy) = &change {
            format!("policy {}", policy.reference)
        } else if let Change::Pod(pod) = &change {
            format!("pod {}", pod.reference)
        } else if let Change::Service(service) = &change {
            format!("service {}", service.reference)
        } else {
            "another object of the manifest".to_owned()
        };
        let said = format!("{object} is applied");
        scene.suppose(change, said);
    }
    Ok(())
}

fn suppose_deleted(scene: &mut Scene<'_>, name: &str) -> Result<(), TraceError> {
    let (namespace, short) = name.split_once('/').unwrap_or(("default", name));
    let policy = PolicyRef::new(namespace, short).map_err(|error| TraceError::Invalid {
        message: error.to_string(),
    })?;
    if scene.world.policy(&policy).is_none() {
        return Err(TraceError::Missing {
            message: format!("there is no policy {policy}"),
        });
    }
    let said = format!("policy {policy} is deleted");
    scene.suppose(Change::NetworkPolicyGone(policy), said);
    Ok(())
}
