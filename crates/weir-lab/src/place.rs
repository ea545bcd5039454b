// SPDX-License-Identifier: Apache-2.0
//! Where a lab keeps what it makes: one folder and one cgroup directory, so that `down` needs no memory.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::object::is_dns_label;

/// The environment variable that moves the folder of all labs.
const ROOT_VARIABLE: &str = "WEIR_LAB_DIR";
const ROOT_DEFAULT: &str = "/run/weir/labs";
const CGROUP_PREFIX: &str = "weir-lab-";

/// The places of one lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    name: String,
    folder: PathBuf,
}

impl Place {
    /// The places of the lab with a name.
    pub(crate) fn of(name: &str) -> Result<Self> {
        ensure!(
            is_dns_label(name) && name.len() <= 32,
            "`{name}` is not the name of a lab (at most 32 lower-case letters, digits and dashes)"
        );
        Ok(Self {
            name: name.to_owned(),
            folder: root().join(name),
        })
    }

    /// Every lab below this root that has left a folder or a cgroup on this machine.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let mut names: Vec<String> = entries(&root())?;
        let suffix = root_suffix();
        for entry in entries(&weir_net::cgroup::mount_point()?)? {
            let name = entry
                .strip_prefix(CGROUP_PREFIX)
                .and_then(|rest| rest.strip_suffix(&suffix));
            // A name is a DNS label, so what holds the mark of another root is none of ours.
            names.extend(
                name.filter(|name| is_dns_label(name))
                    .map(ToOwned::to_owned),
            );
        }
        names.sort();
        names.dedup();
        names.iter().map(|name| Self::of(name)).collect()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("lab.sock")
    }

    pub(crate) fn daemon_log(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    /// The folder that agents read the cluster's objects from.
    pub(crate) fn objects(&self) -> PathBuf {
        self.folder.join("objects")
    }

    /// The folder with the `weir` and `cilium` commands.
    pub(crate) fn commands(&self) -> PathBuf {
        self.folder.join("bin")
    }

    pub(crate) fn node(&self, name: &str) -> PathBuf {
        self.folder.join("nodes").join(short(name))
    }

    pub(crate) fn pod(&self, namespace: &str, name: &str) -> PathBuf {
        self.folder
            .join("pods")
            .join(short(&format!("{namespace}_{name}")))
    }

    /// The lab's cgroup directory, which may not exist.
    pub(crate) fn cgroup(&self) -> Result<PathBuf> {
        let directory = format!("{CGROUP_PREFIX}{}{}", self.name, root_suffix());
        Ok(weir_net::cgroup::mount_point()?.join(directory))
    }

    /// Ends every process of the lab and removes its cgroups and its folder. Does all it can before it complains.
    pub(crate) fn remove(&self) -> Result<bool> {
        let cgroup = self.cgroup()?;
        let existed = cgroup.exists() || self.folder.exists();
        let ended = end_processes(&cgroup);
        let removed = remove_cgroups(&cgroup)
            .with_context(|| format!("cannot remove cgroup {}", cgroup.display()));
        let folder = match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.folder.display()))
            }
            _ => Ok(()),
        };
        ended.and(removed).and(folder)?;
        // The folder of all labs goes with the last one; until then it is not empty. The one above stays: nodes of labs
        // elsewhere mount their own there, and to remove a folder takes what is mounted on it away from everybody.
        let _ = fs::remove_dir(root());
        Ok(existed)
    }
}

fn root() -> PathBuf {
    std::env::var_os(ROOT_VARIABLE).map_or_else(|| ROOT_DEFAULT.into(), PathBuf::from)
}

/// Labs of one name below different roots are different labs, so their cgroups have different names.
fn root_suffix() -> String {
    let root = root();
    if root == Path::new(ROOT_DEFAULT) {
        return String::new();
    }
    format!("@{:016x}", hash(&root.to_string_lossy()))
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Names become parts of socket paths, which the kernel limits to 107 bytes.
fn short(name: &str) -> String {
    const LIMIT: usize = 40;
    if name.len() <= LIMIT {
        return name.to_owned();
    }
    // The hash keeps names apart that share their beginning.
    let head: String = name.chars().take(LIMIT - 17).collect();
    format!("{head}-{:016x}", hash(name))
}

fn entries(directory: &Path) -> Result<Vec<String>> {
    let listing = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.with_context(|| format!("cannot read {}", directory.display()))?,
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

/// Kills every process below a cgroup directory and waits until they are gone.
pub(crate) fn end_processes(cgroup: &Path) -> Result<()> {
    match fs::write(cgroup.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => {
            result.with_context(|| format!("cannot kill the processes of {}", cgroup.display()))?;
        }
    }
    let mut events = File::open(cgroup.join("cgroup.events"))?;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut text = String::new();
        io::Seek::rewind(&mut events)?;
        match events.read_to_string(&mut text) {
            // Somebody else has removed the cgroup meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
            result => drop(result?),
        }
        if text.contains("populated 0") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("processes of {} do not end", cgroup.display());
        }
        // The kernel raises a priority event when the file changes (cgroup-v2.rst).
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        match poll(
            &mut fds,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
        ) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Removes a cgroup directory with everything below it, deepest first.
pub(crate) fn remove_cgroups(cgroup: &Path) -> io::Result<()> {
    let listing = match fs::read_dir(cgroup) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listing => listing?,
    };
    for entry in listing {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroups(&entry.path())?;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::remove_dir(cgroup) {
            // The last process counts as gone a moment before its zombie lets go of the directory.
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_labs_are_refused() {
        assert!(Place::of("lab").is_ok());
        for name in ["", "..", "a/b", "Lab", &"a".repeat(33)] {
            assert!(Place::of(name).is_err(), "{name}");
        }
    }

    #[test]
    fn long_names_get_short_folders_that_stay_apart() {
        let (a, b) = ("x".repeat(80) + "a", "x".repeat(80) + "b");
        assert_eq!(short("n1"), "n1");
        assert!(short(&a).len() <= 40 && short(&a) != short(&b));
    }
}
