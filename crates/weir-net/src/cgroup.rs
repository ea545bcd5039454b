// SPDX-License-Identifier: Apache-2.0
//! Finding the cgroup v2 hierarchy, on a machine that is all v2 as well as on one that still mounts v1 beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::{Error, Result};

/// The mount point of the cgroup v2 hierarchy in this mount namespace.
pub fn mount_point() -> Result<PathBuf> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).map_err(|source| Error::kernel("read", path, source))?;
    // A mount may be hidden below a later one; what counts is what is to be seen.
    mount_points(&text)
        .into_iter()
        .rev()
        .find(|point| {
            statfs(point).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
        })
        .ok_or_else(|| Error::NotFound {
            what: "mount of file system",
            object: "cgroup2".to_owned(),
        })
}

/// The directory of this process in the cgroup v2 hierarchy.
pub fn own_directory() -> Result<PathBuf> {
    let path = "/proc/self/cgroup";
    let text = fs::read_to_string(path).map_err(|source| Error::kernel("read", path, source))?;
    let own = text
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    Ok(mount_point()?.join(own))
}

/// Moves the calling process into a cgroup directory.
pub fn join(directory: &Path) -> Result<()> {
    let file = directory.join("cgroup.procs");
    fs::write(&file, "0")
        .map_err(|source| Error::kernel("join cgroup", directory.display().to_string(), source))
}

fn mount_points(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            if file_system.split(' ').next()? != "cgroup2" {
                return None;
            }
            mount
                .split(' ')
                .nth(4)
                .map(|point| PathBuf::from(unescape(point)))
        })
        .collect()
}

/// Undoes the octal escapes of mountinfo (man 5 `proc_pid_mountinfo`).
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (escape, plain)| {
            text.replace(escape, plain)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(mount_points(mountinfo), expected);
    }

    #[test]
    fn cgroup2_is_found_on_unified_and_hybrid_machines() {
        check(
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate",
            &["/sys/fs/cgroup"],
        );
        check(
            "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             40 30 0:35 / /sys/fs/cgroup/uni\\040fied rw,relatime - cgroup2 cgroup2 rw",
            &["/sys/fs/cgroup/uni fied"],
        );
        check(
            "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
            &[],
        );
    }
}
