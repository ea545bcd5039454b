// SPDX-License-Identifier: Apache-2.0
//! Where things are pinned: `<root>/v<ABI_VERSION>/maps/<map>`, `<root>/links/<hook>-<interface index>` (also for
//! drivers) and `<root>/links/<socket call>`.
//!
//! Names hold no dot: the BPF file system reserves them (`bpf_lookup`).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use weir_abi::observation::Hook;
use weir_abi::{ABI_VERSION, IfIndex};

use crate::{Error, Result};

/// `BPF_FS_MAGIC`
const BPF_FS: i64 = 0xcafe_4a11;

/// The directory below which one node's maps and links are pinned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PinRoot(PathBuf);

impl Default for PinRoot {
    fn default() -> Self {
        Self::new("/sys/fs/bpf/weir")
    }
}

impl PinRoot {
    /// A directory on a BPF file system; it is made when it is needed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The maps of this version.
    pub fn maps(&self) -> PathBuf {
        self.0.join(version_directory()).join("maps")
    }

    /// One map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// The map that takes the place of [`Self::map`] when the new programs take over.
    pub(crate) fn successor(&self, name: &str) -> PathBuf {
        self.maps().join(format!("{name}-new"))
    }

    /// The links of all versions.
    pub fn links(&self) -> PathBuf {
        self.0.join("links")
    }

    /// One link.
    pub fn link(&self, hook: Hook, interface: IfIndex) -> PathBuf {
        self.links().join(link_name(hook, interface))
    }

    /// Makes the directories, and makes sure that they can hold pins.
    pub(crate) fn prepare(&self) -> Result<()> {
        for directory in [self.maps(), self.links()] {
            fs::create_dir_all(&directory)
                .map_err(|source| Error::file("make directory", &directory, source))?;
        }
        match is_bpf_file_system(&self.0) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::NotBpfFileSystem {
                path: self.0.clone(),
            }),
            Err(source) => Err(Error::file("inspect", &self.0, source)),
        }
    }

    /// Directories of other versions of the maps.
    pub(crate) fn other_versions(&self) -> Result<Vec<PathBuf>> {
        let own = version_directory();
        let names = names_in(&self.0)?;
        Ok(names
            .into_iter()
            .filter(|name| *name != own && is_version(name))
            .map(|name| self.0.join(name))
            .collect())
    }
}

fn version_directory() -> String {
    format!("v{ABI_VERSION}")
}

fn is_version(name: &str) -> bool {
    name.strip_prefix('v')
        .is_some_and(|number| number.parse::<u16>().is_ok())
}

/// The name of a link's pin.
pub(crate) fn link_name(hook: Hook, interface: IfIndex) -> String {
    format!("{}-{interface}", hook.name())
}

/// What a link's pin is for; none where the name is not one of this version's.
pub(crate) fn parse_link_name(name: &str) -> Option<(Hook, IfIndex)> {
    let (hook, interface) = name.rsplit_once('-')?;
    let hook = Hook::ALL
        .iter()
        .copied()
        .find(|known| known.name() == hook)?;
    interface.parse().ok().map(|index| (hook, IfIndex(index)))
}

/// The names in a directory, sorted; none where it does not exist.
pub(crate) fn names_in(directory: &Path) -> Result<Vec<String>> {
    let failed = |source| Error::file("read directory", directory, source);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(
            entry
                .map_err(failed)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    Ok(names)
}

/// Removes a pin; that it is gone already is no error.
pub(crate) fn unpin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("remove", path, error))
        }
        _ => Ok(()),
    }
}

fn is_bpf_file_system(path: &Path) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path ends with a zero byte, `found` has room for the answer.
    if unsafe { libc::statfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statfs succeeded and filled it.
    let found = unsafe { found.assume_init() };
    Ok(found.f_type == BPF_FS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links_are_read_as_they_are_written() {
        for &hook in Hook::ALL {
            let name = link_name(hook, IfIndex(7));
            assert!(!name.contains('.'));
            assert_eq!(parse_link_name(&name), Some((hook, IfIndex(7))));
        }
        for foreign in [
            "",
            "from_container",
            "from_container-eth0",
            "nobody-7",
            "-7",
        ] {
            assert_eq!(parse_link_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn directories_of_versions_are_told_from_others() {
        for (name, version) in [("v1", true), ("v12", true), ("v", false), ("links", false)] {
            assert_eq!(is_version(name), version, "{name}");
        }
    }
}
