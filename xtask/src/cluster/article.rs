// SPDX-License-Identifier: Apache-2.0
//! `article`: the commands of tests/article against the cluster, from outside of it, as an administrator types them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::network::inside;
use super::pass_through;
use super::place::Place;
use super::programs;
use crate::workspace;

pub(super) fn run(place: &Place) -> Result<()> {
    let kubectl = programs::path("kubectl");
    let mut paths: Vec<PathBuf> = kubectl.parent().map(Path::to_owned).into_iter().collect();
    paths.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let path: OsString =
        env::join_paths(paths).context("a folder of PATH cannot be named in it")?;
    let script = workspace::root().join("tests/article/run.sh");
    pass_through(
        inside(place, "world", "bash")
            .arg(script)
            .env("PATH", path)
            .env("KUBECONFIG", place.kubeconfig("admin")),
    )
}
