// SPDX-License-Identifier: Apache-2.0
//! Compiles the tests and says which executable belongs to which level.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::{cargo, display};
use crate::{output, workspace};

/// What a test needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Level {
    /// Nothing.
    Unit,
    /// Root and a kernel with the features that the programs use.
    Kernel,
    /// What the kernel level needs, and a lab of its own.
    Lab,
    /// What the lab level needs, and the program of an earlier commit.
    Upgrade,
}

/// One executable full of tests.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Target {
    pub(super) level: Level,
    /// `package` or `package::file`.
    pub(super) name: String,
    pub(super) executable: PathBuf,
    /// The directory of the package, where cargo too would run it.
    pub(super) directory: PathBuf,
}

/// Those that start an API server and do nothing without its programs.
const WITH_API_SERVER: [&str; 2] = ["weir-agent::kernel_announce", "weir-cluster::api_server"];

impl Target {
    /// Whether the tests start an API server, which is there once the test cluster's programs are built.
    pub(super) fn needs_api_server(&self) -> bool {
        WITH_API_SERVER.contains(&self.name.as_str())
    }
}

/// Compiles all tests as the invoking user.
pub(super) fn compile() -> Result<Vec<Target>> {
    output::step("compiling the tests");
    let mut command = cargo();
    command
        .args([
            "test",
            "--workspace",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(workspace::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let result = command
        .output()
        .with_context(|| format!("cannot start `{}`", display(&command)))?;
    if !result.status.success() {
        bail!("the tests do not compile");
    }
    let mut targets: Vec<Target> = String::from_utf8_lossy(&result.stdout)
        .lines()
        .filter_map(target_of_message)
        .collect();
    targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(targets)
}

/// The test executable that a line of cargo's JSON announces.
fn target_of_message(line: &str) -> Option<Target> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let directory = Path::new(message["manifest_path"].as_str()?)
        .parent()?
        .to_owned();
    let package = directory.file_name()?.to_str()?;
    let file = message["target"]["name"].as_str()?;
    let integration = message["target"]["kind"]
        .as_array()?
        .iter()
        .any(|kind| kind == "test");
    let (level, name) = if integration {
        (level_of_file(file), format!("{package}::{file}"))
    } else {
        (Level::Unit, package.to_owned())
    };
    Some(Target {
        level,
        name,
        executable,
        directory,
    })
}

fn level_of_file(name: &str) -> Level {
    match name.split('_').next() {
        Some("kernel") => Level::Kernel,
        Some("lab") => Level::Lab,
        Some("upgrade") => Level::Upgrade,
        _ => Level::Unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_first_word_of_the_file() {
        assert_eq!(level_of_file("kernel_packets"), Level::Kernel);
        assert_eq!(level_of_file("kernel"), Level::Kernel);
        assert_eq!(level_of_file("lab_restart"), Level::Lab);
        assert_eq!(level_of_file("upgrade"), Level::Upgrade);
        assert_eq!(level_of_file("label"), Level::Unit);
        assert_eq!(level_of_file("packets"), Level::Unit);
    }

    #[test]
    fn only_test_executables_are_taken() {
        let line = r#"{"reason":"compiler-artifact","manifest_path":"/src/crates/weir-datapath/Cargo.toml",
            "target":{"kind":["test"],"name":"kernel_load"},"profile":{"test":true},"executable":"/t/kernel_load-1"}"#;
        let target = target_of_message(line).expect("a test executable");
        assert_eq!(
            (target.level, target.name.as_str()),
            (Level::Kernel, "weir-datapath::kernel_load")
        );
        assert_eq!(target.directory, Path::new("/src/crates/weir-datapath"));
        assert_eq!(
            target_of_message(&line.replace("\"test\":true", "\"test\":false")),
            None
        );
        assert_eq!(target_of_message("warning: not JSON"), None);
    }
}
