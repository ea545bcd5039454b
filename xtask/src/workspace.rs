// SPDX-License-Identifier: Apache-2.0
//! Where things lie: the checkout, the target directory, the user's cache.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask/ lies in the checkout")
}

/// The target directory of the workspace.
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The eBPF object that the agent embeds. The path is fixed: `weir-datapath`'s build script looks for it there.
pub(crate) fn bpf_object() -> PathBuf {
    root().join("target/bpf/weir.o")
}

/// What is kept between checkouts: tools that setup built.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            PathBuf::from(env::var_os("HOME").context("neither HOME nor XDG_CACHE_HOME is set")?)
                .join(".cache")
        }
    };
    Ok(base.join("weir"))
}
