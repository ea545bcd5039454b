// SPDX-License-Identifier: Apache-2.0
//! Creating, changing and deleting objects, and waiting until the cluster is as they say.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    Say,
    lab::Lab,
    services::Admission,
    store::{Store, Upsert},
};
use crate::{
    locked,
    object::{Key, Object},
    protocol::Response,
};

/// More objects than this are counted instead of named.
const TALK_LIMIT: usize = 50;

impl Lab {
    /// Creates or changes objects, starts the pods that follow, and waits (milliseconds) for all to be ready.
    pub(crate) fn apply(
        self: &Arc<Self>,
        objects: Vec<Object>,
        wait: Option<u64>,
        say: Say<'_>,
    ) -> Result<()> {
        let begin = Instant::now();
        let operation = locked(&self.operation);
        let mut refused = BTreeMap::new();
        {
            let (count, mut counts) = (objects.len(), BTreeMap::new());
            let mut state = locked(&self.state);
            let mut admission = Admission::new(&state.store, &self.topology, &objects);
            for mut object in objects {
                let key = object.key();
                if state.leaving.contains_key(&key) {
                    refused.insert(key.clone(), format!("{key} is being deleted"));
                    continue;
                }
                if object.kind() == "Node" {
                    self.complete_node(&mut object)?;
                }
                if object.kind() == "Service"
                    && let Err(error) = admission.admit(&state.store, &mut object)
                {
                    refused.insert(key, format!("{error:#}"));
                    continue;
                }
                create_namespace(&mut state.store, object.namespace());
                let word = match state.store.upsert(object) {
                    Upsert::Created => "created",
                    Upsert::Changed => "changed",
                    Upsert::Unchanged => "unchanged",
                };
                self.refresh_status(&mut state, &key);
                *counts.entry(word).or_insert(0_usize) += 1;
                if count <= TALK_LIMIT {
                    say(Response::Progress(format!("{key} {word}")))?;
                }
            }
            if count > TALK_LIMIT {
                let words: Vec<String> = counts
                    .iter()
                    .map(|(word, count)| format!("{count} {word}"))
                    .collect();
                say(Response::Progress(format!("objects: {}", words.join(", "))))?;
            }
        }
        let mut outcome = self.follow(say)?;
        drop(operation);
        outcome.troubles.extend(refused);
        self.finish(begin, wait, outcome, say)
    }

    /// Fills in what a Node object leaves out: the addresses and ranges that the lab gave the node.
    fn complete_node(&self, object: &mut Object) -> Result<()> {
        let node = self
            .node(object.name())
            .context("nodes are built by `weir lab up` only")?;
        let made = node.object()?;
        let has_ranges =
            object.get("/spec/podCIDRs").is_some() || object.get("/spec/podCIDR").is_some();
        let mut addresses = object.list("/status/addresses").iter();
        let has_address = addresses.any(|entry| entry["type"] == "InternalIP");
        let value = object.value_mut();
        if !has_ranges {
            for field in ["podCIDR", "podCIDRs"] {
                value["spec"][field] = made.value()["spec"][field].clone();
            }
        }
        if !has_address {
            value["status"]["addresses"] = made.value()["status"]["addresses"].clone();
        }
        Ok(())
    }

    /// Deletes objects with what belongs to them. Pods get `grace` seconds, or as many as they say themselves.
    pub(crate) fn delete(
        self: &Arc<Self>,
        objects: &[Object],
        wait: Option<u64>,
        grace: Option<u64>,
        say: Say<'_>,
    ) -> Result<()> {
        let begin = Instant::now();
        let operation = locked(&self.operation);
        let (mut missing, mut leaving) = (Vec::new(), Vec::new());
        {
            let mut state = locked(&self.state);
            for object in objects {
                let key = object.key();
                if self.nodes.contains_key(&key.name) && key.kind == "Node" {
                    bail!("{key} is part of the lab; `weir lab down` removes it");
                }
                let dependants = dependants(&state.store, &key);
                if self.begin_leaving(&mut state, &key, grace) {
                    leaving.push(key);
                    continue;
                }
                if state.store.remove(&key).is_none() {
                    missing.push(key);
                    continue;
                }
                say(Response::Progress(format!("{key} deleted")))?;
                for dependant in dependants {
                    // Nothing is left of a namespace.
                    if key.kind != "Namespace" && self.begin_leaving(&mut state, &dependant, grace)
                    {
                        leaving.push(dependant);
                    } else {
                        state.store.remove(&dependant);
                    }
                }
            }
        }
        let mut outcome = self.follow(say)?;
        drop(operation);
        outcome.leaving.append(&mut leaving);
        for key in missing {
            let trouble = format!("{key} is not there");
            outcome.troubles.insert(key, trouble);
        }
        self.finish(begin, wait, outcome, say)
    }
}

/// Namespaces that objects are in exist, whether or not a manifest says so.
fn create_namespace(store: &mut Store, name: &str) {
    let key = Key::new("Namespace", "", name);
    if name.is_empty() || store.get(&key).is_some() {
        return;
    }
    let namespace = Object::new(json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "status": {"phase": "Active"},
    }));
    if let Ok(namespace) = namespace {
        store.upsert(namespace);
    }
}

/// What goes with an object: everything in a namespace, and the pods that the lab made from a controller.
fn dependants(store: &Store, key: &Key) -> Vec<Key> {
    store
        .objects()
        .values()
        .filter(|object| {
            if key.kind == "Namespace" {
                return object.namespace() == key.name;
            }
            object.namespace() == key.namespace
                && object
                    .list("/metadata/ownerReferences")
                    .iter()
                    .any(|reference| reference["kind"] == key.kind && reference["name"] == key.name)
        })
        .map(Object::key)
        .collect()
}
