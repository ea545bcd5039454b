// SPDX-License-Identifier: Apache-2.0
//! Finds what can compile Rust for the eBPF target: a compiler that takes `-Z` flags, its core library's source and a
//! bpf-linker built on the same major version of LLVM.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{cargo, command, find_in_path, stdout_of};
use crate::workspace;

/// The version of bpf-linker that the object is built with.
pub(crate) const BPF_LINKER_VERSION: &str = "0.13.0";

/// Debian's compiler, used with `RUSTC_BOOTSTRAP` because stable refuses `-Z build-std`.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The oldest compiler that compiles the crates (the workspace's rust-version).
const OLDEST_RUSTC: (u32, u32) = (1, 95);

/// The versions of LLVM that this bpf-linker can be built on.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Where the compiler for the eBPF target comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Compiler {
    /// Debian's own package, with its source package.
    Debian { rustc: PathBuf },
    /// A nightly that rustup manages, with its rust-src component.
    Nightly { toolchain: String },
}

/// A complete toolchain for the eBPF target.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    /// Of the compiler and of the linker alike.
    pub(crate) llvm_major: u32,
    pub(crate) linker: PathBuf,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian { rustc } => {
                write!(f, "Debian's {} with its source package", rustc.display())
            }
            Self::Nightly { toolchain } => write!(f, "rustup's {toolchain} with rust-src"),
        }
    }
}

impl Compiler {
    /// The compilers of this machine that can build for the eBPF target, the preferred one first.
    pub(crate) fn candidates() -> Vec<Self> {
        let debian = PathBuf::from(DEBIAN_RUSTC);
        let debian = debian.is_file().then_some(Self::Debian { rustc: debian });
        debian
            .into_iter()
            .chain(nightlies())
            .filter(Self::is_usable)
            .collect()
    }

    /// New enough, with an LLVM that the linker knows and the source of the core library.
    fn is_usable(&self) -> bool {
        let Ok(version) = self.version() else {
            return false;
        };
        rustc_version(&version).is_some_and(|version| version >= OLDEST_RUSTC)
            && llvm_major(&version).is_some_and(|major| LINKER_LLVM.contains(&major))
            && has_core_source(&mut self.rustc())
    }

    /// A `rustc` of this compiler.
    fn rustc(&self) -> Command {
        match self {
            Self::Debian { rustc } => command(rustc),
            Self::Nightly { toolchain } => {
                let mut rustup = command("rustup");
                rustup.args(["run", toolchain, "rustc"]);
                rustup
            }
        }
    }

    /// The major version of the LLVM inside the compiler.
    pub(crate) fn llvm_major(&self) -> Result<u32> {
        llvm_major(&self.version()?).context("`rustc -vV` names no LLVM version")
    }

    fn version(&self) -> Result<String> {
        stdout_of(self.rustc().env_remove("LD_LIBRARY_PATH").arg("-vV"))
    }

    /// A cargo that compiles with this compiler.
    pub(crate) fn cargo(&self) -> Command {
        match self {
            Self::Debian { rustc } => {
                let mut cargo = cargo();
                cargo.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Nightly { toolchain } => {
                let mut rustup = command("rustup");
                rustup
                    .args(["run", toolchain, "cargo"])
                    .env_remove("LD_LIBRARY_PATH");
                rustup
                    .env_remove("CARGO")
                    .env_remove("RUSTC")
                    .env_remove("RUSTUP_TOOLCHAIN");
                rustup
            }
        }
    }
}

impl Toolchain {
    /// The first compiler for which a linker is there too.
    pub(crate) fn detect() -> Result<Option<Self>> {
        for compiler in Compiler::candidates() {
            let llvm_major = compiler.llvm_major()?;
            if let Some(linker) = find_linker(llvm_major)? {
                return Ok(Some(Self {
                    compiler,
                    llvm_major,
                    linker,
                }));
            }
        }
        Ok(None)
    }
}

/// Where setup installs its own bpf-linker.
pub(crate) fn linker_root() -> Result<PathBuf> {
    Ok(workspace::cache_dir()?.join("bpf-linker"))
}

/// Where the file lies that says for which LLVM setup built the linker.
pub(crate) fn linker_stamp() -> Result<PathBuf> {
    Ok(linker_root()?.join("llvm-major"))
}

/// A bpf-linker for that LLVM: setup's own, else one from PATH.
fn find_linker(llvm_major: u32) -> Result<Option<PathBuf>> {
    let own = linker_root()?.join("bin/bpf-linker");
    if own.is_file() && runs(&own) {
        // A linker older than the stamp file was built for the only LLVM that setup knew then.
        let built_for =
            std::fs::read_to_string(linker_stamp()?).unwrap_or_else(|_| "22".to_owned());
        if built_for.trim() == llvm_major.to_string() {
            return Ok(Some(own));
        }
    }
    let Some(other) = find_in_path("bpf-linker").filter(|linker| runs(linker)) else {
        return Ok(None);
    };
    // A linker with an older LLVM cannot read the compiler's bitcode. It names its LLVM only in its shared libraries;
    // one that is linked statically must be trusted.
    let matches = linked_llvm_major(&other).is_none_or(|major| major == llvm_major);
    Ok(matches.then_some(other))
}

fn runs(linker: &Path) -> bool {
    stdout_of(command(linker).arg("--version")).is_ok()
}

fn linked_llvm_major(binary: &Path) -> Option<u32> {
    let libraries = stdout_of(command("ldd").arg(binary)).ok()?;
    let (_, version) = libraries.split_once("libLLVM")?;
    version
        .trim_start_matches(|c: char| !c.is_ascii_digit())
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

/// Whether the compiler's sysroot has the source that `-Z build-std=core` compiles.
fn has_core_source(rustc: &mut Command) -> bool {
    stdout_of(
        rustc
            .env_remove("LD_LIBRARY_PATH")
            .args(["--print", "sysroot"]),
    )
    .is_ok_and(|sysroot| {
        Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .is_file()
    })
}

fn nightlies() -> Vec<Compiler> {
    let Ok(list) = stdout_of(command("rustup").args(["toolchain", "list"])) else {
        return Vec::new();
    };
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .map(|name| Compiler::Nightly {
            toolchain: name.to_owned(),
        })
        .collect()
}

fn llvm_major(version: &str) -> Option<u32> {
    version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?
        .split('.')
        .next()?
        .parse()
        .ok()
}

fn rustc_version(version: &str) -> Option<(u32, u32)> {
    let mut parts = version
        .lines()
        .find_map(|line| line.strip_prefix("release: "))?
        .split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_compiler() {
        let version = "rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(rustc_version(version), Some((1, 96)));
        assert_eq!(rustc_version("release: 1.97.0-nightly\n"), Some((1, 97)));
        assert_eq!(llvm_major("rustc 1.96.0\n"), None);
    }
}
