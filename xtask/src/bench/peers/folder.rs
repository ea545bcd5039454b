// SPDX-License-Identifier: Apache-2.0
//! A folder of objects in place of an API server, for Weir's agent.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::objects::{self, Half, NAMESPACE, answers};
use crate::bench::Family;

/// Services of one file. A change writes a file anew.
const IN_A_FILE: u32 = 100;

/// The folder; the file `revision` counts what was written.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    family: Family,
    revision: Cell<u64>,
}

impl Folder {
    pub(super) fn make(path: PathBuf, family: Family) -> Result<Self> {
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let folder = Self {
            path,
            family,
            revision: Cell::new(0),
        };
        folder.write("Namespace", &json!({"metadata": {"name": NAMESPACE}}))?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an object of the core API, which has a file of its own.
    pub(super) fn write(&self, kind: &str, object: &Value) -> Result<()> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let text = document("v1", kind, object.clone());
        self.replace(&format!("{kind}-{name}.yaml"), &text)?;
        self.tell()
    }

    /// Writes the services up to that number with all their endpoints.
    pub(super) fn write_services(&self, last: u32) -> Result<()> {
        for first in (0..=last).step_by(IN_A_FILE as usize) {
            self.write_file(first / IN_A_FILE, last, None)?;
        }
        self.tell()
    }

    /// Gives the last service that half of the backends.
    pub(super) fn change(&self, service: u32, half: Half) -> Result<()> {
        self.write_file(service / IN_A_FILE, service, Some(half))?;
        self.tell()
    }

    /// Writes a file of services; `half` is what the last one has.
    fn write_file(&self, file: u32, last: u32, half: Option<Half>) -> Result<()> {
        let first = file * IN_A_FILE;
        let mut text = String::new();
        for number in (first..first + IN_A_FILE).filter(|number| *number <= last) {
            let half = half.filter(|_| number == last);
            let slice = objects::slice(self.family, number, answers(number, last), half);
            text += &document("v1", "Service", objects::service(self.family, number));
            text += &document("discovery.k8s.io/v1", "EndpointSlice", slice);
        }
        self.replace(&format!("services-{file}.yaml"), &text)
    }

    /// Whoever reads sees the old file or the new one.
    fn replace(&self, file: &str, text: &str) -> Result<()> {
        let fresh = self.path.join(format!(".{file}"));
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, self.path.join(file)))
            .with_context(|| format!("cannot write {}", fresh.display()))
    }

    /// What was written is complete.
    fn tell(&self) -> Result<()> {
        self.revision.update(|revision| revision + 1);
        self.replace("revision", &self.revision.get().to_string())
    }
}

/// An object that says what it is; to an API server the path says so. JSON is YAML too.
fn document(version: &str, kind: &str, mut object: Value) -> String {
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    format!("---\n{object}\n")
}
