// SPDX-License-Identifier: Apache-2.0
//! `image`: what a cluster runs, as a container image in one file.
//!
//! Nothing is fetched and no container tool is needed: the programs are linked statically, so the image holds them,
//! their other names and the few folders that a container runtime mounts into.

pub(crate) mod archive;
mod elf;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::process::{cargo, run_step};
use crate::{build_bpf, output, setup, workspace};
use archive::{Layer, Start};

/// Where the image calls itself from, unless told otherwise.
pub(crate) const NAME: &str = "weir.dev/weir:dev";

/// Writes target/weir-image.tar, a container image with the agent, the CNI plugin and the commands
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Without optimization: built in a fraction of the time, to try something out
    #[arg(long)]
    debug: bool,
    /// The image's name
    #[arg(long, default_value = NAME)]
    name: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let image = build(args.debug, &args.name)?;
    output::data(image.display());
    Ok(())
}

/// Builds what the image holds, and writes it; the answer is the file.
pub(crate) fn build(debug: bool, name: &str) -> Result<PathBuf> {
    let toolchain = setup::ensure()?;
    build_bpf::build(&toolchain)?;
    let weir = program("weir-cli", "weir", debug)?;
    let plugin = program("weir-cni", "weir-cni", debug)?;

    output::step("writing the image");
    let file = file();
    let names = [name.to_owned()];
    let start = Start {
        path: "/usr/bin",
        entrypoint: &["/usr/bin/weir"],
        arguments: &[],
    };
    archive::write(&file, &names, &start, layer(&weir, &plugin)?)?;
    let size = fs::metadata(&file)
        .with_context(|| format!("cannot read {}", file.display()))?
        .len();
    output::say(format_args!("    {name}: {} MB", size / 1_000_000));
    Ok(file)
}

/// Where the image is written.
pub(crate) fn file() -> PathBuf {
    workspace::target_dir().join("weir-image.tar")
}

/// What lies where. The agent finds the plugin beside itself.
fn layer(weir: &[u8], plugin: &[u8]) -> Result<Layer> {
    let mut layer = Layer::default();
    for folder in ["etc", "run", "usr", "usr/bin", "var", "var/log"] {
        layer.folder(folder, 0o755)?;
    }
    layer.folder("tmp", 0o1777)?;
    // Runtimes name a pod's network namespace by the one path and mount it by the other.
    layer.link("var/run", "../run")?;
    layer.program("usr/bin/weir", weir)?;
    layer.program("usr/bin/weir-cni", plugin)?;
    for name in ["cilium", "cilium-dbg"] {
        layer.link(&format!("usr/bin/{name}"), "weir")?;
    }
    Ok(layer)
}

/// One program, linked with everything that it needs. Only the last step of its build differs from that of
/// `cargo xtask build`, so nothing is compiled twice. The answer is the content that was examined: another build in this
/// checkout puts a program that is linked otherwise in the same place at any time.
fn program(package: &str, name: &str, debug: bool) -> Result<Vec<u8>> {
    let mut command = cargo();
    command
        .args(["rustc", "--package", package, "--bin", name])
        .current_dir(workspace::root());
    if !debug {
        command.arg("--release");
    }
    command.args(["--", "-Ctarget-feature=+crt-static", "-Cstrip=debuginfo"]);
    run_step(&format!("building {name}, statically linked"), &mut command)?;
    let folder = if debug { "debug" } else { "release" };
    let program = workspace::target_dir().join(folder).join(name);
    let content =
        fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    if let Some(interpreter) = elf::interpreter(&content)? {
        bail!(
            "{} needs {interpreter} and would not start in the image: this toolchain does not link statically, or another build took its place",
            program.display()
        );
    }
    Ok(content)
}
