// SPDX-License-Identifier: Apache-2.0
//! Running other programs: as the user, or as root through sudo for what needs it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::output;

/// A command that runs as the invoking user.
#[expect(
    clippy::disallowed_methods,
    reason = "xtask runs compilers and package managers; this is its one place"
)]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// The cargo that runs this xtask, without the environment that it set for xtask alone.
pub(crate) fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = command(cargo);
    // Set for the libraries of the toolchain that built xtask; another rustc must not find them.
    command
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("RUSTC")
        .env_remove("RUST_RECURSION_COUNT");
    command
}

/// A command that runs as root.
pub(crate) fn root_command(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(command(program));
    }
    if find_in_path("sudo").is_none() {
        bail!(
            "`{}` needs root: run as root or install sudo",
            program.as_ref().to_string_lossy()
        );
    }
    let mut sudo = command("sudo");
    sudo.arg(program);
    Ok(sudo)
}

/// The same command at idle priority: it gets what others leave of the processors, and takes nothing from them.
pub(crate) fn at_idle(of: &Command) -> Command {
    let mut idle = command("chrt");
    append(idle.args(["--idle", "0"]), of);
    idle
}

/// Puts a command behind one that becomes it, with its environment and folder.
pub(crate) fn append<'a>(before: &'a mut Command, command: &Command) -> &'a mut Command {
    before.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => before.env(name, value),
            None => before.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        before.current_dir(directory);
    }
    before
}

/// Whether this process has root's rights.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_whitespace().nth(1))
            .is_some_and(|effective| effective == "0")
    })
}

/// The first file of that name in PATH.
pub(crate) fn find_in_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// Announces and runs a command to its end; its output is shown as it comes.
pub(crate) fn run_step(what: &str, command: &mut Command) -> Result<()> {
    output::step(what);
    let start = Instant::now();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{}`", display(command)))?;
    if !status.success() {
        bail!("{what}: `{}` failed ({status})", display(command));
    }
    let took = start.elapsed().as_secs();
    if took >= 2 {
        output::say(format_args!("    done in {took} s"));
    }
    Ok(())
}

/// Announces and runs a command whose output is of interest only when it fails.
pub(crate) fn run_quietly(what: &str, command: &mut Command) -> Result<()> {
    output::step(what);
    let start = Instant::now();
    stdout_of(command)?;
    let took = start.elapsed().as_secs();
    if took >= 2 {
        output::say(format_args!("    done in {took} s"));
    }
    Ok(())
}

/// The standard output of a command that succeeds.
pub(crate) fn stdout_of(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", display(command)))?;
    succeeded(command, &output)
}

/// The standard output of a command that succeeds, with this as its input.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", display(command)))?;
    let mut stdin = child.stdin.take().context("its input is not piped")?;
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = succeeded(command, &output)?;
    written.with_context(|| format!("`{}` does not read its input", display(command)))?;
    Ok(said)
}

fn succeeded(command: &Command, output: &Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "`{}` failed ({}): {}",
            display(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command line as one would type it, for messages.
pub(crate) fn display(command: &Command) -> String {
    let mut line = Path::new(command.get_program()).display().to_string();
    for arg in command.get_args() {
        let _ = write!(line, " {}", arg.to_string_lossy());
    }
    line
}
