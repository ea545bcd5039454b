// SPDX-License-Identifier: Apache-2.0
//! What happens by itself: sandboxes report ends, and containers are started again.

use std::{
    sync::{Arc, mpsc::Receiver},
    thread,
    time::Duration,
};

use anyhow::Result;

use super::{
    containers::start_container,
    handle::Event,
    lab::{Lab, State},
    node::AGENT,
    pod::{ContainerState, Pod},
};
use crate::{locked, object::Key};

/// A container that keeps ending is started again after 100 ms, 200 ms and so on up to this.
const BACKOFF_LIMIT: Duration = Duration::from_secs(10);

/// Handles what sandboxes report for as long as the lab lives.
pub(crate) fn watch(lab: &Arc<Lab>, happened: Receiver<Event>) -> Result<()> {
    let lab = Arc::downgrade(lab);
    thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || {
            for event in happened {
                let Some(lab) = lab.upgrade() else { return };
                handle(&lab, &event);
            }
        })?;
    Ok(())
}

fn handle(lab: &Arc<Lab>, event: &Event) {
    let place = (event.sandbox.clone(), event.process.clone());
    if let Some(waiting) = locked(&lab.ends).remove(&place) {
        // Whoever waited may have given up.
        let _ = waiting.send(event.code);
        return;
    }
    if let Some(node) = event.sandbox.strip_prefix("node:")
        && let (Some(node), AGENT) = (lab.nodes.get(node), event.process.as_str())
    {
        tracing::info!(node = node.own.name, code = event.code, "the agent ended");
        node.agent_ended(event.code);
        lab.changed.notify_all();
        return;
    }
    let number = event
        .process
        .strip_prefix("container ")
        .and_then(|n| n.parse::<usize>().ok());
    if let (Some((namespace, name)), Some(number)) = (event.sandbox.split_once('/'), number) {
        container_ended(lab, &Key::new("Pod", namespace, name), number, event.code);
    }
}

fn container_ended(lab: &Arc<Lab>, key: &Key, number: usize, code: i32) {
    set_container(lab, key, number, ContainerState::Ended(code));
    let (pod, leaves) = {
        let state = locked(&lab.state);
        (
            state.pods.get(key).cloned(),
            state.leaving.contains_key(key),
        )
    };
    let restarts = |pod: &Pod| {
        !leaves
            && pod
                .containers
                .get(number)
                .is_some_and(|container| pod.restarts(container, code))
    };
    let Some(pod) = pod.filter(restarts) else {
        return;
    };
    let restarts = pod
        .containers
        .get(number)
        .map_or(0, |container| container.restarts);
    let pause = Duration::from_millis(100)
        .saturating_mul(1 << restarts.min(16))
        .min(BACKOFF_LIMIT);
    let (lab, key) = (Arc::downgrade(lab), key.clone());
    let spawned = thread::Builder::new()
        .name(format!("restart {key}"))
        .spawn(move || {
            // Nobody wakes this thread, so this is the whole pause.
            thread::park_timeout(pause);
            let Some(lab) = lab.upgrade() else { return };
            // The pod may be gone or replaced by now.
            let current = locked(&lab.state).pods.get(&key).cloned();
            let Some(current) = current.filter(|current| current.container_id == pod.container_id)
            else {
                return;
            };
            change(&lab, &key, |pod| {
                if let Some(container) = pod.containers.get_mut(number) {
                    container.restarts += 1;
                    container.state = ContainerState::Running;
                    container.ready = container.spec["readinessProbe"].is_null();
                }
            });
            if let Err(error) = start_container(&lab, &key, &current, number) {
                set_container(
                    &lab,
                    &key,
                    number,
                    ContainerState::CannotStart(format!("{error:#}")),
                );
            }
        });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to restart a container");
    }
}

/// Notes what a container does now. One that ends is not ready any more.
pub(crate) fn set_container(lab: &Lab, key: &Key, number: usize, state: ContainerState) {
    change(lab, key, |pod| {
        if let Some(container) = pod.containers.get_mut(number) {
            container.ready = match state {
                ContainerState::Running => container.spec["readinessProbe"].is_null(),
                ContainerState::Waiting
                | ContainerState::CannotStart(_)
                | ContainerState::Ended(_) => false,
            };
            container.state = state;
        }
    });
}

/// Notes that a pod cannot start its containers.
pub(crate) fn container_failed(lab: &Lab, key: &Key, reason: &str) {
    change(lab, key, |pod| {
        for container in &mut pod.containers {
            container.state = ContainerState::CannotStart(reason.to_owned());
        }
    });
}

/// Changes a pod, and tells everybody who waits for it.
pub(super) fn change(lab: &Lab, key: &Key, change: impl FnOnce(&mut Pod)) {
    let mut state = locked(&lab.state);
    let Some(pod) = state.pods.get_mut(key) else {
        return;
    };
    change(pod);
    lab.refresh_status(&mut state, key);
    // While an operation runs, it publishes once for all its pods.
    if lab.operation.try_lock().is_ok()
        && let Err(error) = state.publish(&lab.topology)
    {
        tracing::error!(error = format!("{error:#}"), "objects not published");
    }
    lab.changed.notify_all();
}

impl Lab {
    /// Makes the status of a running pod's object say what is.
    pub(crate) fn refresh_status(&self, state: &mut State, key: &Key) {
        if let (Some(pod), Some(object)) = (state.pods.get(key), state.store.get(key))
            && let Some(node) = self.nodes.get(&pod.node)
        {
            let status = pod.status(&node.own, object);
            state.store.change(key, |object| object["status"] = status);
        }
    }
}
