// SPDX-License-Identifier: Apache-2.0
//! The containers of a pod that has its network: init containers first, then the others; a server of the lab where one
//! has no command.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc::channel},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    events,
    lab::Lab,
    names,
    node::pod_folder_inside,
    pod::{ContainerState, Pod, is_sidecar},
    readiness::watch_readiness,
};
use crate::{
    locked,
    object::Key,
    protocol::{Order, Process, Protocol},
};

const ORDER_LIMIT: Duration = Duration::from_secs(10);
const INIT_LIMIT: Duration = Duration::from_mins(10);

/// Starts one container, or the built-in server in its place.
pub(super) fn start_container(lab: &Lab, key: &Key, pod: &Pod, number: usize) -> Result<()> {
    let container = pod.containers.get(number).context("no such container")?;
    match container.argv() {
        Some(argv) => {
            let process = process_of(
                lab,
                key,
                pod,
                &format!("container {number}"),
                argv,
                &container.spec,
            )?;
            pod.sandbox
                .call(Order::Start(Box::new(process)), ORDER_LIMIT)?;
        }
        None => {
            for (protocol, port) in container.ports() {
                match serve(lab, key, pod, protocol, port) {
                    // A kernel without SCTP is no reason not to run the pod.
                    Err(error) if protocol == Protocol::Sctp => {
                        tracing::warn!(pod = %key, port, error = format!("{error:#}"), "SCTP port not served");
                    }
                    served => served?,
                }
            }
        }
    }
    Ok(())
}

/// Lets a pod answer on a port, with what pods of its kind answer.
fn serve(lab: &Lab, key: &Key, pod: &Pod, protocol: Protocol, port: u16) -> Result<()> {
    let teller = {
        let state = locked(&lab.state);
        let object = state.store.get(key);
        let tells = object.is_some_and(|object| names::is_server(object, port));
        tells.then(|| state.names.clone())
    };
    let order = match &teller {
        Some(_) => Order::ServeNames { protocol, port },
        None => Order::Serve { protocol, port },
    };
    pod.sandbox.call(order, ORDER_LIMIT)?;
    if let Some(teller) = teller {
        teller.add(&pod.sandbox);
    }
    Ok(())
}

/// A process in a pod.
pub(super) fn process_of(
    lab: &Lab,
    key: &Key,
    pod: &Pod,
    name: &str,
    argv: Vec<String>,
    container: &serde_json::Value,
) -> Result<Process> {
    let folder = lab.place.pod(&key.namespace, &key.name);
    let node = lab.node(&pod.node)?;
    let (folder, mut environment) = if pod.host_network {
        (pod_folder_inside(&folder), node.environment())
    } else {
        let commands = lab.place.commands().display().to_string();
        (folder, super::environment(&key.name, &commands))
    };
    for variable in container["env"].as_array().into_iter().flatten() {
        if let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) {
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(Process {
        name: name.to_owned(),
        argv,
        environment,
        directory: container["workingDir"].as_str().map(PathBuf::from),
        log: folder.join("log"),
    })
}

pub(super) fn start_containers(lab: &Arc<Lab>, key: &Key, pod: &Pod) -> Result<()> {
    for (number, container) in pod.containers.iter().enumerate() {
        if !container.sidecar {
            start_watched(lab, key, pod, number)?;
        }
    }
    Ok(())
}

/// Starts a container, with what is to be known about it from now on.
fn start_watched(lab: &Arc<Lab>, key: &Key, pod: &Pod, number: usize) -> Result<()> {
    let container = pod.containers.get(number).context("no such container")?;
    // Running comes first: the report of a container that ends at once must find it so.
    events::set_container(lab, key, number, ContainerState::Running);
    if let Err(error) = start_container(lab, key, pod, number) {
        events::set_container(
            lab,
            key,
            number,
            ContainerState::CannotStart(format!("{error:#}")),
        );
        return Err(error);
    }
    watch_readiness(lab, key, pod, number, container)
}

pub(super) fn run_inits(
    lab: &Arc<Lab>,
    key: &Key,
    pod: &Pod,
    inits: &[serde_json::Value],
) -> Result<()> {
    let mut sidecars = 0..;
    for (number, init) in inits.iter().enumerate() {
        if is_sidecar(init) {
            start_watched(lab, key, pod, sidecars.next().unwrap_or_default())?;
            continue;
        }
        let words = |field: &str| -> Vec<String> {
            serde_json::from_value(init[field].clone()).unwrap_or_default()
        };
        let argv = [words("command"), words("args")].concat();
        // Without a command there is an image to run, which a lab has not.
        if argv.is_empty() {
            continue;
        }
        let name = format!("init {number}");
        let (ended, end) = channel();
        let place = (pod.sandbox.name().to_owned(), name.clone());
        locked(&lab.ends).insert(place, ended);
        let process = process_of(lab, key, pod, &name, argv, init)?;
        pod.sandbox
            .call(Order::Start(Box::new(process)), ORDER_LIMIT)?;
        let code = end
            .recv_timeout(INIT_LIMIT)
            .context("an init container does not end")?;
        ensure!(code == 0, "init container {number} ended with code {code}");
    }
    Ok(())
}
