// SPDX-License-Identifier: Apache-2.0
//! Pods follow the objects: what controllers ask for, which node a pod gets, which sandboxes start and end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::Result;
use serde_json::json;

use super::{
    Say,
    create::{start_pod, stop_pod},
    expand::expand,
    lab::{Lab, State},
    pod::{Container, Pod, containers_of},
};
use crate::{
    locked,
    object::{Key, Object},
    protocol::Response,
};

/// What became of an operation's pods.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) started: Vec<Key>,
    /// Pods that were deleted and take their time.
    pub(crate) leaving: Vec<Key>,
    /// What went wrong, by object.
    pub(crate) troubles: BTreeMap<Key, String>,
}

/// Pods that are started at the same time.
const PARALLEL: usize = 8;

impl Lab {
    /// Makes the pods follow the objects; returns what was started and what went wrong.
    pub(crate) fn follow(self: &Arc<Self>, say: Say<'_>) -> Result<Outcome> {
        let mut leaving = Vec::new();
        let (stop, start) = {
            let mut state = locked(&self.state);
            let names: Vec<String> = self.nodes.keys().cloned().collect();
            let expansion = expand(state.store.objects(), &names);
            let replaced: BTreeSet<Key> = expansion.create.iter().map(Object::key).collect();
            for key in expansion.delete {
                // Whoever takes over a name cannot wait.
                if !replaced.contains(&key) && self.begin_leaving(&mut state, &key, None) {
                    leaving.push(key);
                } else {
                    state.store.remove(&key);
                }
            }
            for pod in expansion.create {
                state.store.upsert(pod);
            }
            let stop = outdated(&state);
            for (key, _) in &stop {
                state.pods.remove(key);
            }
            state.failures.clear();
            let start = self.schedule(&mut state);
            (stop, start)
        };
        let mut troubles = BTreeMap::new();
        // Stopped pods go before others take their addresses. The agents hear of both first, so that a new pod's
        // labels are known when its endpoint is made.
        self.publish()?;
        self.in_parallel(
            &stop,
            |lab, (key, pod)| stop_pod(lab, key, pod),
            |(key, _), error| {
                troubles.insert(key.clone(), format!("{key}: {error:#}"));
            },
        );
        let count = start.len();
        if count > 0 {
            say(Response::Progress(format!("starting {count} pods")))?;
        }
        let mut failures = BTreeMap::new();
        self.in_parallel(&start, start_pod, |pod, error| {
            failures.insert(pod.key(), format!("{error:#}"));
        });
        {
            let mut state = locked(&self.state);
            for (key, failure) in &failures {
                troubles.insert(key.clone(), format!("{key} cannot run: {failure}"));
                let status = json!({"phase": "Pending", "message": failure, "conditions": [
                    {"type": "Ready", "status": "False", "reason": "NotStarted", "message": failure},
                ]});
                state.store.change(key, |object| object["status"] = status);
            }
            // A pod may have been refused before it got a node.
            for (key, failure) in &state.failures {
                troubles.insert(key.clone(), format!("{key} cannot run: {failure}"));
            }
            state.failures.extend(failures);
        }
        self.publish()?;
        let started = start.iter().map(Object::key).collect();
        Ok(Outcome {
            started,
            leaving,
            troubles,
        })
    }

    /// Gives every pod without one a node; returns the pods that have no sandbox.
    fn schedule(&self, state: &mut State) -> Vec<Object> {
        let mut load: BTreeMap<&str, usize> =
            self.nodes.keys().map(|name| (name.as_str(), 0)).collect();
        let mut unassigned = Vec::new();
        let mut start = Vec::new();
        for pod in state.store.of_kind("Pod") {
            let key = pod.key();
            match pod.text("/spec/nodeName") {
                Some(node) => match load.get_mut(node) {
                    Some(count) => {
                        *count += 1;
                        if !state.pods.contains_key(&key) && !is_over(pod) {
                            start.push(pod.clone());
                        }
                    }
                    None => {
                        state
                            .failures
                            .insert(key, format!("there is no node {node}"));
                    }
                },
                None => unassigned.push(pod.clone()),
            }
        }
        for mut pod in unassigned {
            let selector = pod
                .get("/spec/nodeSelector")
                .and_then(|selector| selector.as_object());
            let fits = |node: &&str| {
                let labels = state
                    .store
                    .get(&Key::new("Node", "", node))
                    .map(Object::labels)
                    .unwrap_or_default();
                selector.is_none_or(|selector| {
                    selector
                        .iter()
                        .all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str())
                })
            };
            let emptiest = load
                .iter()
                .filter(|(node, _)| fits(node))
                .min_by_key(|(_, count)| **count);
            let Some(node) = emptiest.map(|(node, _)| *node) else {
                state
                    .failures
                    .insert(pod.key(), "no node fits its nodeSelector".to_owned());
                continue;
            };
            load.entry(node).and_modify(|count| *count += 1);
            pod.value_mut()["spec"]["nodeName"] = json!(node);
            state.store.change(&pod.key(), |object| {
                object["spec"]["nodeName"] = json!(node);
            });
            start.push(pod);
        }
        start
    }

    pub(crate) fn publish(&self) -> Result<u64> {
        locked(&self.state).publish(&self.topology)
    }

    /// Works on many things with a few threads; errors are collected as they come.
    fn in_parallel<T: Send + Sync>(
        self: &Arc<Self>,
        items: &[T],
        work: impl Fn(&Arc<Self>, &T) -> Result<()> + Sync,
        mut failed: impl FnMut(&T, anyhow::Error),
    ) {
        let next = AtomicUsize::new(0);
        let errors = std::sync::Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..PARALLEL.min(items.len()) {
                scope.spawn(|| {
                    while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = work(self, item) {
                            locked(&errors).push((item, error));
                        }
                    }
                });
            }
        });
        for (item, error) in errors.into_inner().unwrap_or_default() {
            failed(item, error);
        }
    }
}

/// Running pods whose objects are gone or want other containers.
fn outdated(state: &State) -> Vec<(Key, Pod)> {
    let specs = |containers: &[Container]| -> BTreeSet<String> {
        let specs = containers.iter().map(|container| &container.spec);
        specs.map(ToString::to_string).collect()
    };
    let wanted = |object: &Object| specs(&containers_of(object));
    let outdated = state.pods.iter().filter(|(key, pod)| {
        let object = state.store.get(key);
        object.is_none_or(|object| wanted(object) != specs(&pod.containers))
    });
    outdated
        .map(|(key, pod)| (key.clone(), pod.clone()))
        .collect()
}

/// Whether a pod from a dump has ended long ago.
fn is_over(pod: &Object) -> bool {
    matches!(pod.text("/status/phase"), Some("Succeeded" | "Failed"))
}
