// SPDX-License-Identifier: Apache-2.0
//! Is a container ready? Looked at again and again, as its probe says.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak, mpsc::channel},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use weir_net::Family;

use super::{
    containers::process_of,
    events::change,
    lab::Lab,
    pod::{Container, ContainerState, Pod},
};
use crate::{
    locked,
    object::Key,
    protocol::{Order, Path},
};

const ORDER_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at a container that is not ready yet. Kubernetes waits whole seconds; a lab need not.
const UNREADY_PERIOD: Duration = Duration::from_millis(100);

/// Looks at a container's readiness again and again, if it has a probe, until its pod is gone.
pub(super) fn watch_readiness(
    lab: &Arc<Lab>,
    key: &Key,
    pod: &Pod,
    number: usize,
    container: &Container,
) -> Result<()> {
    if container.spec["readinessProbe"].is_null() {
        return Ok(());
    }
    let (lab, key) = (Arc::downgrade(lab), key.clone());
    let (pod, container) = (pod.clone(), container.clone());
    thread::Builder::new()
        .name(format!("readiness {key}"))
        .spawn(move || {
            let probe = &container.spec["readinessProbe"];
            let seconds = |field: &str, default: u64| {
                Duration::from_secs(probe[field].as_u64().unwrap_or(default))
            };
            thread::park_timeout(seconds("initialDelaySeconds", 0));
            while let Some(ready) = look(
                &lab,
                &key,
                &pod,
                number,
                &container,
                seconds("timeoutSeconds", 1),
            ) {
                let period = if ready {
                    seconds("periodSeconds", 10)
                } else {
                    UNREADY_PERIOD
                };
                thread::park_timeout(period);
            }
        })?;
    Ok(())
}

/// One look; none when there is nothing to look at any more.
fn look(
    lab: &Weak<Lab>,
    key: &Key,
    pod: &Pod,
    number: usize,
    container: &Container,
    limit: Duration,
) -> Option<bool> {
    let lab = lab.upgrade()?;
    let current = locked(&lab.state).pods.get(key).cloned()?;
    if current.container_id != pod.container_id {
        return None;
    }
    let known = current.containers.get(number)?;
    if known.state != ContainerState::Running {
        return Some(false);
    }
    let ready = probe(&lab, key, pod, number, container, limit).is_ok();
    if ready != known.ready {
        change(&lab, key, |pod| {
            if let Some(container) = pod.containers.get_mut(number)
                && container.state == ContainerState::Running
            {
                container.ready = ready;
            }
        });
    }
    Some(ready)
}

/// Probes come from the pod's node, as the kubelet's do.
fn probe(
    lab: &Lab,
    key: &Key,
    pod: &Pod,
    number: usize,
    container: &Container,
    limit: Duration,
) -> Result<()> {
    let node = lab.node(&pod.node)?;
    let probe = &container.spec["readinessProbe"];
    let timeout_ms = u64::try_from(limit.as_millis())?;
    let path = |port: &Value| -> Result<Path> {
        let port = container.port(port).context("no such port")?;
        let address = Family::BOTH
            .into_iter()
            .filter(|family| node.own.address(*family).is_some())
            .find_map(|family| pod.address(family))
            .context("the node has no address of the pod's families")?;
        Ok(Path {
            destination: SocketAddr::new(address, port),
            source: None,
            source_port: None,
            timeout_ms,
        })
    };
    if let Some(get) = probe.get("httpGet") {
        let order = Order::Fetch {
            path: path(&get["port"])?,
            page: get["path"].as_str().unwrap_or("/").to_owned(),
            host: key.name.clone(),
        };
        node.sandbox.call(order, limit + ORDER_LIMIT)?;
    } else if let Some(socket) = probe.get("tcpSocket") {
        let order = Order::Connect {
            path: path(&socket["port"])?,
        };
        node.sandbox.call(order, limit + ORDER_LIMIT)?;
    } else if let Some(exec) = probe.get("exec") {
        let argv: Vec<String> = serde_json::from_value(exec["command"].clone())?;
        let name = format!("probe {number}");
        let (ended, end) = channel();
        locked(&lab.ends).insert((pod.sandbox.name().to_owned(), name.clone()), ended);
        let process = process_of(lab, key, pod, &name, argv, &container.spec)?;
        pod.sandbox
            .call(Order::Start(Box::new(process)), ORDER_LIMIT)?;
        let code = end
            .recv_timeout(limit)
            .context("the command takes too long")?;
        anyhow::ensure!(code == 0, "the command ended with code {code}");
    }
    Ok(())
}
