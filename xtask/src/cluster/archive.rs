// SPDX-License-Identifier: Apache-2.0
//! Writes a container image with one layer, in the form that `docker save` writes and containerd imports: a tar of
//! `manifest.json`, the configuration, and the layer as a tar of its own.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::process::{command, stdout_of};

/// An image, apart from its files.
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub(super) names: Vec<String>,
    pub(super) entrypoint: &'a [&'a str],
    pub(super) arguments: &'a [&'a str],
}

impl Image<'_> {
    /// Packs the folder `root` into `file`; files belong to root and have no date, so that equal folders make equal
    /// images.
    pub(super) fn write(&self, root: &Path, file: &Path) -> Result<()> {
        let parts = file.with_extension("parts");
        fs::create_dir_all(&parts).with_context(|| format!("cannot make {}", parts.display()))?;
        let layer = parts.join("layer.tar");
        tar(root, &layer, ".")?;
        let digest = stdout_of(command("sha256sum").arg(&layer))?;
        let digest = digest.split(' ').next().unwrap_or_default();
        write_json(&parts.join("config.json"), &self.configuration(digest))?;
        write_json(
            &parts.join("manifest.json"),
            &json!([{"Config": "config.json", "RepoTags": self.names, "Layers": ["layer.tar"]}]),
        )?;
        let fresh = file.with_extension("new");
        tar(&parts, &fresh, "manifest.json config.json layer.tar")?;
        fs::rename(&fresh, file).with_context(|| format!("cannot write {}", file.display()))?;
        fs::remove_dir_all(&parts).with_context(|| format!("cannot remove {}", parts.display()))
    }

    fn configuration(&self, digest: &str) -> Value {
        // What Rust calls x86_64 has another name in Go.
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": self.entrypoint,
                "Cmd": self.arguments,
                "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        })
    }
}

fn tar(folder: &Path, file: &Path, members: &str) -> Result<()> {
    let mut tar = command("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"])
        .args(["--sort=name", "--format=gnu", "-cf"])
        .arg(file)
        .arg("-C")
        .arg(folder)
        .args(members.split(' '));
    stdout_of(&mut tar).map(drop)
}

fn write_json(file: &Path, value: &Value) -> Result<()> {
    fs::write(file, value.to_string()).with_context(|| format!("cannot write {}", file.display()))
}
