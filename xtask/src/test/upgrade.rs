// SPDX-License-Identifier: Apache-2.0
//! The program of an earlier commit, for the test in which its agents give way to those of this checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::process::{cargo, command, run_step, stdout_of};
use crate::{output, workspace};

/// Builds the `weir` of a commit, by that commit's own means and in a folder of its own; once it is built it is kept.
pub(super) fn build(commit: &str) -> Result<PathBuf> {
    let revision = format!("{commit}^{{commit}}");
    let commit = stdout_of(git().args(["rev-parse", "--verify", "--end-of-options", &revision]))
        .with_context(|| {
            format!("the history here has no commit {commit}; `--from` names another one, and a shallow clone has few")
        })?;
    let commit = commit.trim();
    let folder = workspace::target_dir().join("upgrade").join(commit);
    let program = folder.join("target/debug/weir");
    if !program.exists() {
        unpack(commit, &folder)?;
        let mut build = cargo();
        build
            .args(["xtask", "build"])
            .current_dir(&folder)
            .env_remove("CARGO_TARGET_DIR");
        run_step(&format!("building commit {commit}"), &mut build)?;
    }
    ensure!(
        program.exists(),
        "commit {commit} was built, but {} is not there",
        program.display()
    );
    output::say(format_args!("    from: {}", program.display()));
    Ok(program)
}

/// Lays the sources of a commit out.
fn unpack(commit: &str, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut archive = git();
    let mut child = archive
        .args(["archive", "--format=tar", commit])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start git")?;
    let sources = child.stdout.take().context("git has no output")?;
    let unpacked = command("tar")
        .args(["--extract", "--directory"])
        .arg(folder)
        .stdin(sources)
        .status()
        .context("cannot start tar")?;
    let archived = child.wait().context("cannot wait for git")?;
    ensure!(
        unpacked.success() && archived.success(),
        "the sources of commit {commit} cannot be laid out in {}",
        folder.display()
    );
    Ok(())
}

fn git() -> std::process::Command {
    let mut git = command("git");
    git.arg("-C").arg(workspace::root());
    git
}
