// SPDX-License-Identifier: Apache-2.0
//! `policy validate`: would these policies be accepted? No agent is asked.

use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::Format;
use crate::text::count;
use serde::Serialize;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use weir_cluster::text::read;
use weir_model::{Change, NetworkPolicy};

/// What was found in one file.
#[derive(Serialize)]
struct Validated {
    file: String,
    /// Policies that would be in force as they are written.
    valid: Vec<String>,
    /// `NetworkPolicy shop/web: spec.ingress[0]…: message`
    problems: Vec<String>,
    /// Objects of kinds that are not looked at.
    skipped: u64,
}

pub(super) fn run(
    context: &mut Context,
    paths: &[PathBuf],
    format: &Format,
) -> Result<Outcome, CliError> {
    let mut files = Vec::new();
    for path in paths {
        files.extend(files_at(path)?);
    }
    let mut all = Vec::new();
    for file in files {
        let text = text_of(&file)?;
        all.push(validated(&file, &text));
    }
    if all.is_empty() {
        return Err(CliError::missing(
            "no file to validate",
            "give files or folders with .yaml, .yml or .json, or - for the standard input",
        ));
    }
    let bad = all.iter().any(|one| !one.problems.is_empty());
    context.emit(format, &all, |all| lines(all))?;
    Ok(Outcome::problem_if(bad))
}

fn failed(path: &Path, error: &std::io::Error) -> CliError {
    CliError::missing(
        format!("cannot read {}: {error}", path.display()),
        "give a file or a folder of manifests, or - for the standard input",
    )
}

/// The manifests of a folder, sorted; a file is itself.
fn files_at(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(|error| failed(path, &error))? {
        let path = entry.map_err(|error| failed(path, &error))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn text_of(path: &Path) -> Result<String, CliError> {
    if path == Path::new("-") {
        let mut text = String::new();
        return match std::io::stdin().read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) => Err(failed(path, &error)),
        };
    }
    fs::read_to_string(path).map_err(|error| failed(path, &error))
}

fn validated(file: &Path, text: &str) -> Validated {
    let found = read(text);
    let policies = found.changes.iter().filter_map(|change| {
        if let Change::NetworkPolicy(policy) = change {
            Some(policy.as_ref())
        } else {
            None
        }
    });
    Validated {
        file: file.display().to_string(),
        valid: policies.map(name).collect(),
        problems: found.problems.iter().map(problem).collect(),
        skipped: found.skipped.values().sum(),
    }
}

fn name(policy: &NetworkPolicy) -> String {
    format!("NetworkPolicy {}", policy.reference)
}

fn problem(problem: &weir_cluster::ObjectProblem) -> String {
    let parts = [&problem.object, &problem.field, &problem.message];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(String::as_str)
        .collect();
    parts.join(": ")
}

fn lines(all: &[Validated]) -> Vec<String> {
    let mut lines = Vec::new();
    for one in all {
        let Validated {
            file,
            valid,
            problems,
            skipped,
        } = one;
        lines.extend(valid.iter().map(|name| format!("{file}: {name}: valid")));
        lines.extend(problems.iter().map(|what| format!("{file}: {what}")));
        if valid.is_empty() && problems.is_empty() {
            let others = count(*skipped, "other object");
            lines.push(format!("{file}: no policy, {others}"));
        }
    }
    lines
}
