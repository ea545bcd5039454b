// SPDX-License-Identifier: Apache-2.0
//! The program at the drivers of the underlay devices.

use weir_abi::IfIndex;
use weir_datapath::{Acceleration, Attached, Datapath};
use weir_net::Link;

use super::Core;
use crate::config::LoadBalancerAcceleration;
use crate::error::chain;

impl Core {
    /// The program at the driver of every underlay device, and at no other, as the configuration wants it.
    pub(super) fn accelerate(&mut self) {
        let Some(kernel) = self.kernel.as_ref().filter(|kernel| kernel.active) else {
            return;
        };
        let datapath = &kernel.datapath;
        let wanted = self.shared.config.load_balancer_acceleration;
        let (how, demanded) = match wanted {
            LoadBalancerAcceleration::Disabled => (None, false),
            LoadBalancerAcceleration::Native => (Some(Acceleration::Native), true),
            LoadBalancerAcceleration::BestEffort => (Some(Acceleration::Native), false),
            LoadBalancerAcceleration::Generic => (Some(Acceleration::Generic), true),
        };
        let devices = match how {
            Some(_) => self.network.devices.as_slice(),
            None => &[],
        };
        if let Err(message) = stop_elsewhere(datapath, devices) {
            self.shared.report("acceleration", false, message);
            return;
        }
        let Some(how) = how else { return };
        let (everywhere, mut message) = at_devices(datapath, devices, how);
        let fault = demanded && !everywhere;
        if fault && how == Acceleration::Native {
            message += "; with `loadBalancerAcceleration: best-effort` this is no fault";
        }
        self.shared.report("acceleration", !fault, message);
    }
}

fn index(device: &Link) -> IfIndex {
    IfIndex(device.index.get())
}

/// Puts the program at the drivers; tells whether all have it, and each one's case.
fn at_devices(datapath: &Datapath, devices: &[Link], how: Acceleration) -> (bool, String) {
    let mut cases = Vec::new();
    let mut everywhere = true;
    for device in devices {
        let name = &device.name;
        match datapath.accelerate(index(device), how) {
            Ok(attached) => {
                if attached == Attached::New {
                    tracing::info!(device = name, how = how.name(), "program at the driver");
                }
                cases.push(format!("{name} {}", how.name()));
            }
            Err(error) => {
                everywhere = false;
                cases.push(format!("{name} off: {}", chain(&error)));
            }
        }
    }
    (everywhere, cases.join(", "))
}

/// Takes the program away from devices that are not among these.
fn stop_elsewhere(datapath: &Datapath, devices: &[Link]) -> Result<(), String> {
    let links = datapath.driver_links().map_err(|error| chain(&error))?;
    for link in links {
        let kept = link.alive && devices.iter().any(|device| index(device) == link.interface);
        if !kept {
            datapath
                .stop_accelerating(link.interface)
                .map_err(|error| chain(&error))?;
        }
    }
    Ok(())
}
