// SPDX-License-Identifier: Apache-2.0
//! The checks of the source that need no test executable; each counts as one test.

use std::process::Command;

use super::runner::Tally;
use crate::process::{at_idle, cargo, run_step, stdout_of};
use crate::{docs, output, tidy, workspace};

/// All but the lints: what takes seconds.
pub(super) fn run(tally: &mut Tally) {
    let root = workspace::root();
    let programs = root.join("bpf/weir-bpf");

    if has_component("fmt", tally) {
        let mut fmt = cargo();
        fmt.args(["fmt", "--all", "--check"]).current_dir(root);
        tally.check("formatting", run_step("formatting", &mut fmt));
        let mut fmt = cargo();
        fmt.args(["fmt", "--check"]).current_dir(&programs);
        tally.check(
            "formatting of the kernel programs",
            run_step("formatting of the kernel programs", &mut fmt),
        );
    }
    tally.check("tidy", tidy::run(&tidy::Args {}));
    tally.check("generated pages", docs::run(&docs::Args { check: true }));
}

/// The lints, which compile everything: in a folder of their own, so that they hold no other cargo up, and where something
/// else runs at the same time at idle priority.
pub(super) fn lint(beside: bool, tally: &mut Tally) {
    if !has_component("clippy", tally) {
        return;
    }
    let target = workspace::target_dir();
    let clippy = |arguments: &[&str], folder: &str| {
        let mut clippy = cargo();
        clippy
            .args(["clippy", "--quiet", "--target-dir"])
            .arg(target.join(folder))
            .args(arguments)
            .args(["--", "-Dwarnings"]);
        clippy
    };
    let mut run = |what: &str, clippy: &mut Command| {
        let result = if beside {
            run_step(what, &mut at_idle(clippy))
        } else {
            run_step(what, clippy)
        };
        tally.check(what, result);
    };
    let everything = ["--workspace", "--all-targets", "--keep-going"];
    run(
        "clippy",
        clippy(&everything, "checks").current_dir(workspace::root()),
    );
    // For the host's target: so the lints need no eBPF toolchain, but the features that the programs use.
    run(
        "clippy over the kernel programs",
        clippy(&[], "bpf-host")
            .env("RUSTC_BOOTSTRAP", "1")
            .current_dir(workspace::root().join("bpf/weir-bpf")),
    );
}

/// Whether cargo has that component; a distribution's Rust may come without, which is said and counted as skipped.
fn has_component(name: &str, tally: &mut Tally) -> bool {
    let there = stdout_of(cargo().args([name, "--version"])).is_ok();
    if !there {
        output::say(format_args!(
            "skipped: `cargo {name}` is not installed (hint: `rustup component add rustfmt clippy`)"
        ));
        tally.skipped += 1;
    }
    there
}
