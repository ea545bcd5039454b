// SPDX-License-Identifier: Apache-2.0
//! `build-bpf`: the kernel programs, from source to `target/bpf/weir.o`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::run_step;
use crate::toolchain::Toolchain;
use crate::{output, rustc, workspace};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the eBPF object that the agent embeds (target/bpf/weir.o)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(Args {}: &Args) -> Result<()> {
    let Some(toolchain) = Toolchain::detect()? else {
        bail!(
            "no toolchain for the eBPF target: `cargo xtask setup` installs it or says what is missing"
        );
    };
    build(&toolchain).map(drop)
}

/// Builds the object and puts it where the agent's build looks for it.
pub(crate) fn build(toolchain: &Toolchain) -> Result<PathBuf> {
    let what = format!("building the kernel programs with {}", toolchain.compiler);
    run_step(&what, &mut cargo(toolchain)?)?;
    let built = target_dir().join(TARGET).join("release/weir");
    let object = workspace::bpf_object();
    install(&built, &object)?;
    output::say(format_args!(
        "    {}",
        object
            .strip_prefix(workspace::root())
            .unwrap_or(&object)
            .display()
    ));
    Ok(object)
}

fn cargo(toolchain: &Toolchain) -> Result<Command> {
    // One flag per item, separated by 0x1f, so that a path with a space stays one flag.
    // -Cdebuginfo and --btf: the loader needs BTF. v3: 32-bit arithmetic and jumps, in every kernel Weir runs on.
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
        "-Ctarget-cpu=v3".to_owned(),
        // Copies of addresses and headers as wide loads instead of byte by byte: every architecture that Weir runs
        // on allows unaligned access to packets and map values.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
    ];
    let mut command = toolchain.compiler.cargo();
    command
        .args([
            "build",
            "--release",
            "-Zbuild-std=core",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(target_dir())
        .current_dir(workspace::root().join("bpf/weir-bpf"))
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    rustc::wrap(&mut command)?;
    Ok(command)
}

fn target_dir() -> PathBuf {
    workspace::root().join("target/bpf")
}

/// Copies only what changed: the file's time is what makes the agent rebuild.
fn install(built: &PathBuf, object: &PathBuf) -> Result<()> {
    let new = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let fresh = object.with_extension("o.new");
    fs::write(&fresh, &new).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, object).with_context(|| format!("cannot write {}", object.display()))
}
