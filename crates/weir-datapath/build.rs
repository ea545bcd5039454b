// SPDX-License-Identifier: Apache-2.0
//! Finds the eBPF object that the crate embeds, or puts an empty file in its place, so that everything but loading
//! works without the eBPF toolchain.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where the object is, when it is not where `cargo xtask build-bpf` puts it.
const OVERRIDE: &str = "WEIR_BPF_OBJECT";
const DEFAULT: &str = "../../target/bpf/weir.o";

fn main() -> io::Result<()> {
    let given = env::var_os(OVERRIDE).map(PathBuf::from);
    let wanted = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(DEFAULT));
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", wanted.display());

    let directory = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("no OUT_DIR"))?;
    let embedded = Path::new(&directory).join("weir.o");
    match fs::read(&wanted) {
        Ok(object) => fs::write(&embedded, object)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::write(&embedded, [])?,
        Err(error) => return Err(error),
    }
    Ok(())
}
