// SPDX-License-Identifier: Apache-2.0
//! The checks of the source that need no test executable; each counts as one test.

use super::runner::Tally;
use crate::process::{cargo, run_step};
use crate::{docs, tidy, workspace};

pub(super) fn run(tally: &mut Tally) {
    let mut fmt = cargo();
    fmt.args(["fmt", "--all", "--check"])
        .current_dir(workspace::root());
    tally.check("formatting", run_step("formatting", &mut fmt));

    tally.check("tidy", tidy::run(&tidy::Args {}));

    let mut clippy = cargo();
    clippy
        .args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-Dwarnings",
        ])
        .current_dir(workspace::root());
    tally.check("clippy", run_step("clippy", &mut clippy));

    // For the host's target: the lints need no eBPF toolchain.
    let mut fmt = cargo();
    fmt.args(["fmt", "--check"])
        .current_dir(workspace::root().join("bpf/weir-bpf"));
    tally.check(
        "formatting of the kernel programs",
        run_step("formatting of the kernel programs", &mut fmt),
    );
    let mut clippy = cargo();
    clippy
        .args(["clippy", "--quiet", "--target-dir"])
        .arg(workspace::target_dir().join("bpf-host"))
        .args(["--", "-Dwarnings"])
        .current_dir(workspace::root().join("bpf/weir-bpf"));
    tally.check(
        "clippy over the kernel programs",
        run_step("clippy over the kernel programs", &mut clippy),
    );

    tally.check("generated pages", docs::run(&docs::Args { check: true }));
}
