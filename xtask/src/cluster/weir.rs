// SPDX-License-Identifier: Apache-2.0
//! Installs Weir on a cluster that has no network yet, as its documentation says: image, `weir install`, kubectl.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::control_plane::kubectl;
use super::node;
use super::place::{API_SERVER, Node, Place};
use crate::process::{command, feed, stdout_of};
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
        apply.args(["apply", "--filename=-"]);
        feed(&mut apply, &manifests)
            .map(drop)
            .context("the API server does not take what `weir install` prints")
    }
}
