// SPDX-License-Identifier: Apache-2.0
//! The cases of `tests/netpol`, for whoever replays them with connections: the lab, and a cluster of real parts.

mod case;

use std::fmt;

use anyhow::{Result, ensure};
use serde_json::Value;

pub(crate) use case::{Case, Cell, Expectation, Key, Objects, list, load, text};

/// Wrong cells of one state that are shown.
const SHOWN: usize = 5;

/// What became of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) allowed: bool,
    /// `timeout` is what a dropped packet looks like.
    pub(crate) outcome: String,
    pub(crate) error: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.outcome)?;
        if !self.error.is_empty() {
            write!(f, " ({})", self.error)?;
        }
        Ok(())
    }
}

impl Cell {
    /// A denied packet is dropped: who refuses has received it.
    pub(crate) fn fits(&self, answer: &Answer) -> bool {
        if self.allowed {
            answer.allowed
        } else {
            answer.outcome == "timeout"
        }
    }

    /// What is wrong with the answer to a probe of this cell, where something is.
    pub(crate) fn complaint(&self, probe: impl fmt::Display, answer: &Answer) -> Option<String> {
        let word = if self.allowed { "allowed" } else { "denied" };
        (!self.fits(answer)).then(|| format!("  {probe}: shall be {word}, is {answer}"))
    }

    /// The families that the cell is about.
    pub(crate) fn families(&self) -> impl Iterator<Item = u8> + use<> {
        let only = self.family;
        [4, 6]
            .into_iter()
            .filter(move |family| only.is_none_or(|only| only == *family))
    }
}

/// Fails where something is wrong, and shows the first of it.
pub(crate) fn ensure_right(wrong: &[String], of: usize, what: &str) -> Result<()> {
    ensure!(
        wrong.is_empty(),
        "{} of {of} {what} are wrong\n{}",
        wrong.len(),
        wrong[..wrong.len().min(SHOWN)].join("\n")
    );
    Ok(())
}

/// What has to be deleted and what to be applied so that the first objects become the second.
pub(crate) fn difference(old: &Objects, new: &Objects) -> (Vec<Value>, Vec<Value>) {
    let goes = |key: &Key| !new.contains_key(key);
    let gone = old.iter().filter(|(key, _)| {
        // A namespace takes along what is in it.
        let with = ("Namespace".to_owned(), String::new(), key.1.clone());
        goes(key) && !(old.contains_key(&with) && goes(&with))
    });
    let changed = new
        .iter()
        .filter(|(key, object)| old.get(*key) != Some(*object));
    (
        gone.map(|(_, object)| object.clone()).collect(),
        changed.map(|(_, object)| object.clone()).collect(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objects(entries: &[(&str, &str, &str, u8)]) -> Objects {
        let entry = |(kind, namespace, name, value): &(&str, &str, &str, u8)| {
            let key = (
                (*kind).to_owned(),
                (*namespace).to_owned(),
                (*name).to_owned(),
            );
            (key, json!(format!("{kind} {name} {value}")))
        };
        entries.iter().map(entry).collect()
    }

    #[test]
    fn only_what_differs_is_changed_and_a_namespace_takes_its_pods_along() {
        let old = objects(&[
            ("Namespace", "", "x", 1),
            ("Namespace", "", "y", 1),
            ("Pod", "x", "a", 1),
            ("Pod", "y", "b", 1),
            ("Pod", "y", "c", 1),
        ]);
        let new = objects(&[
            ("Namespace", "", "y", 1),
            ("Pod", "y", "b", 2),
            ("Pod", "y", "d", 1),
        ]);
        let (gone, changed) = difference(&old, &new);
        assert_eq!(gone, [json!("Namespace x 1"), json!("Pod c 1")]);
        assert_eq!(changed, [json!("Pod b 2"), json!("Pod d 1")]);
    }

    #[test]
    fn who_refuses_has_not_been_denied() {
        let cell = |allowed| Cell {
            from: "x/a".to_owned(),
            to: "x/b".to_owned(),
            port: 80,
            protocol: "tcp".to_owned(),
            family: None,
            allowed,
        };
        let answer = |allowed, outcome: &str| Answer {
            allowed,
            outcome: outcome.to_owned(),
            error: String::new(),
        };
        for (allowed, answer, fits) in [
            (true, answer(true, "ok"), true),
            (true, answer(false, "timeout"), false),
            (false, answer(false, "timeout"), true),
            (false, answer(false, "refused"), false),
            (false, answer(true, "ok"), false),
        ] {
            assert_eq!(cell(allowed).fits(&answer), fits, "{allowed} {answer}");
        }
    }
}
