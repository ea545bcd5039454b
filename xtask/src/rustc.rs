// SPDX-License-Identifier: Apache-2.0
//! Stands between cargo and the compiler of the kernel programs, so that they come out the same in every folder.
//!
//! Cargo tells crates apart by a hash that, for those outside of the workspace that is built, is made from where they
//! lie. The compiler puts it into every symbol and orders functions by symbols: so the folder of a checkout would decide
//! how the programs are laid out, and what the verifier makes of them. The checkout's own crates are told apart by
//! their names here, and their files are named as seen from its root.

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::process::command;
use crate::workspace;

/// Set for a cargo whose compiler this is to be.
const MARK: &str = "WEIR_XTASK_RUSTC";

/// Has cargo call this program instead of the compiler.
pub(crate) fn wrap(cargo: &mut std::process::Command) -> Result<()> {
    let own = env::current_exe().context("cannot find the path of xtask itself")?;
    cargo.env("RUSTC_WRAPPER", own).env(MARK, "1");
    Ok(())
}

/// Whether cargo called this program as its compiler.
pub(crate) fn is_wanted() -> bool {
    env::var_os(MARK).is_some()
}

/// Runs the compiler that cargo names first, with the arguments that follow.
pub(crate) fn run() -> Result<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let compiler = arguments.next().context("cargo named no compiler")?;
    let of_checkout = env::var_os("CARGO_MANIFEST_DIR")
        .is_some_and(|manifest| std::path::Path::new(&manifest).starts_with(workspace::root()));
    let mut rustc = command(&compiler);
    if of_checkout {
        let name = env::var("CARGO_PKG_NAME").context("cargo named no package")?;
        rustc.args(arguments.map(|argument| with_name(argument, &name)));
        rustc.arg(format!(
            "--remap-path-prefix={}=.",
            workspace::root().display()
        ));
    } else {
        rustc.args(arguments);
    }
    let status = rustc
        .status()
        .with_context(|| format!("cannot start {}", compiler.display()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Puts a package's name in the place of cargo's hash.
fn with_name(argument: OsString, package: &str) -> OsString {
    match argument.to_str() {
        Some(text) if text.starts_with("metadata=") => format!("metadata={package}").into(),
        _ => argument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hash_is_replaced() {
        let check = |given: &str, expected: &str| {
            assert_eq!(with_name(given.into(), "weir-abi"), expected);
        };
        check("metadata=4e351221642fea37", "metadata=weir-abi");
        check(
            "extra-filename=-4e351221642fea37",
            "extra-filename=-4e351221642fea37",
        );
        check("-C", "-C");
    }
}
