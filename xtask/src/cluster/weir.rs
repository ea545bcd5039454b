// SPDX-License-Identifier: Apache-2.0
//! Installs Weir on a cluster that has no network yet, as its documentation says: image, `weir install`, kubectl.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use super::control_plane::kubectl;
use super::node;
use super::place::{API_SERVER, Node, Place};
use crate::process::{command, display, stdout_of};
use crate::{image, workspace};

/// What is installed. Unoptimized: it is built in a fraction of the time, and the tests judge what it does.
#[derive(Debug)]
pub(super) struct Weir {
    image: PathBuf,
    program: PathBuf,
}

impl Weir {
    pub(super) fn build() -> Result<Self> {
        Ok(Self {
            image: image::build(true, image::NAME)?,
            ..Self::built()
        })
    }

    /// What was built before.
    pub(super) fn built() -> Self {
        Self {
            image: image::file(),
            program: workspace::target_dir().join("debug/weir"),
        }
    }

    pub(super) fn install(&self, place: &Place, nodes: u8, settings: &[String]) -> Result<()> {
        for node in Node::all(nodes) {
            node::load(place, node, &self.image)?;
        }
        let mut install = command(&self.program);
        install.args(["install", "--set", &format!("apiServer={API_SERVER}")]);
        for setting in settings {
            install.args(["--set", setting]);
        }
        let manifests = stdout_of(&mut install)?;

        let mut apply = kubectl(place);
        apply
            .args(["apply", "--filename=-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut child = apply
            .spawn()
            .with_context(|| format!("cannot start `{}`", display(&apply)))?;
        child
            .stdin
            .take()
            .context("kubectl has no input")?
            .write_all(manifests.as_bytes())
            .context("kubectl does not read the manifests")?;
        let status = child.wait().context("cannot wait for kubectl")?;
        ensure!(
            status.success(),
            "the API server does not take what `weir install` prints ({status})"
        );
        Ok(())
    }
}
