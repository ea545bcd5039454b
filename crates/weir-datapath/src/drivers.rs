// SPDX-License-Identifier: Apache-2.0
//! The program at drivers of devices (XDP): links that are pinned like those at interfaces.
//!
//! A device has room for one such program. Forwarding does not depend on it: the programs at the interface do all that
//! it does, later.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use weir_abi::IfIndex;

use crate::loader::Activation;
use crate::sys::link::{self, DriverMode, LinkInfo};
use crate::{Attached, Datapath, Error, Result, pins, sys};

/// Who runs the program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Acceleration {
    /// The driver, before it makes a packet for the kernel; not every driver can.
    Native,
    /// The kernel itself, for devices of every kind. Nothing is gained by it but the path's being tried.
    Generic,
}

impl Acceleration {
    const ALL: [Self; 2] = [Self::Native, Self::Generic];

    /// Its name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// What names of pins start with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Native => "at_driver",
            Self::Generic => "at_driver_generic",
        }
    }

    const fn mode(self) -> DriverMode {
        match self {
            Self::Native => DriverMode::Driver,
            Self::Generic => DriverMode::Generic,
        }
    }
}

/// A pinned link at a device's driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverLink {
    /// Who runs the program.
    pub how: Acceleration,
    /// At which device.
    pub interface: IfIndex,
    /// The kernel's number of the program that runs there.
    pub program: u32,
    /// False once the device is gone.
    pub alive: bool,
}

fn pin_name(how: Acceleration, interface: IfIndex) -> String {
    format!("{}-{interface}", how.prefix())
}

fn parse_pin_name(name: &str) -> Option<(Acceleration, IfIndex)> {
    let (prefix, interface) = name.rsplit_once('-')?;
    let mut all = Acceleration::ALL.into_iter();
    let how = all.find(|how| how.prefix() == prefix)?;
    interface.parse().ok().map(|index| (how, IfIndex(index)))
}

/// Whether a pin is that of a link at a driver.
pub(crate) fn is_pin(name: &str) -> bool {
    parse_pin_name(name).is_some()
}

impl Datapath {
    /// Has a device's driver run the program and pins the link; what Weir had there is updated in place, or replaced
    /// where somebody else is to run it from now on.
    pub fn accelerate(&self, interface: IfIndex, how: Acceleration) -> Result<Attached> {
        for other in Acceleration::ALL.into_iter().filter(|other| *other != how) {
            pins::unpin(&self.root.links().join(pin_name(other, interface)))?;
        }
        let pin = self.root.links().join(pin_name(how, interface));
        if let Some(old) = open(&pin)? {
            match self.replace(&old, interface) {
                Ok(Some(attached)) => return Ok(attached),
                Ok(None) => pins::unpin(&pin)?,
                Err(source) => return Err(refused("update", interface, source)),
            }
        }
        let program = self.programs.at_driver();
        let new = link::create_at_driver(program.as_fd(), interface, how.mode())
            .map_err(|source| refused("attach", interface, source))?;
        sys::pin::pin(new.as_fd(), &pin)
            .map_err(|source| Error::file("pin link at", &pin, source))?;
        Ok(Attached::New)
    }

    /// Takes the program away from a device's driver; answers whether it was there.
    pub fn stop_accelerating(&self, interface: IfIndex) -> Result<bool> {
        let mut found = false;
        for how in Acceleration::ALL {
            let pin = self.root.links().join(pin_name(how, interface));
            found |= pin.exists();
            pins::unpin(&pin)?;
        }
        Ok(found)
    }

    /// All pinned links at drivers.
    pub fn driver_links(&self) -> Result<Vec<DriverLink>> {
        let mut links = Vec::new();
        for name in pins::names_in(&self.root.links())? {
            let Some((how, interface)) = parse_pin_name(&name) else {
                continue;
            };
            let Some(open) = open(&self.root.links().join(&name))? else {
                continue;
            };
            let info =
                link::info(open.as_fd()).map_err(|source| refused("inspect", interface, source))?;
            links.push(DriverLink {
                how,
                interface,
                program: info.program,
                alive: is_alive(&info, interface),
            });
        }
        Ok(links)
    }

    /// Puts the new program into the pinned links at drivers; goes on after failures.
    pub(crate) fn take_over_drivers(&self, activation: &mut Activation) -> Result<()> {
        let names = pins::names_in(&self.root.links())?;
        for name in names.into_iter().filter(|name| is_pin(name)) {
            match self.take_over_driver(&name) {
                Ok(true) => activation.updated.push(name),
                Ok(false) => activation.removed.push(name),
                Err(error) => activation.failed.push(error),
            }
        }
        Ok(())
    }

    /// Whether the link runs the new program now; otherwise it was stale and is removed.
    fn take_over_driver(&self, name: &str) -> Result<bool> {
        let pin = self.root.links().join(name);
        let (Some((_, interface)), Some(old)) = (parse_pin_name(name), open(&pin)?) else {
            return Ok(false);
        };
        match self.replace(&old, interface) {
            Ok(Some(_)) => Ok(true),
            Ok(None) => pins::unpin(&pin).map(|()| false),
            Err(source) => Err(refused("update", interface, source)),
        }
    }

    /// Updates a link unless it is dead (then: none).
    fn replace(&self, old: &OwnedFd, interface: IfIndex) -> io::Result<Option<Attached>> {
        let info = link::info(old.as_fd())?;
        if !is_alive(&info, interface) {
            return Ok(None);
        }
        let program = self.programs.at_driver();
        if info.program == program.id() {
            return Ok(Some(Attached::Unchanged));
        }
        match link::update(old.as_fd(), program.as_fd()) {
            Ok(()) => Ok(Some(Attached::Updated)),
            // The device went away between the two calls.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_alive(info: &LinkInfo, interface: IfIndex) -> bool {
    info.kind == link::XDP && info.interface == interface
}

fn open(pin: &std::path::Path) -> Result<Option<OwnedFd>> {
    match sys::pin::get(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("open pinned link", pin, error)),
    }
}

fn refused(action: &'static str, interface: IfIndex, source: io::Error) -> Error {
    Error::Link {
        action,
        hook: crate::Programs::AT_DRIVER,
        interface,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins_are_found_again() {
        for how in Acceleration::ALL {
            let name = pin_name(how, IfIndex(7));
            assert_eq!(parse_pin_name(&name), Some((how, IfIndex(7))));
            assert_eq!(pins::parse_link_name(&name), None);
        }
        assert!(!is_pin("from_netdev-7"));
        assert!(!is_pin("at_driver-x"));
    }
}
