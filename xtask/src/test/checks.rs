// SPDX-License-Identifier: Apache-2.0
//! The checks of the source that need no test executable; each counts as one test.

use super::runner::Tally;
use crate::process::{cargo, run_step, stdout_of};
use crate::{docs, output, tidy, workspace};

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

    if has_component("clippy", tally) {
        let mut clippy = cargo();
        clippy
            .args([
                "clippy",
                "--workspace",
                "--all-targets",
                "--keep-going",
                "--quiet",
                "--",
                "-Dwarnings",
            ])
            .current_dir(root);
        tally.check("clippy", run_step("clippy", &mut clippy));
        // For the host's target: so the lints need no eBPF toolchain, but the features that the programs use.
        let mut clippy = cargo();
        clippy
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["clippy", "--quiet", "--target-dir"])
            .arg(workspace::target_dir().join("bpf-host"))
            .args(["--", "-Dwarnings"])
            .current_dir(&programs);
        tally.check(
            "clippy over the kernel programs",
            run_step("clippy over the kernel programs", &mut clippy),
        );
    }
    tally.check("generated pages", docs::run(&docs::Args { check: true }));
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
