// SPDX-License-Identifier: Apache-2.0
//! Pods on their way out. A deleted pod whose containers have something to do before they end stays for its grace
//! period: it runs its `preStop` hooks, is asked to end, and serves meanwhile as an endpoint that is terminating.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, mpsc::channel},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    containers::process_of,
    lab::{Lab, State},
    pod::{ContainerState, Pod, containers_of},
    store::time,
};
use crate::{
    locked,
    object::{Key, Object},
    protocol::Order,
};

/// As long as a pod gets that does not say how long it needs.
const GRACE: u64 = 30;
const ORDER_LIMIT: Duration = Duration::from_secs(10);

/// A pod that is leaving.
#[derive(Debug)]
pub(crate) struct Leaving {
    deadline: Mutex<Instant>,
    /// Told when the deadline has come closer.
    sooner: Condvar,
}

impl Leaving {
    /// Waits until a moment, or until the pod has to be gone.
    fn wait_until(&self, moment: Instant) {
        let mut deadline = locked(&self.deadline);
        loop {
            let left = moment
                .min(*deadline)
                .saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            deadline = self
                .sooner
                .wait_timeout(deadline, left)
                .map_or_else(|poison| poison.into_inner().0, |(deadline, _)| deadline);
        }
    }

    fn deadline(&self) -> Instant {
        *locked(&self.deadline)
    }

    fn shorten(&self, deadline: Instant) {
        let mut own = locked(&self.deadline);
        if deadline < *own {
            *own = deadline;
            self.sooner.notify_all();
        }
    }
}

impl Lab {
    /// Lets a pod begin to leave, or leave sooner than it would have; false when it can go at once.
    pub(crate) fn begin_leaving(
        self: &Arc<Self>,
        state: &mut MutexGuard<'_, State>,
        key: &Key,
        requested: Option<u64>,
    ) -> bool {
        let state = &mut **state;
        let (Some(object), Some(pod)) = (state.store.get(key), state.pods.get(key)) else {
            return false;
        };
        let usual = object.get("/spec/terminationGracePeriodSeconds");
        let usual = usual.and_then(Value::as_u64).unwrap_or(GRACE);
        let seconds = requested.unwrap_or(usual);
        if seconds == 0 || !has_to_linger(object) {
            return false;
        }
        let deadline = Instant::now() + Duration::from_secs(seconds);
        if let Some(leaving) = state.leaving.get(key) {
            if requested.is_some() {
                leaving.shorten(deadline);
            }
            return true;
        }
        let leaving = Arc::new(Leaving {
            deadline: Mutex::new(deadline),
            sooner: Condvar::new(),
        });
        let (lab, leaver, of) = (Arc::clone(self), key.clone(), Arc::clone(&leaving));
        let pod = pod.clone();
        let spawned = thread::Builder::new()
            .name(format!("leave {key}"))
            .spawn(move || {
                if let Err(error) = leave(&lab, &leaver, &pod, &of) {
                    tracing::warn!(pod = %leaver, error = format!("{error:#}"), "a pod leaves badly");
                }
                end(&lab, &leaver, &pod);
            });
        if spawned.is_err() {
            return false;
        }
        state.leaving.insert(key.clone(), leaving);
        let gone = time(SystemTime::now() + Duration::from_secs(seconds));
        state.store.change(key, |object| {
            object["metadata"]["deletionTimestamp"] = json!(gone);
            object["metadata"]["deletionGracePeriodSeconds"] = json!(seconds);
        });
        true
    }
}

/// Whether a pod has hooks or processes of its own. The built-in server ends when it is asked to.
fn has_to_linger(pod: &Object) -> bool {
    containers_of(pod).iter().any(|container| {
        container.argv().is_some() || !container.spec["lifecycle"]["preStop"].is_null()
    })
}

/// What the kubelet does with a pod that has been deleted.
fn leave(lab: &Lab, key: &Key, pod: &Pod, leaving: &Leaving) -> Result<()> {
    let begin = Instant::now();
    let hooks = pod.containers.iter();
    let hooks = hooks.map(|container| (container, &container.spec["lifecycle"]["preStop"]));
    let mut pause = Duration::ZERO;
    for (number, (container, hook)) in hooks.enumerate() {
        if let Some(seconds) = hook["sleep"]["seconds"].as_u64() {
            pause = pause.max(Duration::from_secs(seconds));
        }
        if let Some(command) = hook["exec"]["command"].as_array() {
            let words = command.iter().filter_map(Value::as_str);
            let argv = words.map(ToOwned::to_owned).collect();
            let name = format!("preStop {number}");
            let (ended, end) = channel();
            locked(&lab.ends).insert((pod.sandbox.name().to_owned(), name.clone()), ended);
            let process = process_of(lab, key, pod, &name, argv, &container.spec)?;
            pod.sandbox
                .call(Order::Start(Box::new(process)), ORDER_LIMIT)?;
            let left = leaving.deadline().saturating_duration_since(Instant::now());
            end.recv_timeout(left).context("preStop takes too long")?;
        }
    }
    leaving.wait_until(begin + pause);
    for (number, container) in pod.containers.iter().enumerate() {
        if container.argv().is_some() {
            let process = format!("container {number}");
            let signal = libc::SIGTERM;
            pod.sandbox
                .call(Order::Signal { process, signal }, ORDER_LIMIT)?;
        }
    }
    wait_for_the_end(lab, key, leaving);
    Ok(())
}

/// Waits until every process of the pod's own has ended.
fn wait_for_the_end(lab: &Lab, key: &Key, leaving: &Leaving) {
    let mut state = locked(&lab.state);
    loop {
        let runs = state.pods.get(key).is_some_and(|pod| {
            pod.containers.iter().any(|container| {
                container.argv().is_some() && container.state == ContainerState::Running
            })
        });
        // A deadline that comes closer is noticed at the next look.
        let look = Duration::from_millis(500);
        let left = leaving.deadline().saturating_duration_since(Instant::now());
        if !runs || left.is_zero() {
            return;
        }
        state = lab
            .changed
            .wait_timeout(state, left.min(look))
            .map_or_else(|poison| poison.into_inner().0, |(state, _)| state);
    }
}

/// The object goes, and with it whatever of the pod is left.
fn end(lab: &Arc<Lab>, key: &Key, pod: &Pod) {
    let operation = locked(&lab.operation);
    {
        let mut state = locked(&lab.state);
        state.leaving.remove(key);
        let current = state.pods.get(key).map(|pod| &pod.container_id);
        if current != Some(&pod.container_id) {
            return;
        }
        state.store.remove(key);
    }
    if let Err(error) = lab.follow(&|_| Ok(())) {
        tracing::error!(pod = %key, error = format!("{error:#}"), "a pod cannot go");
    }
    drop(operation);
    lab.changed.notify_all();
}
