// SPDX-License-Identifier: Apache-2.0
//! Everything that can be typed, a file for each command.
//!
//! A file has what clap parses (`Args`), makes of it what is meant, asks the agent and prints.
//! Diagnosis will be further files here.

mod bpf;
mod config;
mod endpoint;
mod flows;
mod identity;
mod install;
mod ip;
mod kubectl;
mod map;
mod metrics;
mod monitor;
mod node;
mod policy;
mod service;
mod status;
mod trace;
mod version;

use crate::error::CliError;
use crate::output::{Format, Printer, emit};
use serde::Serialize;
use std::process::ExitCode;
use weir_api::Client;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Status(status::Args),
    Endpoint(endpoint::Args),
    Service(service::Args),
    Policy(policy::Args),
    Trace(trace::Args),
    Monitor(monitor::Args),
    Flows(Box<flows::Args>),
    Bpf(bpf::Args),
    Identity(identity::Args),
    Ip(ip::Args),
    Node(node::Args),
    Map(map::Args),
    Metrics(metrics::Args),
    Config(config::Args),
    Version(version::Args),
    Install(install::Args),
    Uninstall(install::UninstallArgs),
    Kubectl(kubectl::Args),
    Agent(Box<weir_agent::Args>),
    Lab(weir_lab::Args),
}

/// What a command needs to do its work.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) printer: Printer,
}

/// How a command ended that could run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Outcome {
    Fine,
    /// What was asked about is not as it should be.
    Problem,
    /// The part of the program that ran has chosen its own status.
    Status(ExitCode),
}

impl Outcome {
    pub(crate) const fn problem_if(found: bool) -> Self {
        if found { Self::Problem } else { Self::Fine }
    }
}

impl Context {
    /// Prints an answer in the form asked for.
    pub(crate) fn emit<T: Serialize>(
        &mut self,
        format: &Format,
        value: &T,
        table: impl FnOnce(&T) -> Vec<String>,
    ) -> Result<(), CliError> {
        emit(&mut self.printer, format, value, table)
    }
}

pub(crate) fn run(command: Command, context: &mut Context) -> Result<Outcome, CliError> {
    match command {
        Command::Status(args) => status::run(&args, context),
        Command::Endpoint(args) => endpoint::run(args, context),
        Command::Service(args) => service::run(args, context),
        Command::Policy(args) => policy::run(args, context),
        Command::Trace(args) => trace::run(&args, context),
        Command::Monitor(args) => monitor::run(args, context),
        Command::Flows(args) => flows::run(*args, context),
        Command::Bpf(args) => bpf::run(args, context),
        Command::Identity(args) => identity::run(args, context),
        Command::Ip(args) => ip::run(args, context),
        Command::Node(args) => node::run(args, context),
        Command::Map(args) => map::run(args, context),
        Command::Metrics(args) => metrics::run(&args, context),
        Command::Config(args) => config::run(args, context),
        Command::Version(args) => version::run(&args, context),
        Command::Install(args) => install::run(args, context),
        Command::Uninstall(args) => install::uninstall(args, context),
        Command::Kubectl(args) => kubectl::run(args, context),
        Command::Agent(args) => weir_agent::run(*args)
            .map(|()| Outcome::Fine)
            .map_err(|error| CliError::Part(error.into())),
        // Before any thread is started: some verbs move the process into namespaces.
        Command::Lab(args) => weir_lab::run(args)
            .map(Outcome::Status)
            .map_err(CliError::Part),
    }
}
