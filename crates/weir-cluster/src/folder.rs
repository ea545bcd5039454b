// SPDX-License-Identifier: Apache-2.0
//! A folder of YAML as the source of the world.
//!
//! Whoever writes the folder replaces files by rename and then writes a number into the file
//! `revision`, last and by rename too. The number is read before the objects, so what is read is at
//! least as new as it says. Without that file the folder is taken as it is (revision 0).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use weir_model::Change;

use crate::convert::{Converted, convert, describe};
use crate::document;
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

/// A file that has not changed is not read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

#[derive(Debug, Default)]
struct File {
    stamp: Option<Stamp>,
    objects: BTreeMap<Key, Object>,
    problems: Vec<ObjectProblem>,
    skipped: BTreeMap<String, u64>,
}

/// A folder with what was last read from it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, File>,
    told: BTreeMap<Key, Object>,
}

impl Folder {
    /// The largest file that is read; more is nobody's honest work.
    const LARGEST: u64 = 64 << 20;

    /// A folder of which nothing has been read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            files: BTreeMap::new(),
            told: BTreeMap::new(),
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
        self.files.retain(|path, _| present.contains_key(path));
        for (path, stamp) in present {
            let old = self.files.remove(&path).unwrap_or_default();
            let new = if old.stamp == Some(stamp) {
                old
            } else {
                self.parse(&path, stamp, old)
            };
            self.files.insert(path, new);
        }
        Ok(self.batch(revision))
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
                let stamp = Stamp {
                    inode: metadata.ino(),
                    size: metadata.size(),
                    modified: (metadata.mtime(), metadata.mtime_nsec()),
                };
                present.insert(path, stamp);
            }
        }
        Ok(present)
    }

    /// Reads one file. An object that is refused keeps the version that was accepted before, so that
    /// a slip of the pen does not cut off what runs.
    fn parse(&self, path: &Path, stamp: Stamp, mut old: File) -> File {
        let mut file = File {
            stamp: Some(stamp),
            ..File::default()
        };
        let shown = path.strip_prefix(&self.path).unwrap_or(path).to_owned();
        let mut refuse = |object: String, field: String, message: String| {
            file.problems.push(ObjectProblem {
                file: shown.clone(),
                object,
                field,
                message,
            });
        };
        let text = if stamp.size > Self::LARGEST {
            Err(format!("larger than {} bytes", Self::LARGEST))
        } else {
            fs::read(path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned()))
        };
        let text = match text {
            Ok(text) => text,
            Err(message) => {
                refuse(String::new(), String::new(), message);
                file.objects = old.objects;
                return file;
            }
        };
        let mut unreadable = false;
        for raw in document::objects(&text) {
            let raw = match raw {
                Ok(raw) => raw,
                Err(problem) => {
                    unreadable = true;
                    refuse(
                        format!("document at line {}", problem.line),
                        String::new(),
                        problem.message,
                    );
                    continue;
                }
            };
            let description = describe(&raw);
            match convert(raw) {
                Ok(Converted::Object(object)) => {
                    if let Some(twice) = file.objects.insert(object.key(), object) {
                        refuse(
                            twice.key().describe(),
                            String::new(),
                            "stands in the file twice: the last one counts".to_owned(),
                        );
                    }
                }
                Ok(Converted::Instead(object, problem)) => {
                    // What was accepted before is better than what is put in its place.
                    let key = object.key();
                    let kept = old.objects.remove(&key).filter(Object::is_accepted);
                    file.objects.insert(key, kept.unwrap_or(object));
                    refuse(description, problem.field, problem.message);
                }
                Ok(Converted::Ended) => {}
                Ok(Converted::Skipped(kind)) => *file.skipped.entry(kind).or_default() += 1,
                Err(problem) => {
                    let kept = old
                        .objects
                        .extract_if(.., |key, _| key.describe() == description)
                        .next();
                    file.objects.extend(kept);
                    refuse(description, problem.field, problem.message);
                }
            }
        }
        if unreadable {
            for (key, object) in old.objects {
                file.objects.entry(key).or_insert(object);
            }
        }
        file
    }

    /// What differs from what was told before. Of an object that stands in two files the first file
    /// (by name) counts.
    fn batch(&mut self, revision: u64) -> Batch {
        let mut batch = Batch {
            revision,
            ..Batch::default()
        };
        let mut now: BTreeMap<Key, (&Path, &Object)> = BTreeMap::new();
        for (path, file) in &self.files {
            batch.problems.extend(file.problems.iter().cloned());
            for (kind, count) in &file.skipped {
                *batch.skipped.entry(kind.clone()).or_default() += count;
            }
            for (key, object) in &file.objects {
                let shown = path.strip_prefix(&self.path).unwrap_or(path);
                match now.get(key) {
                    Some((first, _)) => batch.problems.push(ObjectProblem {
                        file: shown.to_owned(),
                        object: key.describe(),
                        field: String::new(),
                        message: format!("is in {} already, which counts", first.display()),
                    }),
                    None => drop(now.insert(key.clone(), (shown, object))),
                }
            }
        }
        let gone = self.told.keys().filter(|key| !now.contains_key(key));
        batch.changes.extend(gone.map(Key::gone));
        let new = now
            .iter()
            .filter(|(key, (_, object))| self.told.get(key) != Some(object));
        batch
            .changes
            .extend(new.map(|(_, (_, object))| object.change()));
        self.told = now
            .into_iter()
            .map(|(key, (_, object))| (key, object.clone()))
            .collect();
        batch
    }
}

#[cfg(test)]
mod tests;
