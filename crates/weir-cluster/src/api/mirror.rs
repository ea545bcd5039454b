// SPDX-License-Identifier: Apache-2.0
//! From what watches tell to changes of the world. Pure.
//!
//! Two rules keep a reader from acting on half a world. Nothing is told before every kind has been
//! listed completely once. And while a kind is listed anew nothing of it is told until the list has
//! ended: only then is it known what has gone meanwhile, and an address may have passed from an object
//! that is gone to one that the list has named already.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use weir_model::PolicyRef;

use super::kind::Kind;
use crate::convert::{Converted, FieldProblem, convert, describe};
use crate::object::Object;
use crate::{Batch, ObjectProblem};

/// What happened to the objects of a kind.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A list begins.
    Began,
    /// An object of that list.
    Listed(Value),
    /// The list is complete: what it did not name is gone.
    Complete,
    /// An object is new or differs.
    Put(Value),
    /// An object is gone.
    Gone(Value),
    /// The server does not know the kind.
    Unknown,
}

/// Every object that was told of, proven and cut down to what is needed.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    kinds: BTreeMap<Kind, Listing>,
    /// The highest version of an object.
    revision: u64,
    /// Something was told before.
    told: bool,
    /// Something differs that is no change of the world: problems, or what is not used.
    remarks_differ: bool,
}

/// `shop/web`, or `web` alone where a kind has no namespaces.
type Name = Box<str>;

/// The objects of one kind.
#[derive(Debug, Default)]
struct Listing {
    entries: BTreeMap<Name, Entry>,
    refused: BTreeMap<Name, ObjectProblem>,
    skipped: BTreeMap<Name, String>,
    /// What may differ from what was told, as it was then.
    touched: BTreeMap<Name, Option<Object>>,
    /// Counts the lists.
    round: u32,
    /// A list is going on.
    open: bool,
    /// A list has been complete once.
    known: bool,
}

#[derive(Debug)]
struct Entry {
    /// None: it is nothing that the world holds.
    object: Option<Object>,
    /// The list that named it last, or that was the last one when it was put.
    round: u32,
}

impl Mirror {
    /// Takes in what a watch tells.
    pub(crate) fn take(&mut self, kind: Kind, step: Step) {
        let listing = self.kinds.entry(kind).or_default();
        match step {
            Step::Began => {
                listing.round = listing.round.wrapping_add(1);
                listing.open = true;
            }
            Step::Listed(value) | Step::Put(value) => {
                self.revision = self.revision.max(version(&value));
                self.remarks_differ |= listing.put(kind, value);
            }
            Step::Gone(value) => {
                self.revision = self.revision.max(version(&value));
                self.remarks_differ |= listing.remove(&name(&value));
            }
            Step::Complete => {
                let round = listing.round;
                self.remarks_differ |= listing.keep(|entry| entry.round == round);
                listing.end();
            }
            Step::Unknown => {
                self.remarks_differ |= listing.keep(|_| false);
                listing.end();
            }
        }
    }

    /// Every kind has been listed.
    pub(crate) fn is_complete(&self) -> bool {
        Kind::ALL
            .iter()
            .all(|kind| self.kinds.get(kind).is_some_and(|listing| listing.known))
    }

    /// What differs from what was told before; none where nothing does, or where it is too early.
    pub(crate) fn batch(&mut self) -> Option<Batch> {
        if !self.is_complete() || (!self.told && self.kinds.values().any(|listing| listing.open)) {
            return None;
        }
        let mut batch = Batch {
            revision: self.revision,
            ..Batch::default()
        };
        let mut changed = Vec::new();
        for listing in self.kinds.values_mut().filter(|listing| !listing.open) {
            for (name, told) in std::mem::take(&mut listing.touched) {
                let now = listing.entries.get(&name);
                match (told, now.and_then(|entry| entry.object.as_ref())) {
                    (Some(told), None) => batch.changes.push(told.key().gone()),
                    (told, Some(object)) if told.as_ref() != Some(object) => {
                        changed.extend(object.changes());
                    }
                    (None | Some(_), _) => {}
                }
            }
        }
        batch.changes.append(&mut changed);
        let first = !std::mem::replace(&mut self.told, true);
        let remarks_differ = std::mem::take(&mut self.remarks_differ);
        if batch.changes.is_empty() && !first && !remarks_differ {
            return None;
        }
        for listing in self.kinds.values() {
            batch.problems.extend(listing.refused.values().cloned());
            for kind in listing.skipped.values() {
                *batch.skipped.entry(kind.clone()).or_default() += 1;
            }
        }
        Some(batch)
    }
}

impl Listing {
    fn end(&mut self) {
        self.open = false;
        self.known = true;
    }

    /// Notes what was told of an object, unless that is noted already.
    fn touch(&mut self, name: &Name) {
        if !self.touched.contains_key(name) {
            let told = self.entries.get(name);
            let told = told.and_then(|entry| entry.object.clone());
            self.touched.insert(name.clone(), told);
        }
    }

    /// Takes an object over; tells whether there is something else to say about it than before. One
    /// that is refused keeps the version that was accepted before.
    fn put(&mut self, kind: Kind, mut value: Value) -> bool {
        // The items of a list leave them out.
        if let Value::Object(fields) = &mut value {
            fields.insert("apiVersion".to_owned(), kind.api_version().into());
            fields.insert("kind".to_owned(), kind.name().into());
        }
        let name = name(&value);
        let description = describe(&value);
        self.touch(&name);
        let before = self.entries.remove(&name).and_then(|entry| entry.object);
        let (mut refused, mut skipped) = (None, None);
        let object = match convert(value) {
            Ok(Converted::Object(object)) => Some(object),
            Ok(Converted::Instead(object, problem)) => {
                refused = Some(problem);
                before.filter(Object::is_accepted).or(Some(object))
            }
            Ok(Converted::Ended | Converted::Unbalanced) => None,
            Ok(Converted::Skipped(kind)) => {
                skipped = Some(kind);
                None
            }
            Err(problem) => {
                refused = Some(problem);
                before
            }
        };
        let policy = (kind == Kind::NetworkPolicy).then(|| name.parse().ok());
        let policy: Option<PolicyRef> = policy.flatten();
        let refused = refused.map(|problem| problem_of(description, problem, policy));
        let differs =
            set(&mut self.refused, &name, refused) | set(&mut self.skipped, &name, skipped);
        let round = self.round;
        self.entries.insert(name, Entry { object, round });
        differs
    }

    fn remove(&mut self, name: &Name) -> bool {
        self.touch(name);
        self.entries.remove(name);
        set(&mut self.refused, name, None) | set(&mut self.skipped, name, None)
    }

    /// Removes all others.
    fn keep(&mut self, stays: impl Fn(&Entry) -> bool) -> bool {
        let gone = self.entries.iter().filter(|(_, entry)| !stays(entry));
        let gone: Vec<Name> = gone.map(|(name, _)| name.clone()).collect();
        gone.iter()
            .fold(false, |differs, name| self.remove(name) | differs)
    }
}

fn set<V: PartialEq>(map: &mut BTreeMap<Name, V>, name: &Name, value: Option<V>) -> bool {
    let differs = map.get(name) != value.as_ref();
    if differs {
        match value {
            Some(value) => drop(map.insert(name.clone(), value)),
            None => drop(map.remove(name)),
        }
    }
    differs
}

fn problem_of(object: String, problem: FieldProblem, policy: Option<PolicyRef>) -> ObjectProblem {
    ObjectProblem {
        file: PathBuf::new(),
        object,
        field: problem.field,
        message: problem.message,
        policy,
    }
}

fn name(value: &Value) -> Name {
    let text = |pointer| value.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").unwrap_or_default();
    match text("/metadata/namespace") {
        Some(namespace) => format!("{namespace}/{name}").into(),
        None => name.into(),
    }
}

/// Versions are numbers that grow with every write (Kubernetes 1.35 promises so; etcd always did).
fn version(value: &Value) -> u64 {
    let text = value.pointer("/metadata/resourceVersion");
    let text = text.and_then(Value::as_str).unwrap_or_default();
    text.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests;
