// SPDX-License-Identifier: Apache-2.0
//! `build`: the kernel programs, then the `weir` binary that embeds them, and the CNI plugin that it installs.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{cargo, run_step};
use crate::{build_bpf, output, setup, workspace};

/// Builds the kernel programs, the `weir` binary and the CNI plugin
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Build with full optimization, as it is shipped
    #[arg(long)]
    pub(crate) release: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = build(args.release)?;
    output::data(binary.display());
    Ok(())
}

/// Builds everything that runs; the answer is the `weir` binary.
pub(crate) fn build(release: bool) -> Result<PathBuf> {
    let toolchain = setup::ensure()?;
    build_bpf::build(&toolchain)?;
    let mut command = cargo();
    command
        .args(["build", "--package", "weir-cli", "--package", "weir-cni"])
        .current_dir(workspace::root());
    if release {
        command.arg("--release");
    }
    run_step("building the weir binary", &mut command)?;
    Ok(built(release))
}

/// The `weir` binary that was built before.
pub(crate) fn built(release: bool) -> PathBuf {
    let profile = if release { "release" } else { "debug" };
    workspace::target_dir().join(profile).join("weir")
}
