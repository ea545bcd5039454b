// SPDX-License-Identifier: Apache-2.0
//! The program at drivers of devices (XDP): links that are pinned like those at interfaces.
//!
//! A device has room for one such program. Forwarding does not depend on it: the programs at the interface do all that
//! it does, later.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;

use weir_abi::IfIndex;

use crate::pinned_link::{self, Attached, Place};
use crate::sys::link::{self, DriverMode, LinkInfo};
use crate::{Datapath, Error, Programs, Result, pins};

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

/// A device's driver, and who runs its program.
pub(crate) struct AtDriver {
    how: Acceleration,
    interface: IfIndex,
}

impl AtDriver {
    fn pin_name(&self) -> String {
        format!("{}-{}", self.how.prefix(), self.interface)
    }

    /// What a link's pin is for; none where the name is not one of such a link.
    pub(crate) fn of_pin(name: &str) -> Option<Self> {
        let (prefix, interface) = name.rsplit_once('-')?;
        let mut all = Acceleration::ALL.into_iter();
        let how = all.find(|how| how.prefix() == prefix)?;
        let interface = IfIndex(interface.parse().ok()?);
        Some(Self { how, interface })
    }

    fn has(&self, info: &LinkInfo) -> bool {
        info.is_at(link::XDP, self.interface)
    }
}

impl Place for AtDriver {
    fn runs(&self, link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
        let info = link::info(link)?;
        Ok(self.has(&info).then_some(info.program))
    }

    fn refused(&self, action: &'static str, source: io::Error) -> Error {
        Error::Link {
            action,
            hook: Programs::AT_DRIVER,
            interface: self.interface,
            source,
        }
    }
}

impl Datapath {
    /// Has a device's driver run the program and pins the link; what Weir had there is updated in place, or replaced
    /// where somebody else is to run it from now on.
    pub fn accelerate(&self, interface: IfIndex, how: Acceleration) -> Result<Attached> {
        for other in Acceleration::ALL.into_iter().filter(|other| *other != how) {
            self.remove(other, interface)?;
        }
        let place = AtDriver { how, interface };
        let pin = self.pin_at_driver(how, interface);
        pinned_link::put(&pin, self.programs.at_driver(), &place, |program| {
            link::create_at_driver(program, interface, how.mode())
                .map_err(|source| place.refused("attach", source))
        })
    }

    /// Takes the program away from a device's driver; answers whether it was there.
    pub fn stop_accelerating(&self, interface: IfIndex) -> Result<bool> {
        let mut found = false;
        for how in Acceleration::ALL {
            found |= self.remove(how, interface)?;
        }
        Ok(found)
    }

    /// Without its pin a link ends some time later; until then the driver takes no other program of another mode.
    fn remove(&self, how: Acceleration, interface: IfIndex) -> Result<bool> {
        let pin = self.pin_at_driver(how, interface);
        let Some(link) = pinned_link::open(&pin)? else {
            return Ok(false);
        };
        let place = AtDriver { how, interface };
        link::detach(link.as_fd()).map_err(|source| place.refused("detach", source))?;
        pins::unpin(&pin).map(|()| true)
    }

    /// All pinned links at drivers.
    pub fn driver_links(&self) -> Result<Vec<DriverLink>> {
        let mut links = Vec::new();
        for name in pins::names_in(&self.root.links())? {
            let Some(place) = AtDriver::of_pin(&name) else {
                continue;
            };
            let Some(open) = pinned_link::open(&self.root.links().join(&name))? else {
                continue;
            };
            let info = link::info(open.as_fd());
            let info = info.map_err(|source| place.refused("inspect", source))?;
            links.push(DriverLink {
                how: place.how,
                interface: place.interface,
                program: info.program,
                alive: place.has(&info),
            });
        }
        Ok(links)
    }

    fn pin_at_driver(&self, how: Acceleration, interface: IfIndex) -> PathBuf {
        self.root
            .links()
            .join(AtDriver { how, interface }.pin_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_pins_are_found_again() {
        let interface = IfIndex(7);
        for how in Acceleration::ALL {
            let name = AtDriver { how, interface }.pin_name();
            let found = AtDriver::of_pin(&name).unwrap();
            assert_eq!((found.how, found.interface), (how, interface));
            assert_eq!(pins::parse_link_name(&name), None);
        }
        assert!(AtDriver::of_pin("from_netdev-7").is_none());
        assert!(AtDriver::of_pin("at_driver-x").is_none());
    }
}
