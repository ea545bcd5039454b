// SPDX-License-Identifier: Apache-2.0
//! Programs at interfaces: tcx links, pinned, so that they outlive the agent and can be updated in place.
//!
//! A link belongs to an interface by its index in the network namespace of the calling thread. When the interface
//! goes away, or moves to another namespace, the kernel detaches the link and its pin becomes stale.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use weir_abi::IfIndex;
use weir_abi::observation::Hook;

use crate::loader::{Activation, Program};
use crate::socket_hook::SocketHook;
use crate::sys::link::{self, LinkInfo, Side};
use crate::{Datapath, Error, Result, drivers, pins, sys};

/// How a program came to be at an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attached {
    /// It was not there before.
    New,
    /// Another program was there and was replaced without a gap.
    Updated,
    /// This very program was there already.
    Unchanged,
}

/// A pinned link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkState {
    /// Which of the programs.
    pub hook: Hook,
    /// At which interface.
    pub interface: IfIndex,
    /// The kernel's number of the program that runs there.
    pub program: u32,
    /// False once the interface is gone.
    pub alive: bool,
}

/// Which way the packets of a hook pass.
const fn side(hook: Hook) -> Side {
    match hook {
        Hook::FromContainer | Hook::FromNetdev => Side::Ingress,
        Hook::ToNetdev | Hook::FromHost => Side::Egress,
    }
}

impl Datapath {
    /// Puts the program of a hook at an interface and pins the link. Whatever Weir had there is updated in place.
    pub fn attach(&self, hook: Hook, interface: IfIndex) -> Result<Attached> {
        let program = self.programs.get(hook);
        let pin = self.root.link(hook, interface);
        if let Some(old) = open(&pin, hook, interface)? {
            match replace(&old, program, interface) {
                Ok(Some(attached)) => return Ok(attached),
                Ok(None) => pins::unpin(&pin)?,
                Err(source) => return Err(refused("update", hook, interface, source)),
            }
        }
        let new = link::create(program.as_fd(), interface, side(hook))
            .map_err(|source| explained(program, hook, interface, source))?;
        sys::pin::pin(new.as_fd(), &pin)
            .map_err(|source| Error::file("pin link at", &pin, source))?;
        Ok(Attached::New)
    }

    /// Takes every program of Weir away from an interface; answers how many there were.
    pub fn detach(&self, interface: IfIndex) -> Result<usize> {
        let mut detached = 0;
        for &hook in Hook::ALL {
            let pin = self.root.link(hook, interface);
            if pin.exists() {
                // The pin is the last thing that holds the link.
                pins::unpin(&pin)?;
                detached += 1;
            }
        }
        Ok(detached)
    }

    /// All pinned links.
    pub fn links(&self) -> Result<Vec<LinkState>> {
        let mut links = Vec::new();
        for name in pins::names_in(&self.root.links())? {
            let Some((hook, interface)) = pins::parse_link_name(&name) else {
                continue;
            };
            let Some(open) = open(&self.root.link(hook, interface), hook, interface)? else {
                continue;
            };
            let info = inspect(&open, hook, interface)?;
            links.push(LinkState {
                hook,
                interface,
                program: info.program,
                alive: is_alive(&info, interface),
            });
        }
        Ok(links)
    }

    /// Removes the pins of links whose interface is gone; answers their names.
    pub fn remove_stale_links(&self) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for state in self.links()?.into_iter().filter(|state| !state.alive) {
            pins::unpin(&self.root.link(state.hook, state.interface))?;
            removed.push(pins::link_name(state.hook, state.interface));
        }
        Ok(removed)
    }

    /// Puts the programs into every pinned link; goes on after failures.
    pub(crate) fn take_over_links(&self, activation: &mut Activation) -> Result<()> {
        let names = pins::names_in(&self.root.links())?;
        let at_interface =
            |name: &&String| SocketHook::from_name(name).is_none() && !drivers::is_pin(name);
        for name in names.iter().filter(at_interface).cloned() {
            match self.take_over(&name) {
                Ok(true) => activation.updated.push(name),
                Ok(false) => activation.removed.push(name),
                Err(error) => activation.failed.push(error),
            }
        }
        self.take_over_sockets(activation);
        self.take_over_drivers(activation)
    }

    /// Whether the link runs the new program now; otherwise it was stale and is removed.
    fn take_over(&self, name: &str) -> Result<bool> {
        let pin = self.root.links().join(name);
        // A program that this version does not have would go on with maps that nobody fills.
        let Some((hook, interface)) = pins::parse_link_name(name) else {
            return pins::unpin(&pin).map(|()| false);
        };
        let Some(old) = open(&pin, hook, interface)? else {
            return Ok(false);
        };
        match replace(&old, self.programs.get(hook), interface) {
            Ok(Some(_)) => Ok(true),
            Ok(None) => pins::unpin(&pin).map(|()| false),
            Err(source) => Err(refused("update", hook, interface, source)),
        }
    }
}

/// Updates a link unless it is dead (then: none).
fn replace(old: &OwnedFd, program: &Program, interface: IfIndex) -> io::Result<Option<Attached>> {
    let info = link::info(old.as_fd())?;
    if !is_alive(&info, interface) {
        return Ok(None);
    }
    if info.program == program.id() {
        return Ok(Some(Attached::Unchanged));
    }
    match link::update(old.as_fd(), program.as_fd()) {
        Ok(()) => Ok(Some(Attached::Updated)),
        // The interface went away between the two calls.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_alive(info: &LinkInfo, interface: IfIndex) -> bool {
    info.kind == link::TCX && info.interface == interface
}

fn open(pin: &Path, hook: Hook, interface: IfIndex) -> Result<Option<OwnedFd>> {
    match sys::pin::get(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused("open the pinned link of", hook, interface, error)),
    }
}

fn inspect(open: &OwnedFd, hook: Hook, interface: IfIndex) -> Result<LinkInfo> {
    link::info(open.as_fd()).map_err(|source| refused("inspect", hook, interface, source))
}

fn refused(action: &'static str, hook: Hook, interface: IfIndex, source: io::Error) -> Error {
    Error::Link {
        action,
        hook: hook.name(),
        interface,
        source,
    }
}

/// A kernel without tcx answers `EINVAL` to everything, one with tcx `ENODEV` to an interface that cannot be.
fn explained(program: &Program, hook: Hook, interface: IfIndex, source: io::Error) -> Error {
    const NOBODY: IfIndex = IfIndex(i32::MAX.cast_unsigned());
    if source.raw_os_error() == Some(libc::EINVAL)
        && let Err(probe) = link::create(program.as_fd(), NOBODY, side(hook))
        && probe.raw_os_error() == Some(libc::EINVAL)
    {
        return Error::NoTcx {
            kernel: kernel_release(),
        };
    }
    refused("attach", hook, interface, source)
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
        |_| "unknown".to_owned(),
        |release| release.trim().to_owned(),
    )
}
