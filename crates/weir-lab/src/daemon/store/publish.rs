// SPDX-License-Identifier: Apache-2.0
//! The folder that agents read the objects from.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Store;
use crate::object::Object;

/// The parts into which the many objects of one kind and namespace are divided, by their names.
const SHARDS: u8 = 64;
/// More objects than this are many; and when they have become this few, they are many no more.
const MANY: usize = 200;
const FEW: usize = 100;

pub(super) fn shard_of(name: &str) -> u8 {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    u8::try_from(hash % u32::from(SHARDS)).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use std::ops::Not;

    use super::*;
    use crate::{daemon::store::Upsert, object::Key};

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
}
