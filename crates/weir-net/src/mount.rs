// SPDX-License-Identifier: Apache-2.0
//! Mounts in the mount namespace of the calling thread.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{Error, Result};

/// Cuts the calling mount namespace off from its parent: mounts made here do not show there.
pub fn make_private() -> Result<()> {
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        None::<&str>,
    )
    .map_err(|errno| Error::kernel("make private the mounts below", "/", errno))
}

/// Mounts an own BPF file system.
pub fn bpffs(target: &Path) -> Result<()> {
    mount_new("bpf", target, MsFlags::empty(), Some("mode=0700"))
}

/// Mounts a view of `/sys` that shows the network namespace of the calling thread.
pub fn sysfs(target: &Path) -> Result<()> {
    mount_new("sysfs", target, restricted(), None)
}

/// Mounts a view of `/proc` that shows the PID namespace of the calling process.
pub fn proc(target: &Path) -> Result<()> {
    mount_new("proc", target, restricted(), None)
}

/// Mounts the cgroup v2 hierarchy, rooted at the cgroup namespace of the calling thread.
pub fn cgroup2(target: &Path) -> Result<()> {
    mount_new("cgroup2", target, restricted(), None)
}

/// Mounts an empty file system in memory.
pub fn tmpfs(target: &Path) -> Result<()> {
    mount_new(
        "tmpfs",
        target,
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0755"),
    )
}

/// Mounts `lower` with a writable layer over it.
pub fn overlay(lower: &Path, upper: &Path, work: &Path, target: &Path) -> Result<()> {
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    mount_new("overlay", target, MsFlags::empty(), Some(&options))
}

/// Shows a file, or a directory with what is mounted below it, at another place too.
pub fn bind(source: &Path, target: &Path) -> Result<()> {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
    .map_err(|errno| {
        Error::kernel(
            "bind mount",
            format!("{} at {}", source.display(), target.display()),
            errno,
        )
    })
}

/// Takes away whatever is mounted at a place, at once even when it is in use.
pub fn unmount(target: &Path) -> Result<()> {
    umount2(target, MntFlags::MNT_DETACH)
        .map_err(|errno| Error::kernel("unmount", target.display().to_string(), errno))
}

fn restricted() -> MsFlags {
    MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC
}

fn mount_new(
    kind: &'static str,
    target: &Path,
    flags: MsFlags,
    options: Option<&str>,
) -> Result<()> {
    mount(Some(kind), target, Some(kind), flags, options)
        .map_err(|errno| Error::kernel("mount", format!("{kind} at {}", target.display()), errno))
}
