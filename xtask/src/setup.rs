// SPDX-License-Identifier: Apache-2.0
//! `setup`: finds the toolchain for the eBPF target, or installs it where that can be done unasked.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::process::{cargo, find_in_path, root_command, run_quietly, run_step};
use crate::toolchain::{BPF_LINKER_VERSION, Compiler, Toolchain, linker_root, linker_stamp};
use crate::{output, workspace};

/// Installs what the build needs and says what it took
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only say what is there and what is missing
    #[arg(long)]
    pub(crate) check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        let Some(toolchain) = Toolchain::detect()? else {
            bail!("no toolchain for the eBPF target\n{}", missing());
        };
        report(&toolchain);
        return Ok(());
    }
    report(&ensure()?);
    Ok(())
}

/// The toolchain for the eBPF target; installs it when it is not there.
pub(crate) fn ensure() -> Result<Toolchain> {
    if let Some(toolchain) = Toolchain::detect()? {
        return Ok(toolchain);
    }
    if Compiler::candidates().is_empty() {
        install_compiler()?;
    }
    let Some(compiler) = Compiler::candidates().into_iter().next() else {
        bail!(
            "the packages are installed, but no compiler for the eBPF target is found\n{}",
            missing()
        );
    };
    install_linker(&compiler)?;
    Toolchain::detect()?.context("bpf-linker is installed, but does not run")
}

fn report(toolchain: &Toolchain) {
    output::say(format_args!(
        "compiler for the eBPF target: {}",
        toolchain.compiler
    ));
    output::say(format_args!(
        "linker: {} (LLVM {})",
        toolchain.linker.display(),
        toolchain.llvm_major
    ));
}

fn install_compiler() -> Result<()> {
    if !is_debian() {
        bail!(
            "no compiler for the eBPF target, and this is not Debian\n{}",
            missing()
        );
    }
    apt_install(&["rustc-web", "rust-web-src"])
}

/// Builds bpf-linker on the LLVM that the compiler has: a linker cannot read bitcode of a newer LLVM.
fn install_linker(compiler: &Compiler) -> Result<()> {
    let major = compiler.llvm_major()?;
    let prefix = format!("/usr/lib/llvm-{major}");
    if !Path::new(&prefix).join("include/llvm-c/Core.h").is_file() {
        if !is_debian() {
            bail!(
                "no development files of LLVM {major} in {prefix}\n{}",
                missing()
            );
        }
        apt_install(&[&format!("llvm-{major}-dev")])?;
    }
    // bpf-linker links LLVM as C++, so the C++ library's development files are needed too.
    if find_in_path("g++").is_none() && is_debian() {
        apt_install(&["g++"])?;
    }
    let root = linker_root()?;
    let mut install = cargo();
    install
        .args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER_VERSION,
            "--locked",
            "--force",
        ])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{major}"),
            "--root",
        ])
        .arg(&root)
        .env("LLVM_PREFIX", &prefix)
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(workspace::root());
    run_step(
        &format!("building bpf-linker {BPF_LINKER_VERSION} for LLVM {major} (about a minute)"),
        &mut install,
    )?;
    fs::write(linker_stamp()?, major.to_string()).context("cannot write the stamp of bpf-linker")
}

pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    // Always: an index that is old or lacks the security suite would give an older compiler.
    run_quietly(
        "apt-get update",
        root_command("apt-get")?.args(["update", "-qq"]),
    )?;
    let mut install = root_command("env")?;
    install
        .args([
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
        ])
        .args(packages);
    run_quietly(
        &format!("apt-get install {}", packages.join(" ")),
        &mut install,
    )
    .context("the packages cannot be installed")
}

fn is_debian() -> bool {
    find_in_path("apt-get").is_some()
        && fs::read_to_string("/etc/os-release").is_ok_and(|release| {
            release.lines().any(|line| {
                line == "ID=debian" || line.starts_with("ID_LIKE=") && line.contains("debian")
            })
        })
}

fn missing() -> String {
    format!(
        "hint: one of these two is needed:\n\
         \x20 - Debian with its security suite: the packages rustc-web and rust-web-src (1.95 or newer), and the\n\
         \x20   llvm-NN-dev that `/usr/bin/rustc -vV` names;\n\
         \x20   `cargo xtask setup` installs them and builds bpf-linker\n\
         \x20 - elsewhere: `rustup toolchain install nightly --component rust-src` and\n\
         \x20   `cargo install bpf-linker --version {BPF_LINKER_VERSION}` with a feature `llvm-NN` that equals the LLVM\n\
         \x20   version of `rustup run nightly rustc -vV`"
    )
}
