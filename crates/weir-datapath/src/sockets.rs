// SPDX-License-Identifier: Apache-2.0
//! Programs at sockets: links at the node's cgroup, pinned like those at interfaces.
//!
//! A link at a cgroup sees the sockets of every process in it and below it: of the node's own programs and of its
//! pods. It lives as long as its pin and the cgroup.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::loader::{Activation, Program};
use crate::pinned_link::{self, Attached, Place};
use crate::socket_hook::SocketHook;
use crate::sys::link;
use crate::{Datapath, Error, Result, pins};

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
        let place = AtCgroup {
            hook,
            cgroup: Some(cgroup),
        };
        let pin = self.root.links().join(hook.name());
        pinned_link::put(&pin, program, &place, |program| {
            link::create_at_cgroup(program, cgroup.directory.as_fd(), hook.call())
                .map_err(|source| place.refused("attach", source))
        })
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
            if let Some(open) = pinned_link::open(&pin)? {
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

    /// Puts the programs into the pinned links at cgroups; goes on after failures.
    pub(crate) fn take_over_sockets(&self, activation: &mut Activation) {
        for &hook in SocketHook::ALL {
            let pin = self.root.links().join(hook.name());
            let place = AtCgroup { hook, cgroup: None };
            pinned_link::take_over(&pin, self.programs.socket(hook), &place, activation);
        }
    }
}

/// The sockets of a cgroup: of this one, or of whichever a link is at.
struct AtCgroup<'a> {
    hook: SocketHook,
    cgroup: Option<&'a Cgroup<'a>>,
}

impl Place for AtCgroup<'_> {
    fn runs(&self, link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
        let info = link::cgroup_info(link)?;
        let elsewhere = self.cgroup.is_some_and(|wanted| wanted.id != info.cgroup);
        let dead = info.kind != link::CGROUP || info.cgroup == 0;
        Ok((!dead && !elsewhere).then_some(info.program))
    }

    fn refused(&self, action: &'static str, source: io::Error) -> Error {
        Error::Socket {
            action,
            hook: self.hook.name(),
            cgroup: self.cgroup.map_or_else(
                || PathBuf::from("(pinned)"),
                |cgroup| cgroup.path.to_owned(),
            ),
            source,
        }
    }
}
