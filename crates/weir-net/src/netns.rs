// SPDX-License-Identifier: Apache-2.0
//! Namespaces: holding one, running code in one, making new ones, entering those of a process.
//!
//! A namespace belongs to a thread. `run_in` therefore uses a thread of its own, which ends with the closure: there
//! is nothing to restore and no way to leave a pooled thread in the wrong namespace.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    thread,
};

use nix::sched::CloneFlags;

use crate::{Error, Result};

/// A handle on a network namespace; the namespace lives at least as long as the handle.
#[derive(Debug)]
pub struct NetNamespace {
    file: File,
    path: PathBuf,
}

impl NetNamespace {
    /// Opens the namespace behind a path such as `/proc/PID/ns/net`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = File::open(&path).map_err(|source| {
            Error::kernel("open network namespace", path.display().to_string(), source)
        })?;
        Ok(Self { file, path })
    }

    /// The namespace that the calling thread is in.
    pub fn current() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace of a process.
    pub fn of_process(pid: u32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The path that it was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's number of the namespace; equal numbers are the same namespace while both handles are open.
    pub fn inode(&self) -> Result<u64> {
        self.file
            .metadata()
            .map(|metadata| metadata.ino())
            .map_err(|source| {
                Error::kernel(
                    "inspect network namespace",
                    self.path.display().to_string(),
                    source,
                )
            })
    }

    /// The number by which programs at sockets know the namespace.
    pub fn cookie(&self) -> Result<u64> {
        self.run_in(socket_cookie)?.map_err(|source| {
            let path = self.path.display().to_string();
            Error::kernel("inspect network namespace", path, source)
        })
    }

    /// Runs a closure on a thread of its own inside the namespace and returns what it returned.
    pub fn run_in<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        self.run_beside(body, || ()).0
    }

    /// The same, while the calling thread does something else, where it is.
    pub fn run_beside<T: Send, U>(
        &self,
        inside: impl FnOnce() -> T + Send,
        outside: impl FnOnce() -> U,
    ) -> (Result<T>, U) {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter_thread()?;
                Ok(inside())
            });
            let done = outside();
            match thread.join() {
                Ok(result) => (result, done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn enter_thread(&self) -> Result<()> {
        set_namespace(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| {
            Error::kernel(
                "enter network namespace",
                self.path.display().to_string(),
                errno,
            )
        })
    }
}

impl AsFd for NetNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for NetNamespace {
    fn as_raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}

/// The kinds of namespace that Weir makes or enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Interfaces, routes, sockets.
    Network,
    /// The file system tree.
    Mount,
    /// The host name.
    Uts,
    /// Process ids; takes effect for children only.
    Pid,
    /// The root of the cgroup hierarchy, as far as it is visible.
    Cgroup,
}

impl Namespace {
    fn flag(self) -> CloneFlags {
        match self {
            Self::Network => CloneFlags::CLONE_NEWNET,
            Self::Mount => CloneFlags::CLONE_NEWNS,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Pid => CloneFlags::CLONE_NEWPID,
            Self::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        }
    }
}

/// Moves the calling thread into new namespaces. A new mount namespace is cut off from its parent at once.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is where namespaces are changed"
)]
pub fn enter_new(namespaces: &[Namespace]) -> Result<()> {
    nix::sched::unshare(flags(namespaces))
        .map_err(|errno| Error::kernel("make namespaces", format!("{namespaces:?}"), errno))?;
    if namespaces.contains(&Namespace::Mount) {
        crate::mount::make_private()?;
    }
    Ok(())
}

/// Moves the calling thread into namespaces of a running process.
///
/// With [`Namespace::Mount`] the thread stops sharing its working directory with other threads and starts at `/`.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is where namespaces are changed"
)]
pub fn enter_process(pid: u32, namespaces: &[Namespace]) -> Result<()> {
    let failed = |errno| Error::kernel("enter namespaces of process", pid.to_string(), errno);
    let process = open_process(pid)?;
    if namespaces.contains(&Namespace::Mount) {
        // A thread may change its mount namespace only while it shares root and working directory with no other
        // thread (man 2 setns).
        nix::sched::unshare(CloneFlags::CLONE_FS).map_err(failed)?;
    }
    set_namespace(process.as_fd(), flags(namespaces)).map_err(failed)
}

/// The number by which programs at sockets know the namespace that the calling thread is in.
pub fn current_cookie() -> Result<u64> {
    socket_cookie()
        .map_err(|source| Error::kernel("inspect network namespace", "of this thread", source))
}

/// `SO_NETNS_COOKIE`, which any socket can tell.
fn socket_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or_default();
    // SAFETY: `cookie` has room for the `length` bytes that the kernel may write.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            std::ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn open_process(pid: u32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and no pointer.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let errno = io::Error::last_os_error();
    match i32::try_from(fd) {
        // SAFETY: the kernel has just returned this descriptor, so nobody else owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Error::kernel("open process", pid.to_string(), errno)),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this module is where namespaces are changed"
)]
fn set_namespace(fd: BorrowedFd<'_>, flags: CloneFlags) -> nix::Result<()> {
    nix::sched::setns(fd, flags)
}

fn flags(namespaces: &[Namespace]) -> CloneFlags {
    namespaces
        .iter()
        .map(|namespace| namespace.flag())
        .collect()
}
