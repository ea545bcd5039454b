// SPDX-License-Identifier: Apache-2.0
//! Calls, carried out by the agent of the node.

mod client;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_api::endpoint::{Endpoint, EndpointChecked, EndpointCreated, EndpointRequest};
use weir_api::status::Status;
use weir_api::{ClientError, path};

use crate::config::{Attachment, Network};
use crate::failure::Failure;
use crate::request::{Call, PodName, Subject};
use crate::{result, version};
use client::{Agent, pause};

/// From one attempt to the next while the agent is away.
const PAUSE: Duration = Duration::from_millis(20);

/// How long taking back what failed may take, and a deletion where nothing is left to be deleted.
const SHORT: Duration = Duration::from_secs(2);

/// Parts of the agent without which no pod can be connected; `ipam` is fine once the cluster's
/// objects have been read.
const NEEDED: [&str; 3] = ["datapath", "devices", "ipam"];

/// Does what is asked for, by the deadline.
pub(crate) fn carry_out(call: &Call, deadline: Instant) -> Result<Option<Value>, Failure> {
    match call {
        Call::Add {
            subject,
            pod,
            netns,
        } => add(subject, pod, netns, deadline).map(Some),
        Call::Del { subject, netns } => del(subject, netns.as_deref(), deadline).map(|()| None),
        Call::Check {
            subject,
            pod,
            netns,
        } => check(subject, pod, netns, deadline).map(|()| None),
        Call::Gc(network) => collect(network, deadline).map(|()| None),
        Call::Status(network) => status(network, deadline).map(|()| None),
        Call::Version(spoken) => Ok(Some(version::supported(*spoken))),
    }
}

fn add(
    subject: &Subject,
    pod: &PodName,
    netns: &Path,
    deadline: Instant,
) -> Result<Value, Failure> {
    refuse_own_namespace(netns)?;
    let agent = Agent::of(&subject.network, deadline);
    let request = endpoint(subject, pod, netns);
    let created: Result<EndpointCreated, _> =
        agent.ask(|client| client.put(path::ENDPOINTS, &request));
    match created {
        Ok(created) => {
            let version = subject.network.version;
            Ok(result::of_add(version, &created, &subject.interface, netns))
        }
        Err(failure) => {
            // Nobody uses what a failed ADD has made, and not every runtime sends a DEL for it.
            if may_have_made_something(&failure) {
                let back = Agent::of(&subject.network, Instant::now() + SHORT);
                let _ = back.delete(subject.container.as_str(), subject.interface.as_str());
            }
            Err(failure)
        }
    }
}

fn del(subject: &Subject, netns: Option<&Path>, deadline: Instant) -> Result<(), Failure> {
    // A pod's link goes with its namespace, and an agent takes endpoints without a link away by
    // itself when it starts: a pod that has ended need not wait for it.
    let gone = netns.is_none_or(|netns| !netns.exists());
    let deadline = if gone {
        deadline.min(Instant::now() + SHORT)
    } else {
        deadline
    };
    let agent = Agent::of(&subject.network, deadline);
    match agent.delete(subject.container.as_str(), subject.interface.as_str()) {
        Err(Failure::Later { .. }) if gone => Ok(()),
        done => done,
    }
}

fn check(subject: &Subject, pod: &PodName, netns: &Path, deadline: Instant) -> Result<(), Failure> {
    let mut request = endpoint(subject, pod, netns);
    if let Some(before) = &subject.network.before {
        request.requested_addresses = before.addresses_of(subject.interface.as_str());
    }
    let agent = Agent::of(&subject.network, deadline);
    let checked: Result<EndpointChecked, _> =
        agent.ask(|client| client.ask(path::ENDPOINTS_CHECK, &request));
    match checked {
        Ok(checked) if checked.problems.is_empty() => Ok(()),
        Ok(checked) => Err(Failure::Differs(checked.problems)),
        Err(Failure::Refused(ClientError::Refused { status: 404, .. })) => {
            Err(Failure::UnknownContainer {
                container: request.container_id,
                interface: request.interface,
            })
        }
        Err(failure) => Err(failure),
    }
}

/// Takes away every attachment that the runtime does not list; one that stays does not keep the
/// others.
fn collect(network: &Network, deadline: Instant) -> Result<(), Failure> {
    let valid: BTreeSet<&Attachment> = network.valid.iter().flatten().collect();
    let agent = Agent::of(network, deadline);
    let endpoints: Vec<Endpoint> = agent.ask(|client| client.get(path::ENDPOINTS))?;
    let mut failed = Vec::new();
    for endpoint in endpoints {
        let attachment = Attachment {
            container: endpoint.status.external_identifiers.container_id,
            interface: endpoint.status.networking.container_interface_name,
        };
        if valid.contains(&attachment) {
            continue;
        }
        let Attachment {
            container,
            interface,
        } = attachment;
        if let Err(failure) = agent.delete(&container, &interface) {
            failed.push(format!("{interface} of container {container}: {failure}"));
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::NotRemoved(failed))
    }
}

fn status(network: &Network, deadline: Instant) -> Result<(), Failure> {
    loop {
        let agent = Agent::of(network, deadline);
        let problem = match agent.ask(|client| client.get::<Status>(path::STATUS)) {
            Ok(status) => unready(&status),
            Err(failure) => Some(failure.to_string()),
        };
        match problem {
            None => return Ok(()),
            Some(problem) if Instant::now() + PAUSE >= deadline => {
                return Err(Failure::NotReady(problem));
            }
            Some(_) => pause(),
        }
    }
}

/// Why no pod can be connected.
fn unready(status: &Status) -> Option<String> {
    NEEDED.into_iter().find_map(|name| {
        let part = status.subsystems.iter().find(|one| one.name == name);
        match part {
            Some(part) if part.healthy => None,
            Some(part) => Some(format!("{name}: {}", part.message)),
            None => Some(format!("{name}: nothing known")),
        }
    })
}

fn endpoint(subject: &Subject, pod: &PodName, netns: &Path) -> EndpointRequest {
    EndpointRequest {
        container_id: subject.container.as_str().to_owned(),
        netns: netns.display().to_string(),
        interface: subject.interface.as_str().to_owned(),
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        requested_addresses: Vec::new(),
    }
}

/// A runtime that names the node's own namespace would have the node's traffic led away.
fn refuse_own_namespace(netns: &Path) -> Result<(), Failure> {
    let inode = |path: &Path| {
        fs::metadata(path)
            .map(|found| (found.dev(), found.ino()))
            .ok()
    };
    let own = inode(Path::new("/proc/self/ns/net"));
    if own.is_some() && inode(netns) == own {
        return Err(Failure::Environment {
            name: "CNI_NETNS",
            problem: format!("{} is the node's own network namespace", netns.display()),
        });
    }
    Ok(())
}

/// Refusals of the request itself come before anything is made.
fn may_have_made_something(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(ClientError::Refused { status, .. }) => !(400..500).contains(status),
        Failure::Refused(_) | Failure::Later { .. } => true,
        Failure::NoAddress(_)
        | Failure::Version(_)
        | Failure::Command { .. }
        | Failure::Field { .. }
        | Failure::UnknownContainer { .. }
        | Failure::Environment { .. }
        | Failure::Input(_)
        | Failure::Decode(_)
        | Failure::Config(_)
        | Failure::Stuck { .. }
        | Failure::NotReady(_)
        | Failure::Differs(_)
        | Failure::NotRemoved(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use weir_api::Problem;

    use super::*;

    pub(super) fn refused(status: u16) -> ClientError {
        let problem = Problem {
            error: "no".to_owned(),
            hint: None,
        };
        ClientError::Refused { status, problem }
    }

    #[test]
    fn what_was_refused_before_anything_was_made_is_left_alone() {
        assert!(!may_have_made_something(&Failure::Refused(refused(409))));
        assert!(!may_have_made_something(&Failure::NoAddress(refused(507))));
        assert!(may_have_made_something(&Failure::Refused(refused(500))));
    }
}
