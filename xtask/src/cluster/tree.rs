// SPDX-License-Identifier: Apache-2.0
//! The file system of an image, gathered from the programs of this machine and the libraries that they need.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process::{command, find_in_path, stdout_of};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// A folder that is to become an image.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty one.
    pub(super) fn empty(root: PathBuf) -> Result<Self> {
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Self { root })
    }

    /// One with the folders and users of a Debian, and busybox under all its names.
    pub(super) fn with_busybox(root: PathBuf) -> Result<Self> {
        let tree = Self::empty(root)?;
        for folder in [
            "dev",
            "etc",
            "proc",
            "root",
            "run",
            "sys",
            "tmp",
            "usr/bin",
            "usr/lib",
            "usr/lib64",
            "usr/local/bin",
            "usr/sbin",
            "var/tmp",
        ] {
            tree.make_folder(folder)?;
        }
        for (link, target) in [
            ("bin", "usr/bin"),
            ("sbin", "usr/sbin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
        ] {
            tree.link(link, target)?;
        }
        for folder in ["tmp", "var/tmp"] {
            fs::set_permissions(tree.root.join(folder), fs::Permissions::from_mode(0o1777))
                .with_context(|| format!("cannot open {folder} to everybody"))?;
        }
        tree.write("etc/passwd", PASSWD)?;
        tree.write("etc/group", GROUP)?;
        tree.write("etc/nsswitch.conf", "hosts: files dns\n")?;
        tree.copy(Path::new("/etc/protocols"), "etc/protocols")?;
        tree.copy(Path::new("/etc/services"), "etc/services")?;

        let busybox = find("busybox")?;
        tree.copy(&busybox, "usr/bin/busybox")?;
        let names = stdout_of(command(&busybox).arg("--list"))?;
        for name in names.lines().filter(|name| *name != "busybox") {
            tree.link(&format!("usr/bin/{name}"), "busybox")?;
        }
        Ok(tree)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn make_folder(&self, path: &str) -> Result<()> {
        fs::create_dir_all(self.root.join(path))
            .with_context(|| format!("cannot make the folder {path} of an image"))
    }

    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        fs::write(self.root.join(path), text)
            .with_context(|| format!("cannot write {path} of an image"))
    }

    /// Copies a file, with its mode, in place of what is there.
    pub(super) fn copy(&self, from: &Path, path: &str) -> Result<()> {
        let to = self.root.join(path);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let _ = fs::remove_file(&to);
        fs::copy(from, &to)
            .map(drop)
            .with_context(|| format!("cannot copy {} into an image", from.display()))
    }

    /// A symbolic link, in place of what is there.
    pub(super) fn link(&self, path: &str, target: &str) -> Result<()> {
        let link = self.root.join(path);
        let _ = fs::remove_file(&link);
        symlink(target, &link).with_context(|| format!("cannot link {path} of an image"))
    }

    /// Adds a program of this machine under its name, and its libraries where they are here.
    pub(super) fn add(&self, name: &str) -> Result<()> {
        self.add_file(&find(name)?, &format!("usr/bin/{name}"))
    }

    /// Adds a program or library under another path, and its libraries where they are here.
    pub(super) fn add_file(&self, file: &Path, path: &str) -> Result<()> {
        let real = file
            .canonicalize()
            .with_context(|| format!("cannot find {}", file.display()))?;
        for library in libraries(&real) {
            let place = usual_place(&library);
            if !self.root.join(&place).exists() {
                self.copy(&library, &place)?;
            }
        }
        self.copy(&real, path)
    }
}

/// Below /usr, where the folders of the root lead.
fn usual_place(file: &Path) -> String {
    let text = file.to_string_lossy();
    let inner = text.trim_start_matches('/');
    if inner.starts_with("usr/") {
        inner.to_owned()
    } else {
        format!("usr/{inner}")
    }
}

/// What the loader would load for a program; nothing for a static one.
fn libraries(program: &Path) -> BTreeSet<PathBuf> {
    stdout_of(command("ldd").arg(program))
        .unwrap_or_default()
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| PathBuf::from(word.trim_end_matches(':')))
        .filter(|file| file != program)
        .collect()
}

/// A program of this machine, those of root included.
fn find(name: &str) -> Result<PathBuf> {
    find_in_path(name)
        .or_else(|| {
            ["/usr/sbin", "/sbin"]
                .iter()
                .map(|folder| Path::new(folder).join(name))
                .find(|file| file.is_file())
        })
        .with_context(|| format!("the test images need the program `{name}`, and it is not there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_lie_below_usr() {
        assert_eq!(
            usual_place(Path::new("/lib64/ld.so.2")),
            "usr/lib64/ld.so.2"
        );
        assert_eq!(usual_place(Path::new("/usr/lib/a.so")), "usr/lib/a.so");
    }
}
