// SPDX-License-Identifier: Apache-2.0
//! What does a person type, and what is printed?
//!
//! One binary for everything: the commands that ask an agent, the agent itself and the lab. Called
//! as `cilium` or `cilium-dbg` it takes the same commands, so that scripts and fingers keep working.
//!
//! The crate must not know how an answer comes about: it asks the agent through `weir-api` and
//! prints. Each command is a file below `command`, from what was typed to what it means to lines;
//! all output goes through one [`Printer`].
//!
//! Exit status: 0 fine, 1 a problem was found, 2 the command could not run. That the reader of the
//! output went away is not an error. Start reading at [`command`].

mod command;
mod error;
mod output;
mod text;

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use command::{Command, Context, Outcome};
use error::CliError;
use output::{Printer, style, talk};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use weir_api::{Client, path};

/// Weir: an eBPF network dataplane for Kubernetes
///
/// Pods, flows and drops of one node, asked from its agent; the agent itself; and a lab that is a
/// cluster on one machine.
#[derive(Parser)]
#[command(
    name = "weir",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Exit status: 0 fine, 1 a problem was found, 2 could not run.\n\n\
                  Examples:\n  \
                  weir status --verbose\n  \
                  weir monitor --type drop\n  \
                  weir endpoint list | grep my-pod\n  \
                  weir bpf ct list global | wc -l"
)]
struct Weir {
    #[arg(
        long,
        short = 'H',
        alias = "host",
        value_name = "PATH",
        global = true,
        display_order = 900,
        help = "The agent's socket [default: /run/weir/weir.sock; or WEIR_SOCK, CILIUM_SOCK]"
    )]
    socket: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let name = program_name(words.first());
    let plugin = is_plugin(words.first());
    if let Some(first) = words.first_mut() {
        *first = name.into();
    }
    if plugin {
        words.insert(1, "kubectl".into());
    }
    let matches = Weir::command()
        .name(name)
        .bin_name(name)
        .try_get_matches_from(words)
        .and_then(|mut matches| Weir::from_arg_matches_mut(&mut matches));
    let weir = match matches {
        Ok(weir) => weir,
        Err(error) => {
            // A closed pipe behind `--help` is no error either.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(COULD_NOT_RUN));
        }
    };
    let mut context = Context {
        client: Client::new(socket(weir.socket)),
        printer: Printer::new(),
    };
    let result = command::run(weir.command, &mut context);
    // What was printed before an error is still worth reading.
    match (result, context.printer.flush()) {
        (Ok(Outcome::Fine), Ok(())) => ExitCode::SUCCESS,
        (Ok(Outcome::Problem), Ok(())) => ExitCode::FAILURE,
        (Ok(Outcome::Status(status)), Ok(())) => status,
        (Err(error), _) | (Ok(_), Err(error)) => report(&error),
    }
}

fn report(error: &CliError) -> ExitCode {
    if error.is_closed_pipe() {
        return ExitCode::SUCCESS;
    }
    talk("error", style::BAD, error);
    if let Some(hint) = error.hint() {
        talk("hint", style::HINT, hint);
    }
    ExitCode::from(COULD_NOT_RUN)
}

/// The name that help and usage print: how the binary was called, if it is one of ours.
fn program_name(called: Option<&OsString>) -> &'static str {
    let file = called.and_then(|path| Path::new(path).file_name()?.to_str());
    match file {
        Some("cilium") => "cilium",
        Some("cilium-dbg") => "cilium-dbg",
        _ => "weir",
    }
}

/// `kubectl weir` runs the program `kubectl-weir`.
fn is_plugin(called: Option<&OsString>) -> bool {
    called.is_some_and(|path| Path::new(path).file_name() == Some("kubectl-weir".as_ref()))
}

fn socket(typed: Option<PathBuf>) -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let socket = typed
        .or_else(|| from("WEIR_SOCK").map(PathBuf::from))
        .or_else(|| from("CILIUM_SOCK").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from(path::DEFAULT_SOCKET));
    // The peers write it as a URI.
    match socket
        .to_str()
        .and_then(|text| text.strip_prefix("unix://"))
    {
        Some(path) => PathBuf::from(path),
        None => socket,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_do_not_contradict_each_other() {
        Weir::command().debug_assert();
    }

    #[test]
    fn the_name_is_the_one_that_was_called() {
        for (called, expected) in [
            ("/usr/bin/cilium", "cilium"),
            ("cilium-dbg", "cilium-dbg"),
            ("/x/weir", "weir"),
            ("other", "weir"),
        ] {
            assert_eq!(program_name(Some(&called.into())), expected);
        }
        assert_eq!(program_name(None), "weir");
        assert!(is_plugin(Some(&"/usr/bin/kubectl-weir".into())));
        assert!(!is_plugin(Some(&"kubectl".into())) && !is_plugin(None));
    }

    #[test]
    fn a_uri_is_a_path() {
        let given = Some(PathBuf::from("unix:///run/x.sock"));
        assert_eq!(socket(given), PathBuf::from("/run/x.sock"));
    }
}
