// SPDX-License-Identifier: Apache-2.0
//! Programs at sockets: links at the node's cgroup, pinned like those at interfaces.
//!
//! A link at a cgroup sees the sockets of every process in it and below it: of the node's own programs and of its
//! pods. It lives as long as its pin and the cgroup.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::loader::{Activation, Program};
use crate::socket_hook::SocketHook;
use crate::sys::link;
use crate::{Attached, Datapath, Error, Result, pins, sys};

/// A pinned link at a cgroup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketLink {
    /// Which of the programs.
    pub hook: SocketHook,
    /// The kernel's number of the program that runs there.
    pub program: u32,
    /// Inode of the cgroup's directory; 0 once the cgroup is gone.
    pub cgroup: u64,
}

/// A cgroup that programs are attached to.
struct Cgroup<'a> {
    path: &'a Path,
    directory: File,
    id: u64,
}

impl Cgroup<'_> {
    fn open(path: &Path) -> Result<Cgroup<'_>> {
        let failed = |source| Error::file("open cgroup", path, source);
        let directory = File::open(path).map_err(failed)?;
        let id = directory.metadata().map_err(failed)?.ino();
        Ok(Cgroup {
            path,
            directory,
            id,
        })
    }
}

impl Datapath {
    /// Puts every socket program that the object has at a cgroup and pins the links; what Weir had there is updated in
    /// place. Answers what was not there, or not as it should be, before.
    pub fn attach_sockets(&self, cgroup: &Path) -> Result<Vec<(SocketHook, Attached)>> {
        let cgroup = Cgroup::open(cgroup)?;
        let mut done = Vec::new();
        for &hook in SocketHook::ALL {
            if let Some(program) = self.programs.socket(hook) {
                let attached = self.attach_socket(hook, program, &cgroup)?;
                if attached != Attached::Unchanged {
                    done.push((hook, attached));
                }
            }
        }
        Ok(done)
    }

    fn attach_socket(
        &self,
        hook: SocketHook,
        program: &Program,
        cgroup: &Cgroup<'_>,
    ) -> Result<Attached> {
        let refused = |action, source| Error::Socket {
            action,
            hook: hook.name(),
            cgroup: cgroup.path.to_owned(),
            source,
        };
        let pin = self.root.links().join(hook.name());
        if let Some(old) = open(&pin)? {
            match replace(&old, program, Some(cgroup.id)) {
                Ok(Some(attached)) => return Ok(attached),
                Ok(None) => pins::unpin(&pin)?,
                Err(source) => return Err(refused("update", source)),
            }
        }
        let new = link::create_at_cgroup(program.as_fd(), cgroup.directory.as_fd(), hook.call())
            .map_err(|source| refused("attach", source))?;
        sys::pin::pin(new.as_fd(), &pin)
            .map_err(|source| Error::file("pin link at", &pin, source))?;
        Ok(Attached::New)
    }

    /// Takes the socket programs away; answers how many there were.
    pub fn detach_sockets(&self) -> Result<usize> {
        let mut detached = 0;
        for &hook in SocketHook::ALL {
            let pin = self.root.links().join(hook.name());
            if pin.exists() {
                pins::unpin(&pin)?;
                detached += 1;
            }
        }
        Ok(detached)
    }

    /// All pinned links at cgroups.
    pub fn socket_links(&self) -> Result<Vec<SocketLink>> {
        let mut links = Vec::new();
        for &hook in SocketHook::ALL {
            let pin = self.root.links().join(hook.name());
            if let Some(open) = open(&pin)? {
                let info = link::cgroup_info(open.as_fd())
                    .map_err(|source| Error::file("inspect link", &pin, source))?;
                links.push(SocketLink {
                    hook,
                    program: info.program,
                    cgroup: info.cgroup,
                });
            }
        }
        Ok(links)
    }

    /// Puts the new program into one pinned link; false: the link was stale and is removed.
    pub(crate) fn take_over_socket(&self, hook: SocketHook) -> Result<bool> {
        let pin = self.root.links().join(hook.name());
        let Some(old) = open(&pin)? else {
            return Ok(false);
        };
        // A program that this version does not have would go on with maps that nobody fills.
        let Some(program) = self.programs.socket(hook) else {
            return pins::unpin(&pin).map(|()| false);
        };
        match replace(&old, program, None) {
            Ok(Some(_)) => Ok(true),
            Ok(None) => pins::unpin(&pin).map(|()| false),
            Err(source) => Err(Error::file("update link", &pin, source)),
        }
    }

    /// Puts the programs into the pinned links at cgroups; goes on after failures.
    pub(crate) fn take_over_sockets(&self, activation: &mut Activation) {
        for &hook in SocketHook::ALL {
            if !self.root.links().join(hook.name()).exists() {
                continue;
            }
            match self.take_over_socket(hook) {
                Ok(true) => activation.updated.push(hook.name().to_owned()),
                Ok(false) => activation.removed.push(hook.name().to_owned()),
                Err(error) => activation.failed.push(error),
            }
        }
    }
}

/// Updates a link unless it is dead or at another cgroup than the one wanted (then: none).
fn replace(old: &OwnedFd, program: &Program, cgroup: Option<u64>) -> io::Result<Option<Attached>> {
    let info = link::cgroup_info(old.as_fd())?;
    let elsewhere = cgroup.is_some_and(|wanted| wanted != info.cgroup);
    if info.kind != link::CGROUP || info.cgroup == 0 || elsewhere {
        return Ok(None);
    }
    if info.program == program.id() {
        return Ok(Some(Attached::Unchanged));
    }
    match link::update(old.as_fd(), program.as_fd()) {
        Ok(()) => Ok(Some(Attached::Updated)),
        // The cgroup went away between the two calls.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(pin: &Path) -> Result<Option<OwnedFd>> {
    match sys::pin::get(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("open pinned link", pin, error)),
    }
}
