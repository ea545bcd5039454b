// SPDX-License-Identifier: Apache-2.0
//! An image as one file, in the form that `docker save` writes and every runtime imports: a tar archive of the layer
//! (a tar archive as well), a configuration that names the layer by its digest, and a list that names both.
//!
//! Neither times nor owners of this machine go into it: the same programs give the same bytes.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// How a container of an image starts, unless told otherwise.
pub(crate) struct Start<'a> {
    /// Where programs are found by name.
    pub(crate) path: &'a str,
    pub(crate) entrypoint: &'a [&'a str],
    pub(crate) arguments: &'a [&'a str],
}

/// A file system in the making.
pub(crate) struct Layer(Builder<Vec<u8>>);

impl Default for Layer {
    fn default() -> Self {
        Self(Builder::new(Vec::new()))
    }
}

impl Layer {
    pub(crate) fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        let mut header = header(EntryType::Directory, mode, 0);
        self.0
            .append_data(&mut header, format!("{path}/"), std::io::empty())
            .with_context(|| format!("cannot add {path}"))
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(EntryType::Symlink, 0o777, 0);
        self.0
            .append_link(&mut header, path, target)
            .with_context(|| format!("cannot add {path}"))
    }

    pub(crate) fn program(&mut self, path: &str, content: &[u8]) -> Result<()> {
        add(&mut self.0, path, 0o755, content)
    }

    /// Everything below a folder, in the order of the names.
    pub(crate) fn tree(&mut self, root: &Path) -> Result<()> {
        self.below(root, "")
    }

    fn below(&mut self, folder: &Path, path: &str) -> Result<()> {
        let failed = || format!("cannot read {}", folder.display());
        let mut entries = fs::read_dir(folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .with_context(failed)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = format!("{path}{}", entry.file_name().to_string_lossy());
            let meta = entry.metadata().with_context(failed)?;
            let mode = meta.permissions().mode() & 0o7777;
            if meta.is_symlink() {
                let target = fs::read_link(entry.path()).with_context(failed)?;
                self.link(&path, &target.to_string_lossy())?;
            } else if meta.is_dir() {
                self.folder(&path, mode)?;
                self.below(&entry.path(), &format!("{path}/"))?;
            } else {
                let content = fs::read(entry.path())
                    .with_context(|| format!("cannot read {}", entry.path().display()))?;
                add(&mut self.0, &path, mode, &content)?;
            }
        }
        Ok(())
    }
}

/// Writes the image, whole or not at all.
pub(crate) fn write(file: &Path, names: &[String], start: &Start<'_>, layer: Layer) -> Result<()> {
    let layer = layer.0.into_inner().context("cannot end the layer")?;
    let config = config(&layer, start).to_string();
    let manifest =
        json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]).to_string();

    let new = file.with_extension("tar.new");
    let failed = || format!("cannot write {}", new.display());
    let mut image = Builder::new(File::create(&new).with_context(failed)?);
    add(&mut image, "manifest.json", 0o644, manifest.as_bytes())?;
    add(&mut image, "config.json", 0o644, config.as_bytes())?;
    add(&mut image, "layer.tar", 0o644, &layer)?;
    image.into_inner().with_context(failed)?;
    fs::rename(&new, file).with_context(|| format!("cannot write {}", file.display()))
}

fn config(layer: &[u8], start: &Start<'_>) -> serde_json::Value {
    json!({
        "architecture": architecture(std::env::consts::ARCH),
        "os": "linux",
        "config": {
            "Env": [format!("PATH={}", start.path)],
            "Entrypoint": start.entrypoint,
            "Cmd": start.arguments,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created_by": "cargo xtask image"}],
    })
}

fn digest(layer: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(layer) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Images call architectures as Go does.
fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn add<W: Write>(archive: &mut Builder<W>, path: &str, mode: u32, content: &[u8]) -> Result<()> {
    let size = u64::try_from(content.len()).context("larger than an archive can hold")?;
    archive
        .append_data(&mut header(EntryType::Regular, mode, size), path, content)
        .with_context(|| format!("cannot add {path}"))
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let path = entry.path().unwrap().display().to_string();
            (path, entry.header().mode().unwrap(), content)
        });
        entries.collect()
    }

    #[test]
    fn an_image_names_its_layer_by_digest() {
        let home = std::env::temp_dir().join(format!("weir-image-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        let mut layer = Layer::default();
        layer.folder("tmp", 0o1777).unwrap();
        layer.program("usr/bin/weir", b"runs").unwrap();
        layer.link("usr/bin/cilium", "weir").unwrap();
        let file = home.join("image.tar");
        let names = ["a.example/b:c".to_owned()];
        let start = Start {
            path: "/usr/bin",
            entrypoint: &["/usr/bin/weir"],
            arguments: &[],
        };
        write(&file, &names, &start, layer).unwrap();

        let image = entries(&fs::read(&file).unwrap());
        let [(_, _, manifest), (_, _, config), (_, _, layer)] = &image[..] else {
            panic!("{} entries", image.len());
        };
        let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "a.example/b:c");
        assert_eq!(manifest[0]["Layers"][0], image[2].0);
        let config: serde_json::Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(layer));
        assert_eq!(
            entries(layer),
            [
                ("tmp/".to_owned(), 0o1777, Vec::new()),
                ("usr/bin/weir".to_owned(), 0o755, b"runs".to_vec()),
                ("usr/bin/cilium".to_owned(), 0o777, Vec::new()),
            ]
        );
        fs::remove_dir_all(&home).unwrap();
    }

    #[test]
    fn a_tree_keeps_modes_and_links() {
        let home = std::env::temp_dir().join(format!("weir-tree-{}", std::process::id()));
        fs::create_dir_all(home.join("tmp")).unwrap();
        fs::write(home.join("tmp/b"), "text").unwrap();
        for (path, mode) in [("tmp", 0o1777), ("tmp/b", 0o640)] {
            fs::set_permissions(home.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("tmp/b", home.join("a")).unwrap();
        let mut layer = Layer::default();
        layer.tree(&home).unwrap();
        assert_eq!(
            entries(&layer.0.into_inner().unwrap()),
            [
                ("a".to_owned(), 0o777, Vec::new()),
                ("tmp/".to_owned(), 0o1777, Vec::new()),
                ("tmp/b".to_owned(), 0o640, b"text".to_vec()),
            ]
        );
        fs::remove_dir_all(&home).unwrap();
    }
}
