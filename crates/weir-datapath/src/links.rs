// SPDX-License-Identifier: Apache-2.0
//! Programs at interfaces: tcx links, pinned, so that they outlive the agent and can be updated in place.
//!
//! A link belongs to an interface by its index in the network namespace of the calling thread. When the interface
//! goes away, or moves to another namespace, the kernel detaches the link and its pin becomes stale.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use weir_abi::IfIndex;
use weir_abi::observation::Hook;

use crate::drivers::AtDriver;
use crate::loader::Activation;
use crate::pinned_link::{self, Attached, Place};
use crate::socket_hook::SocketHook;
use crate::sys::link::{self, LinkInfo, Side};
use crate::{Datapath, Error, Result, pins};

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
        let place = AtInterface { hook, interface };
        let pin = self.root.link(hook, interface);
        pinned_link::put(&pin, program, &place, |program| {
            link::create(program, interface, side(hook))
                .map_err(|source| explained(program, &place, source))
        })
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
            let Some(open) = pinned_link::open(&self.root.link(hook, interface))? else {
                continue;
            };
            let place = AtInterface { hook, interface };
            let info = link::info(open.as_fd());
            let info = info.map_err(|source| place.refused("inspect", source))?;
            links.push(LinkState {
                hook,
                interface,
                program: info.program,
                alive: place.has(&info),
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
        let links = self.root.links();
        for name in pins::names_in(&links)? {
            if SocketHook::from_name(&name).is_some() {
                continue;
            }
            let pin = links.join(&name);
            if let Some((hook, interface)) = pins::parse_link_name(&name) {
                let place = AtInterface { hook, interface };
                let program = self.programs.get(hook);
                pinned_link::take_over(&pin, Some(program), &place, activation);
            } else if let Some(place) = AtDriver::of_pin(&name) {
                let program = self.programs.at_driver();
                pinned_link::take_over(&pin, Some(program), &place, activation);
            } else {
                // A program that this version does not have would go on with maps that nobody fills.
                match pins::unpin(&pin) {
                    Ok(()) => activation.removed.push(name),
                    Err(error) => activation.failed.push(error),
                }
            }
        }
        self.take_over_sockets(activation);
        Ok(())
    }
}

/// The traffic of an interface, one way.
struct AtInterface {
    hook: Hook,
    interface: IfIndex,
}

impl AtInterface {
    fn has(&self, info: &LinkInfo) -> bool {
        info.is_at(link::TCX, self.interface)
    }
}

impl Place for AtInterface {
    fn runs(&self, link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
        let info = link::info(link)?;
        Ok(self.has(&info).then_some(info.program))
    }

    fn refused(&self, action: &'static str, source: io::Error) -> Error {
        Error::Link {
            action,
            hook: self.hook.name(),
            interface: self.interface,
            source,
        }
    }
}

/// A kernel without tcx answers `EINVAL` to everything, one with tcx `ENODEV` to an interface that cannot be.
fn explained(program: BorrowedFd<'_>, place: &AtInterface, source: io::Error) -> Error {
    const NOBODY: IfIndex = IfIndex(i32::MAX.cast_unsigned());
    if source.raw_os_error() == Some(libc::EINVAL)
        && let Err(probe) = link::create(program, NOBODY, side(place.hook))
        && probe.raw_os_error() == Some(libc::EINVAL)
    {
        return Error::NoTcx {
            kernel: kernel_release(),
        };
    }
    place.refused("attach", source)
}

fn kernel_release() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
        |_| "unknown".to_owned(),
        |release| release.trim().to_owned(),
    )
}
