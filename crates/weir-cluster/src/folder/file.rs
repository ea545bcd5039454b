// SPDX-License-Identifier: Apache-2.0
//! One file of the folder, and what was found in it.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hash::Hasher;
use std::io::{self, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::ObjectProblem;
use crate::convert::{Converted, convert, describe};
use crate::document::{Documents, objects};
use crate::object::{Key, Object};

/// A file that has not changed is not read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// What one document holds. Nearly every one holds a single object.
#[derive(Clone, Debug)]
enum Found {
    One(Object),
    Some(Box<[Object]>),
}

impl Found {
    fn objects(&self) -> &[Object] {
        match self {
            Self::One(object) => std::slice::from_ref(object),
            Self::Some(objects) => objects,
        }
    }
}

/// What else there is to say about a document.
#[derive(Clone, Debug, Default)]
struct Remarks {
    problems: Vec<ObjectProblem>,
    skipped: BTreeMap<String, u64>,
    /// It is no YAML, so nobody knows which objects it was to hold.
    unreadable: bool,
}

impl Remarks {
    fn is_empty(&self) -> bool {
        self.problems.is_empty() && self.skipped.is_empty()
    }
}

/// A file as it was last read.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) stamp: Option<Stamp>,
    /// By the hash of their text: one that has not changed is not parsed again.
    documents: Vec<(u64, Found)>,
    remarks: HashMap<u64, Remarks>,
    /// Accepted before, and perhaps meant by a document that cannot be read now.
    kept: Vec<Object>,
    pub(super) problems: Vec<ObjectProblem>,
    pub(super) skipped: BTreeMap<String, u64>,
}

/// Bytes that are read at once.
const BUFFER: usize = 1 << 17;

impl File {
    /// The largest file that is read; more is nobody's honest work.
    const LARGEST: u64 = 64 << 20;

    /// Its objects by name; of one that stands there twice the last one counts.
    pub(super) fn objects(&self) -> BTreeMap<Key, &Object> {
        let kept = self.kept.iter();
        let found = self.documents.iter().flat_map(|(_, found)| found.objects());
        kept.chain(found)
            .map(|object| (object.key(), object))
            .collect()
    }

    /// Reads a file. An object that is refused keeps the version that was accepted before, so that a
    /// slip of the pen does not cut off what runs.
    pub(super) fn read(path: &Path, shown: &Path, stamp: Stamp, old: &Self) -> Self {
        let refused = |message: String| ObjectProblem {
            file: shown.to_owned(),
            object: String::new(),
            field: String::new(),
            message,
            policy: None,
        };
        let read = if stamp.size > Self::LARGEST {
            Err(format!("larger than {} bytes", Self::LARGEST))
        } else {
            Reading::new(shown, old).all(path).map_err(|error| {
                if error.kind() == io::ErrorKind::InvalidData {
                    "not UTF-8".to_owned()
                } else {
                    error.to_string()
                }
            })
        };
        let mut file = read.unwrap_or_else(|message| Self {
            kept: old.objects().into_values().cloned().collect(),
            problems: vec![refused(message)],
            ..Self::default()
        });
        file.stamp = Some(stamp);
        file
    }

    /// What follows from the documents.
    fn conclude(mut self, shown: &Path, old: &Self) -> Self {
        if self.remarks.values().any(|remarks| remarks.unreadable) {
            self.kept = old.objects().into_values().cloned().collect();
        }
        for remarks in self.remarks.values() {
            self.problems.extend(remarks.problems.iter().cloned());
            for (kind, count) in &remarks.skipped {
                *self.skipped.entry(kind.clone()).or_default() += count;
            }
        }
        let mut names: Vec<Key> = self
            .documents
            .iter()
            .flat_map(|(_, found)| found.objects())
            .map(Object::key)
            .collect();
        names.sort_unstable();
        let twice = names.array_windows().filter(|[one, next]| one == next);
        let twice = twice.map(|[key, _]| ObjectProblem {
            file: shown.to_owned(),
            object: key.describe(),
            field: String::new(),
            message: "stands in the file twice: the last one counts".to_owned(),
            policy: None,
        });
        self.problems.extend(twice);
        self.problems.sort_unstable();
        self
    }
}

/// A file that is being read.
struct Reading<'a> {
    shown: &'a Path,
    old: &'a File,
    /// The documents of before.
    known: HashMap<u64, &'a Found>,
    /// What was accepted before; looked up where something is refused.
    accepted: Option<BTreeMap<Key, &'a Object>>,
    file: File,
}

impl<'a> Reading<'a> {
    fn new(shown: &'a Path, old: &'a File) -> Self {
        let known = old.documents.iter().map(|(hash, found)| (*hash, found));
        Self {
            shown,
            old,
            known: known.collect(),
            accepted: None,
            file: File::default(),
        }
    }

    fn all(mut self, path: &Path) -> io::Result<File> {
        let input = BufReader::with_capacity(BUFFER, fs::File::open(path)?);
        let mut documents = Documents::new(input);
        while let Some((line, text)) = documents.next()? {
            let hash = hash(text);
            if let Some(found) = self.known.get(&hash) {
                let remarks = self.old.remarks.get(&hash);
                // Where a document stands is part of what is said about it.
                if remarks.is_none_or(|remarks| !remarks.unreadable) {
                    self.file.documents.push((hash, (*found).clone()));
                    let remarks = remarks.map(|remarks| (hash, remarks.clone()));
                    self.file.remarks.extend(remarks);
                    continue;
                }
            }
            let text = std::str::from_utf8(text)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            self.document(hash, text, line);
        }
        Ok(self.file.conclude(self.shown, self.old))
    }

    fn document(&mut self, hash: u64, text: &str, line: usize) {
        let mut remarks = Remarks::default();
        let mut found = Vec::new();
        for raw in objects(text, line) {
            let raw = match raw {
                Ok(raw) => raw,
                Err(problem) => {
                    remarks.unreadable = true;
                    let object = format!("document at line {}", problem.line);
                    let problem = self.refuse(object, String::new(), problem.message);
                    remarks.problems.push(problem);
                    continue;
                }
            };
            let description = describe(&raw);
            match convert(raw) {
                Ok(Converted::Object(object)) => found.push(object),
                Ok(Converted::Instead(object, problem)) => {
                    // What was accepted before is better than what is put in its place.
                    let before = self.accepted().get(&object.key()).copied().cloned();
                    found.push(before.filter(Object::is_accepted).unwrap_or(object));
                    let problem = self.refuse(description, problem.field, problem.message);
                    remarks.problems.push(problem);
                }
                Ok(Converted::Ended | Converted::Unbalanced) => {}
                Ok(Converted::Skipped(kind)) => *remarks.skipped.entry(kind).or_default() += 1,
                Err(problem) => {
                    let mut accepted = self.accepted().iter();
                    let before = accepted.find(|(key, _)| key.describe() == description);
                    found.extend(before.map(|(_, object)| (*object).clone()));
                    let problem = self.refuse(description, problem.field, problem.message);
                    remarks.problems.push(problem);
                }
            }
        }
        if !remarks.is_empty() {
            self.file.remarks.insert(hash, remarks);
        }
        let found = match <[Object; 1]>::try_from(found) {
            Ok([object]) => Found::One(object),
            Err(objects) => Found::Some(objects.into()),
        };
        self.file.documents.push((hash, found));
    }

    fn accepted(&mut self) -> &BTreeMap<Key, &'a Object> {
        let old = self.old;
        self.accepted.get_or_insert_with(|| old.objects())
    }

    fn refuse(&self, object: String, field: String, message: String) -> ObjectProblem {
        ObjectProblem {
            file: self.shown.to_owned(),
            object,
            field,
            message,
            policy: None,
        }
    }
}

fn hash(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    hasher.finish()
}
