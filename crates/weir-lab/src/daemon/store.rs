// SPDX-License-Identifier: Apache-2.0
//! The cluster's objects; `publish` writes them where agents read them.

mod publish;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::SystemTime,
};

use serde_json::json;

use crate::object::{Key, Object};
use publish::shard_of;

pub(crate) use publish::Publisher;

/// All objects of a lab. Knows which files of the agents' folder are out of date.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Object>,
    version: u64,
    /// Kinds and namespaces with changes that are not published, and which shards of them have changed.
    dirty: BTreeMap<(String, String), BTreeSet<u8>>,
}

/// What an upsert did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upsert {
    Created,
    Changed,
    Unchanged,
}

impl Store {
    /// Creates or changes an object. What only a server knows (uid, creation time, a status that the new version
    /// leaves out) is carried over.
    pub(crate) fn upsert(&mut self, mut object: Object) -> Upsert {
        let key = object.key();
        let old = self.objects.get(&key);
        let kept = |pointer: &str| old.and_then(|old| old.get(pointer)).cloned();
        let uid = object
            .get("/metadata/uid")
            .cloned()
            .or_else(|| kept("/metadata/uid"));
        let time = object
            .get("/metadata/creationTimestamp")
            .cloned()
            .or_else(|| kept("/metadata/creationTimestamp"));
        let status = object.get("/status").cloned().or_else(|| kept("/status"));
        let version = kept("/metadata/resourceVersion");
        let node = object
            .get("/spec/nodeName")
            .cloned()
            .or_else(|| kept("/spec/nodeName"));
        let is_pod = key.kind == "Pod";
        let value = object.value_mut();
        value["metadata"]["uid"] = uid.unwrap_or_else(|| json!(new_uid()));
        value["metadata"]["creationTimestamp"] = time.unwrap_or_else(|| json!(now()));
        if let Some(version) = version {
            value["metadata"]["resourceVersion"] = version;
        }
        if let Some(status) = status {
            value["status"] = status;
        }
        if let Some(node) = node.filter(|_| is_pod) {
            value["spec"]["nodeName"] = node;
        }
        if old == Some(&object) {
            return Upsert::Unchanged;
        }
        let upsert = if old.is_some() {
            Upsert::Changed
        } else {
            Upsert::Created
        };
        self.put(object);
        upsert
    }

    /// Changes an object in place; nothing happens when it is not there or stays the same.
    pub(crate) fn change(&mut self, key: &Key, change: impl FnOnce(&mut serde_json::Value)) {
        if let Some(object) = self.objects.get(key) {
            let mut changed = object.clone();
            change(changed.value_mut());
            if changed != *object {
                self.put(changed);
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Object> {
        let object = self.objects.remove(key)?;
        self.mark(key);
        Some(object)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    pub(crate) fn objects(&self) -> &BTreeMap<Key, Object> {
        &self.objects
    }

    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects
            .range(Key::new(kind, "", "")..)
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, object)| object)
    }

    /// The objects of a kind in one namespace.
    pub(crate) fn in_namespace<'a>(
        &'a self,
        kind: &'a str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Object> {
        self.objects
            .range(Key::new(kind, namespace, "")..)
            .take_while(move |(key, _)| key.kind == kind && key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// The namespaces in which objects of these kinds have changed since the last time they were published.
    pub(crate) fn dirty(&self, kinds: &[&str]) -> BTreeSet<String> {
        self.dirty
            .keys()
            .filter(|(kind, _)| kinds.contains(&kind.as_str()))
            .map(|(_, namespace)| namespace.clone())
            .collect()
    }

    fn put(&mut self, mut object: Object) {
        self.version += 1;
        object.value_mut()["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let key = object.key();
        self.mark(&key);
        self.objects.insert(key, object);
    }

    fn mark(&mut self, key: &Key) {
        let place = (key.kind.clone(), key.namespace.clone());
        let shards = self.dirty.entry(place).or_default();
        shards.insert(shard_of(&key.name));
    }
}

/// The time as Kubernetes writes it.
pub(crate) fn now() -> String {
    time(SystemTime::now())
}

/// A moment as Kubernetes writes it.
pub(crate) fn time(moment: SystemTime) -> String {
    let moment = jiff::Timestamp::try_from(moment).unwrap_or_default();
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random id in the form of a UUID.
pub(crate) fn new_uid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_or_else(|_| String::new(), |uuid| uuid.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::parse_all(text).unwrap().remove(0)
    }

    #[test]
    fn a_status_survives_a_manifest_without_one() {
        let mut store = Store::default();
        store.upsert(object(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: 10.0.0.1}",
        ));
        store.upsert(object(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {b: c}}",
        ));
        let pod = store.get(&Key::new("Pod", "default", "a")).unwrap();
        assert_eq!(pod.text("/status/podIP"), Some("10.0.0.1"));
    }
}
