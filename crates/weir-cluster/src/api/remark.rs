// SPDX-License-Identifier: Apache-2.0
//! Kubernetes events, so that people find out where they look first: `kubectl describe`.
//!
//! Best effort, and never much: one remark about one version of an object is made once, by whichever
//! node is the first, because all nodes give that event the same name; and each node makes few of them in
//! a time. What cannot be written is dropped: whatever causes remarks happens again.

mod limits;

use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use weir_model::{NodeName, PodRef, PolicyRef};

use super::kind::Kind;
use super::raw::Raw;
use super::reason_of;
use limits::{Budget, Memory};

/// The reporting controller.
const CONTROLLER: &str = "weir.dev/agent";
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// The server refuses longer notes.
const LONGEST_NOTE: usize = 1000;

/// What a remark is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum About {
    Pod(PodRef),
    NetworkPolicy(PolicyRef),
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A pod cannot be connected.
    NetworkNotReady,
    /// A policy, or a new version of it, is not what the kernel does.
    PolicyNotEnforced,
}

/// Something that people should know of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Remark {
    pub about: About,
    pub reason: Reason,
    pub note: String,
}

impl About {
    const fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pod,
            Self::NetworkPolicy(_) => Kind::NetworkPolicy,
        }
    }

    fn names(&self) -> (&str, &str) {
        match self {
            Self::Pod(pod) => (pod.namespace.as_str(), pod.name.as_str()),
            Self::NetworkPolicy(policy) => (policy.namespace.as_str(), policy.name.as_str()),
        }
    }
}

impl Reason {
    /// As events say it.
    const fn word(self) -> &'static str {
        match self {
            Self::NetworkNotReady => "NetworkNotReady",
            Self::PolicyNotEnforced => "PolicyNotEnforced",
        }
    }

    /// What was being done.
    const fn action(self) -> &'static str {
        match self {
            Self::NetworkNotReady => "Connecting",
            Self::PolicyNotEnforced => "Enforcing",
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = self.about.names();
        let kind = self.about.kind().name();
        write!(
            f,
            "{} {kind} {namespace}/{name}: {}",
            self.reason.word(),
            self.note
        )
    }
}

/// Makes events of remarks; ends when there can be none any more.
pub(super) async fn tell(client: Client, node: NodeName, mut remarks: Receiver<Remark>) {
    let mut memory = Memory::default();
    let mut budget = Budget::new(Instant::now());
    while let Some(remark) = remarks.recv().await {
        if memory.holds(&remark, Instant::now()) {
            continue;
        }
        while let Err(wait) = budget.take(Instant::now()) {
            tokio::time::sleep(wait).await;
        }
        let written = tokio::time::timeout(ANSWER, write(&client, &node, &remark)).await;
        match written {
            Ok(Ok(())) => memory.keep(remark, Instant::now()),
            Ok(Err(error)) => {
                tracing::debug!(%remark, error = reason_of(&error), "event not written");
            }
            Err(_) => tracing::debug!(%remark, "event not written: no answer"),
        }
    }
}

async fn write(client: &Client, node: &NodeName, remark: &Remark) -> kube::Result<()> {
    let (namespace, name) = remark.about.names();
    let resource = remark.about.kind().resource();
    let objects: Api<Raw> = Api::namespaced_with(client.clone(), namespace, &resource);
    let Some(object) = objects.get_opt(name).await? else {
        return Ok(());
    };
    let event = event(node, remark, &object.value, Timestamp::now());
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    match events.create(&PostParams::default(), &event).await {
        // Another node was faster.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        written => written.map(drop),
    }
}

/// The same at every node, but for who says it and when.
fn event(node: &NodeName, remark: &Remark, object: &Value, now: Timestamp) -> Event {
    let (namespace, name) = remark.about.names();
    let kind = remark.about.kind();
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let uid = text("/metadata/uid").unwrap_or_default();
    // Pods need not have one.
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    let mut version = DefaultHasher::new();
    (uid, generation, remark).hash(&mut version);
    let start: String = name.chars().take(200).collect();
    let start = start.trim_end_matches(['.', '-']);
    let note: String = remark.note.chars().take(LONGEST_NOTE).collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{start}.{:016x}", version.finish())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(node.to_string()),
        action: Some(remark.reason.action().to_owned()),
        reason: Some(remark.reason.word().to_owned()),
        note: Some(note),
        type_: Some("Warning".to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(kind.api_version()),
            kind: Some(kind.name().to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(super) fn remark(note: &str) -> Remark {
        Remark {
            about: About::NetworkPolicy(PolicyRef::new("shop", "only-web").unwrap()),
            reason: Reason::PolicyNotEnforced,
            note: note.to_owned(),
        }
    }

    fn named(node: &str, generation: i64, note: &str) -> String {
        let object = json!({"metadata": {"uid": "u", "generation": generation}});
        let node = NodeName::new(node).unwrap();
        let event = event(&node, &remark(note), &object, Timestamp::UNIX_EPOCH);
        assert_eq!(event.reporting_instance, Some(node.to_string()));
        event.metadata.name.unwrap()
    }

    #[test]
    fn every_node_makes_the_same_event_of_a_version() {
        let first = named("n1", 1, "wrong");
        assert!(first.starts_with("only-web."), "{first}");
        assert_eq!(first, named("n2", 1, "wrong"));
        assert_ne!(first, named("n1", 2, "wrong"));
        assert_ne!(first, named("n1", 1, "wrong again"));
    }

    #[test]
    fn notes_and_names_are_as_long_as_the_server_takes_them() {
        let object = json!({"metadata": {"uid": "u"}});
        let node = NodeName::new("n1").unwrap();
        let long = Remark {
            about: About::Pod(PodRef::new("shop", &"a".repeat(253)).unwrap()),
            reason: Reason::NetworkNotReady,
            note: "x".repeat(5000),
        };
        let event = event(&node, &long, &object, Timestamp::UNIX_EPOCH);
        assert!(event.metadata.name.unwrap().len() <= 253);
        assert_eq!(event.note.unwrap().len(), LONGEST_NOTE);
    }
}
