// SPDX-License-Identifier: Apache-2.0
//! `tidy`: the rules of the house that a compiler does not check.

mod edges;
mod files;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{output, workspace};

/// Checks crate edges, file length, licence lines and the other rules that no compiler checks
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Folders with sources of our own.
const SOURCES: [&str; 5] = ["bpf", "crates", "fuzz", "tests", "xtask"];

pub(crate) fn run(Args {}: &Args) -> Result<()> {
    output::step("tidy");
    let root = workspace::root();
    let mut problems = edges::check()?;
    for folder in SOURCES {
        for path in rust_files(&root.join(folder))? {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let name = path.strip_prefix(root).unwrap_or(&path);
            problems.extend(files::check(name, &text));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    problems.sort();
    for problem in &problems {
        output::say(format_args!("    {problem}"));
    }
    bail!("tidy: {} to put right", problems.len());
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                found.extend(rust_files(&path)?);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}
