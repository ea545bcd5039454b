// SPDX-License-Identifier: Apache-2.0
//! Neighbours: which hardware address belongs to which IP address, and the forwarding table of VXLAN devices.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{self, NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
};

use super::{Netlink, Subject, link::existed};
use crate::{Family, IfIndex, MacAddress, Result};

/// How much the kernel trusts a neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighbourState {
    /// Set by hand, never asked for.
    Permanent,
    /// Confirmed, or good enough to be used while it is confirmed again.
    Usable,
    /// Asked for, no answer yet.
    Incomplete,
    /// Asked for in vain.
    Failed,
}

/// A neighbour of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbour {
    /// The interface.
    pub link: IfIndex,
    /// Its IP address.
    pub ip: IpAddr,
    /// Its hardware address, once known.
    pub mac: Option<MacAddress>,
    /// How much it is worth.
    pub state: NeighbourState,
}

impl Netlink {
    /// All neighbours of all interfaces.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        let mut neighbours = Vec::new();
        for family in Family::BOTH {
            let mut request = NeighbourMessage::default();
            request.header.family = address_family(family);
            let subject = Subject {
                action: "list",
                object: "neighbours",
            };
            self.dump(
                RouteNetlinkMessage::GetNeighbour(request),
                subject,
                |message| {
                    if let RouteNetlinkMessage::NewNeighbour(message) = message {
                        neighbours.extend(neighbour_of(&message));
                    }
                },
            )?;
        }
        Ok(neighbours)
    }

    /// Sets a neighbour for good.
    pub fn replace_permanent_neighbour(
        &mut self,
        link: IfIndex,
        ip: IpAddr,
        mac: MacAddress,
    ) -> Result<()> {
        let mut message = message_of(link, ip);
        message.header.state = neighbour::NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()));
        let object = format!("neighbour {ip} on interface {link}");
        let subject = Subject {
            action: "set",
            object: &object,
        };
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.change(request, NLM_F_CREATE | NLM_F_REPLACE, subject)
    }

    /// Asks the kernel to find out a neighbour's hardware address now and to keep it fresh (managed entry).
    pub fn probe_neighbour(&mut self, link: IfIndex, ip: IpAddr) -> Result<()> {
        let mut message = message_of(link, ip);
        message.header.flags = NeighbourFlags::Use;
        let object = format!("neighbour {ip} on interface {link}");
        let subject = Subject {
            action: "resolve",
            object: &object,
        };
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.change(request, NLM_F_CREATE | NLM_F_REPLACE, subject)
    }

    /// Removes a neighbour; tells whether it was there.
    pub fn delete_neighbour(&mut self, link: IfIndex, ip: IpAddr) -> Result<bool> {
        let object = format!("neighbour {ip} on interface {link}");
        let subject = Subject {
            action: "delete",
            object: &object,
        };
        existed(self.change(
            RouteNetlinkMessage::DelNeighbour(message_of(link, ip)),
            0,
            subject,
        ))
    }

    /// Tells a VXLAN device behind which tunnel address a hardware address lives.
    pub fn append_forwarding_entry(
        &mut self,
        link: IfIndex,
        mac: MacAddress,
        tunnel: IpAddr,
    ) -> Result<()> {
        let mut message = message_of(link, tunnel);
        message.header.family = AddressFamily::Bridge;
        message.header.flags = NeighbourFlags::Own;
        message.header.state = neighbour::NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()));
        let object = format!("forwarding entry {mac} to {tunnel} on interface {link}");
        let subject = Subject {
            action: "add",
            object: &object,
        };
        let request = RouteNetlinkMessage::NewNeighbour(message);
        self.change(request, NLM_F_CREATE | NLM_F_APPEND, subject)
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn message_of(link: IfIndex, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = address_family(Family::of(ip));
    message.header.ifindex = link.get();
    message
        .attributes
        .push(NeighbourAttribute::Destination(ip.into()));
    message
}

/// None for forwarding entries of bridges and for entries that need no resolution (multicast, loopback).
pub(crate) fn neighbour_of(message: &NeighbourMessage) -> Option<Neighbour> {
    use neighbour::NeighbourState as Kernel;
    let state = match message.header.state {
        Kernel::Permanent => NeighbourState::Permanent,
        Kernel::Reachable | Kernel::Stale | Kernel::Delay | Kernel::Probe => NeighbourState::Usable,
        Kernel::Incomplete => NeighbourState::Incomplete,
        Kernel::Failed => NeighbourState::Failed,
        _ => return None,
    };
    let mut ip = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some((*v4).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some((*v6).into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(MacAddress::new);
            }
            _ => {}
        }
    }
    Some(Neighbour {
        link: IfIndex::new(message.header.ifindex),
        ip: ip?,
        mac,
        state,
    })
}
