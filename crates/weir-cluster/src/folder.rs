// SPDX-License-Identifier: Apache-2.0
//! A folder of YAML as the source of the world.
//!
//! Whoever writes the folder replaces files by rename and then writes a number into the file
//! `revision`, last and by rename too. The number is read before the objects, so what is read is at
//! least as new as it says. Without that file the folder is taken as it is (revision 0).

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_model::Change;

use self::file::{File, Stamp};
use crate::object::{Key, Object};
use crate::{ObjectProblem, SourceError};

/// The file that is written last.
pub const REVISION_FILE: &str = "revision";

/// What one look at the source found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Differences to the last look.
    pub changes: Vec<Change>,
    /// The revision that these changes (and all before them) make up.
    pub revision: u64,
    /// Every object that is refused at present.
    pub problems: Vec<ObjectProblem>,
    /// Objects of kinds that the world does not hold, by kind.
    pub skipped: BTreeMap<String, u64>,
}

/// A folder with what was last read from it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<Arc<Path>, File>,
    /// Every object with the files that it stands in, by name. The first one counts.
    objects: BTreeMap<Key, Vec<(Arc<Path>, Object)>>,
    /// Those that stand in more than one.
    doubles: BTreeSet<Key>,
}

/// Objects that may differ from what was told, as they were then.
type Touched = BTreeMap<Key, Option<Object>>;

impl Folder {
    /// A folder of which nothing has been read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            files: BTreeMap::new(),
            objects: BTreeMap::new(),
            doubles: BTreeSet::new(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number in the revision file; none where there is no such file.
    pub fn revision(&self) -> Result<Option<u64>, SourceError> {
        let path = self.path.join(REVISION_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let text = text.trim();
                text.parse().map(Some).map_err(|_| SourceError::Revision {
                    path,
                    text: text.chars().take(40).collect(),
                })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SourceError::File { path, source }),
        }
    }

    /// Reads what has changed since the last time.
    pub fn read(&mut self) -> Result<Batch, SourceError> {
        let revision = self.revision()?.unwrap_or_default();
        let present = self.list()?;
        let mut touched = Touched::new();
        let gone: Vec<_> = self
            .files
            .extract_if(.., |path, _| !present.contains_key(&**path))
            .collect();
        for (path, file) in gone {
            self.replace(&path, &file, &File::default(), &mut touched);
        }
        for (path, stamp) in present {
            let known = self.files.get_key_value(path.as_path());
            if known.is_some_and(|(_, file)| file.stamp == Some(stamp)) {
                continue;
            }
            let path = known.map_or_else(|| path.into(), |(path, _)| Arc::clone(path));
            let old = self.files.remove(&path).unwrap_or_default();
            let shown = path.strip_prefix(&self.path).unwrap_or(&path);
            let new = File::read(&path, shown, stamp, &old);
            self.replace(&path, &old, &new, &mut touched);
            self.files.insert(path, new);
        }
        Ok(self.batch(revision, touched))
    }

    fn list(&self) -> Result<BTreeMap<PathBuf, Stamp>, SourceError> {
        let failed = |source| SourceError::Folder {
            path: self.path.clone(),
            source,
        };
        let mut present = BTreeMap::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let hidden = path
                .file_name()
                .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            let extension = path.extension().and_then(|extension| extension.to_str());
            if hidden || !matches!(extension, Some("yaml" | "yml" | "json")) {
                continue;
            }
            // A file that vanishes meanwhile is simply gone.
            if let Ok(metadata) = fs::metadata(&path)
                && metadata.is_file()
            {
                present.insert(path, Stamp::of(&metadata));
            }
        }
        Ok(present)
    }

    /// Takes over what a file holds now instead of what it held.
    fn replace(&mut self, path: &Arc<Path>, old: &File, new: &File, touched: &mut Touched) {
        let (old, new) = (old.objects(), new.objects());
        let gone = old.keys().filter(|key| !new.contains_key(key));
        let gone = gone.map(|key| (key, None));
        let differing = new
            .iter()
            .filter(|(key, object)| old.get(key) != Some(object));
        let differing = differing.map(|(key, object)| (key, Some(*object)));
        for (key, object) in gone.chain(differing) {
            let places = self.objects.entry(key.clone()).or_default();
            if !touched.contains_key(key) {
                let told = places.first().map(|(_, object)| object.clone());
                touched.insert(key.clone(), told);
            }
            let place = places.binary_search_by(|(other, _)| other.cmp(path));
            match (place, object) {
                (Ok(place), None) => drop(places.remove(place)),
                (Ok(place), Some(object)) => {
                    if let Some((_, old)) = places.get_mut(place) {
                        *old = object.clone();
                    }
                }
                (Err(_), None) => {}
                (Err(place), Some(object)) => {
                    places.insert(place, (Arc::clone(path), object.clone()));
                    places.shrink_to_fit();
                }
            }
            if places.len() > 1 {
                self.doubles.insert(key.clone());
            } else {
                self.doubles.remove(key);
            }
            if places.is_empty() {
                self.objects.remove(key);
            }
        }
    }

    /// What differs from what was told before. Of an object that stands in two files the first file
    /// (by name) counts.
    fn batch(&self, revision: u64, touched: Touched) -> Batch {
        let mut batch = Batch {
            revision,
            ..Batch::default()
        };
        for file in self.files.values() {
            batch.problems.extend(file.problems.iter().cloned());
            for (kind, count) in &file.skipped {
                *batch.skipped.entry(kind.clone()).or_default() += count;
            }
        }
        for key in &self.doubles {
            let places = self.objects.get(key).map_or(&[][..], Vec::as_slice);
            let shown = |path: &Path| path.strip_prefix(&self.path).unwrap_or(path).to_owned();
            let Some(((first, _), others)) = places.split_first() else {
                continue;
            };
            batch
                .problems
                .extend(others.iter().map(|(path, _)| ObjectProblem {
                    file: shown(path),
                    object: key.describe(),
                    field: String::new(),
                    message: format!("is in {} already, which counts", shown(first).display()),
                    policy: None,
                }));
        }
        let mut changed = Vec::new();
        for (key, told) in touched {
            let now = self.objects.get(&key).and_then(|places| places.first());
            match (told, now) {
                (Some(_), None) => batch.changes.push(key.gone()),
                (told, Some((_, object))) if told.as_ref() != Some(object) => {
                    changed.extend(object.changes());
                }
                (None | Some(_), _) => {}
            }
        }
        batch.changes.append(&mut changed);
        batch
    }
}

#[cfg(test)]
mod tests;
