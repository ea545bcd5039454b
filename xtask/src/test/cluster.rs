// SPDX-License-Identifier: Apache-2.0
//! The article's commands, the official tests of Kubernetes' network and cases of network policy, on a cluster that is
//! brought up for them: of the tests those that every Kubernetes must pass, and some of the others, drawn anew in each
//! run; with `--full` all tests, more cases, pods in a crowd, and pods that talk while the cluster's parts are killed.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::runner::Tally;
use crate::output;
use crate::process::{at_idle, command, display};

/// Beside the conformance tests: so many of the other tests of the network, and of those of network policy.
const DRAWN: &str = "--sample=12";

/// Kubernetes being built beside the tests before it, which wait for packets and deadlines more than they compute.
pub(super) struct Ahead(Child);

impl Ahead {
    /// `None` where it cannot be started: then it is built when the cluster comes up, which says what is wrong.
    pub(super) fn start() -> Option<Self> {
        let build = cluster(&["build"]).ok()?;
        output::step(format_args!("{} (beside the tests)", display(&build)));
        at_idle(&build).stdin(Stdio::null()).spawn().ok().map(Self)
    }
}

impl Drop for Ahead {
    /// What it could not build fails by name when the cluster comes up.
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

/// Brings a cluster up; the verbs are those that a person types. Its image is built meanwhile, which replaces the `weir` that
/// labs run, so no lab may be running.
pub(super) fn up() -> Result<()> {
    // What a run left behind that was cut off.
    finish(&mut cluster(&["down"])?)?;
    finish(&mut cluster(&["up", "--nodes=2"])?)
}

/// Tests a cluster that was brought up and takes it down.
pub(super) fn run(up: Result<()>, full: bool, filter: Option<&str>, tally: &mut Tally) {
    if let Err(error) = test(up, full, filter, tally) {
        tally.check("cluster", Err(error));
    }
}

fn test(up: Result<()>, full: bool, filter: Option<&str>, tally: &mut Tally) -> Result<()> {
    let tested = up.and_then(|()| {
        let mut runs = match (filter, full) {
            (Some(filter), _) => vec![cluster(&["e2e", filter])?],
            (None, true) => vec![
                cluster(&["article"])?,
                cluster(&["e2e"])?,
                cluster(&["e2e", "--netpol"])?,
                cluster(&["netpol", "--sample=40"])?,
                cluster(&["crowd"])?,
                cluster(&["kills", "--kills=100"])?,
            ],
            (None, false) => vec![
                cluster(&["article"])?,
                cluster(&["e2e", "--conformance", DRAWN])?,
                cluster(&["netpol", "--sample=4"])?,
            ],
        };
        runs.iter_mut().try_for_each(|run| count(run, tally))
    });
    let removed = finish(&mut cluster(&["down"])?);
    tested.and(removed)
}

/// This program again, with a verb of the cluster of that name.
fn cluster(arguments: &[&str]) -> Result<Command> {
    let mut again = command(env::current_exe().context("cannot find this program")?);
    again
        .args(["cluster", "--name=weirtest"])
        .args(arguments)
        // A cluster that somebody works with is not what is tested.
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null());
    Ok(again)
}

fn finish(command: &mut Command) -> Result<()> {
    output::step(display(command));
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", display(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", display(command));
    }
    Ok(())
}

/// Runs tests, shows what they print, and adds their closing line up.
fn count(command: &mut Command, tally: &mut Tally) -> Result<()> {
    output::step(display(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", display(command)))?;
    let stdout = child
        .stdout
        .take()
        .context("the output of the tests is not piped")?;
    let mut closing = None;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read the output of the tests")?;
        output::data(&line);
        if let Some(name) = line.strip_prefix("FAILED") {
            let name = name.split_once(" s  ").map_or(name, |(_, name)| name);
            tally.failures.push(format!("cluster: {name}"));
        }
        closing = read_counts(&line).or(closing);
    }
    let status = child.wait().context("cannot wait for the tests")?;
    let Some((passed, failed, skipped)) = closing else {
        bail!("`{}` ended without a result ({status})", display(command));
    };
    tally.passed += passed;
    tally.failed += failed;
    tally.skipped += skipped;
    if failed == 0 && !status.success() {
        bail!("`{}` failed ({status})", display(command));
    }
    Ok(())
}

/// `3 passed, 0 failed, 1 skipped`
fn read_counts(line: &str) -> Option<(u32, u32, u32)> {
    let mut parts = line.split(", ");
    let mut number = |word: &str| {
        let (number, found) = parts.next()?.split_once(' ')?;
        (found == word).then(|| number.parse().ok()).flatten()
    };
    Some((number("passed")?, number("failed")?, number("skipped")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_is_read() {
        assert_eq!(
            read_counts("45 passed, 1 failed, 7 skipped"),
            Some((45, 1, 7))
        );
        for other in ["", "45 passed", "passed    2 s  [sig-network] a, b, c"] {
            assert_eq!(read_counts(other), None, "{other}");
        }
    }
}
