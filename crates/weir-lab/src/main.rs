// SPDX-License-Identifier: Apache-2.0
//! Answers one question: does the lab work by itself?
//!
//! `weir lab` alone, without the other commands of `weir`, for the lab's own tests; so a lab that it builds has no agents.
//! It must know nothing but how to call the library. Start reading at `weir_lab::run`.

use std::{io::Write, process::ExitCode};

use clap::Parser;

#[derive(Parser)]
#[command(name = "weir-lab")]
enum Command {
    /// Play a cluster on this machine.
    #[command(subcommand_required = true)]
    Lab(weir_lab::Args),
}

fn main() -> ExitCode {
    let Command::Lab(args) = Command::parse();
    weir_lab::run(args).unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        ExitCode::from(2)
    })
}
