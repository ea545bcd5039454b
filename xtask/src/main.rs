// SPDX-License-Identifier: Apache-2.0
//! Answers one question: how is Weir set up, built, tested, shown and measured?
//!
//! One file per command; the doc comment on a command's arguments is its help text. This crate must not know how the
//! product works inside: it builds it, runs it and reads its output as any user would.
//! Start at [`Command`], then open the file with the name of the command.

mod bench;
mod build;
mod build_bpf;
mod ci;
mod cluster;
mod demo;
mod docs;
mod host;
mod image;
mod netpol;
mod output;
mod process;
mod rustc;
mod setup;
mod test;
mod tidy;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, tests, shows and measures Weir.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::Args),
    BuildBpf(build_bpf::Args),
    Build(build::Args),
    Image(image::Args),
    Test(test::Args),
    Demo(demo::Args),
    Cluster(cluster::Args),
    Bench(bench::Args),
    #[command(hide = true)]
    Traffic(bench::traffic::Args),
    Docs(docs::Args),
    Tidy(tidy::Args),
    Ci(ci::Args),
}

fn main() -> ExitCode {
    if rustc::is_wanted() {
        return rustc::run().unwrap_or_else(failed);
    }
    let result = match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildBpf(args) => build_bpf::run(&args),
        Command::Build(args) => build::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Traffic(args) => bench::traffic::run(&args),
        Command::Docs(args) => docs::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Ci(args) => ci::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "what `unwrap_or_else` hands out"
)]
fn failed(error: anyhow::Error) -> ExitCode {
    output::error(&error);
    ExitCode::from(2)
}
