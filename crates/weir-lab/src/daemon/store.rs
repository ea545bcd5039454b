// SPDX-License-Identifier: Apache-2.0
//! The cluster's objects, and the folder that agents read them from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::object::{Key, Object};

/// All objects of a lab. Knows which files of the agents' folder are out of date.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Object>,
    version: u64,
    /// Kinds and namespaces with changes that are not published, and which shards of them have changed.
    dirty: BTreeMap<(String, String), BTreeSet<u8>>,
}

/// The parts into which the many objects of one kind and namespace are divided, by their names.
const SHARDS: u8 = 64;
/// More objects than this are many; and when they have become this few, they are many no more.
const MANY: usize = 200;
const FEW: usize = 100;

fn shard_of(name: &str) -> u8 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    u8::try_from(hash % u32::from(SHARDS)).unwrap_or_default()
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

/// Writes the objects where agents find them: one file for each kind and namespace, or many where there are many
/// objects, then the file `revision`.
#[derive(Debug)]
pub(crate) struct Publisher {
    folder: PathBuf,
    revision: u64,
    /// The kinds and namespaces with many files.
    divided: BTreeSet<(String, String)>,
}

impl Publisher {
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut publisher = Self {
            folder,
            revision: 0,
            divided: BTreeSet::new(),
        };
        publisher.write_revision()?;
        Ok(publisher)
    }

    /// The number of the last change set that was published.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Publishes what has changed since the last time and returns the number of the change set.
    pub(crate) fn publish(&mut self, store: &mut Store) -> Result<u64> {
        let dirty = std::mem::take(&mut store.dirty);
        if dirty.is_empty() {
            return Ok(self.revision);
        }
        for (place, mut shards) in dirty {
            let (kind, namespace) = &place;
            let count = store.in_namespace(kind, namespace).count();
            let was_divided = self.divided.contains(&place);
            let is_divided = count > if was_divided { FEW } else { MANY };
            if is_divided != was_divided {
                shards = (0..SHARDS).collect();
            }
            // What takes the place of other files comes first: no object is ever missing.
            if is_divided {
                for shard in &shards {
                    let own = store.in_namespace(kind, namespace);
                    let own = own.filter(|object| shard_of(object.name()) == *shard);
                    self.write(&place, Some(*shard), &own.collect::<Vec<_>>())?;
                }
                if !was_divided {
                    self.write(&place, None, &[])?;
                }
                self.divided.insert(place);
            } else {
                let all: Vec<&Object> = store.in_namespace(kind, namespace).collect();
                self.write(&place, None, &all)?;
                if was_divided {
                    for shard in &shards {
                        self.write(&place, Some(*shard), &[])?;
                    }
                }
                self.divided.remove(&place);
            }
        }
        self.revision += 1;
        self.write_revision()?;
        Ok(self.revision)
    }

    /// Writes one file, or removes it when nothing is in it.
    fn write(
        &self,
        (kind, namespace): &(String, String),
        shard: Option<u8>,
        objects: &[&Object],
    ) -> Result<()> {
        let mut text = String::new();
        for object in objects {
            // JSON is YAML, and agents read it ten times as fast.
            text += "---\n";
            text += &serde_json::to_string(object.value())?;
            text += "\n";
        }
        let mut name = kind.clone();
        if !namespace.is_empty() {
            name.extend([".", namespace]);
        }
        let shard = shard.map(|shard| format!(".{shard:02}"));
        name.extend(shard.as_deref());
        let file = self.folder.join(name + ".yaml");
        if text.is_empty() {
            fs::remove_file(file).ok();
            return Ok(());
        }
        replace_file(&file, &text)
    }

    fn write_revision(&mut self) -> Result<()> {
        replace_file(
            &self.folder.join("revision"),
            &format!("{}\n", self.revision),
        )
    }
}

/// Puts a whole new file in the place of an old one; a reader sees the one or the other.
fn replace_file(path: &Path, text: &str) -> Result<()> {
    // A name that ends in no extension an agent reads.
    let new = path.with_extension("new");
    fs::write(&new, text)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
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
    use std::ops::Not;

    use super::*;

    fn object(text: &str) -> Object {
        Object::parse_all(text).unwrap().remove(0)
    }

    #[test]
    fn only_changes_count_and_only_changed_files_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut publisher = Publisher::new(folder.path().to_path_buf()).unwrap();
        let mut store = Store::default();
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {x: 1}";
        assert_eq!(store.upsert(object(text)), Upsert::Created);
        assert_eq!(publisher.publish(&mut store).unwrap(), 1);
        assert_eq!(store.upsert(object(text)), Upsert::Unchanged);
        assert_eq!(publisher.publish(&mut store).unwrap(), 1);
        assert_eq!(
            store.upsert(object(&text.replace('1', "2"))),
            Upsert::Changed
        );
        assert_eq!(publisher.publish(&mut store).unwrap(), 2);
        let written = fs::read_to_string(folder.path().join("Pod.default.yaml")).unwrap();
        assert_eq!(Object::parse_all(&written).unwrap().len(), 1);
        assert_eq!(
            fs::read_to_string(folder.path().join("revision")).unwrap(),
            "2\n"
        );
        store.remove(&Key::new("Pod", "default", "a")).unwrap();
        assert_eq!(publisher.publish(&mut store).unwrap(), 3);
        assert!(!folder.path().join("Pod.default.yaml").exists());
    }

    #[test]
    fn many_objects_are_divided_and_few_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut publisher = Publisher::new(folder.path().to_path_buf()).unwrap();
        let mut store = Store::default();
        let pod = |number: usize, x: usize| {
            object(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}}}\nspec: {{x: {x}}}"
            ))
        };
        let mut publish = |store: &mut Store| -> (usize, usize) {
            publisher.publish(store).unwrap();
            let files = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let files: Vec<PathBuf> = files
                .filter(|file| file.ends_with("revision").not())
                .collect();
            let texts = files.iter().map(|file| fs::read_to_string(file).unwrap());
            let objects = texts
                .map(|text| Object::parse_all(&text).unwrap().len())
                .sum();
            (files.len(), objects)
        };
        for number in 0..200 {
            store.upsert(pod(number, 1));
        }
        assert_eq!(publish(&mut store), (1, 200));
        store.upsert(pod(200, 1));
        assert_eq!(publish(&mut store), (usize::from(SHARDS), 201));
        let file = |number| {
            let name = format!("Pod.default.{:02}.yaml", shard_of(&format!("p{number}")));
            fs::metadata(folder.path().join(name))
                .unwrap()
                .modified()
                .unwrap()
        };
        let other = (1..50)
            .find(|number| shard_of(&format!("p{number}")) != shard_of("p0"))
            .unwrap();
        let before = (file(0), file(other));
        store.upsert(pod(0, 2));
        publish(&mut store);
        assert!(file(0) > before.0);
        assert_eq!(file(other), before.1);
        for number in 50..201 {
            store.remove(&Key::new("Pod", "default", &format!("p{number}")));
        }
        assert_eq!(publish(&mut store), (1, 50));
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
