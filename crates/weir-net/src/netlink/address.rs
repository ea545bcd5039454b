// SPDX-License-Identifier: Apache-2.0
//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
};

use super::{Netlink, Subject, link::existed};
use crate::{Family, IfIndex, Result};

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// The interface.
    pub link: IfIndex,
    /// The address with the length of its prefix.
    pub prefix: IpNet,
    /// Whether it is a link-local or host-only address.
    pub local_scope: bool,
}

impl Address {
    /// The address alone.
    pub fn ip(&self) -> IpAddr {
        self.prefix.addr()
    }
}

impl Netlink {
    /// All addresses of all interfaces.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let mut addresses = Vec::new();
        let subject = Subject {
            action: "list",
            object: "addresses",
        };
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump(request, subject, |message| {
            if let RouteNetlinkMessage::NewAddress(message) = message {
                addresses.extend(address_of(&message));
            }
        })?;
        Ok(addresses)
    }

    /// Gives an interface an address, without duplicate address detection; tells whether it was new.
    pub fn ensure_address(&mut self, link: IfIndex, prefix: IpNet) -> Result<bool> {
        let mut message = message_of(link, prefix);
        if prefix.addr().is_ipv6() {
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let object = format!("address {prefix} on interface {link}");
        let subject = Subject {
            action: "add",
            object: &object,
        };
        let request = RouteNetlinkMessage::NewAddress(message);
        match self.change(request, NLM_F_CREATE | NLM_F_EXCL, subject) {
            Ok(()) => Ok(true),
            Err(error) if error.is_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives an interface an address or renews the one that is there.
    pub fn replace_address(&mut self, link: IfIndex, prefix: IpNet) -> Result<()> {
        let object = format!("address {prefix} on interface {link}");
        let subject = Subject {
            action: "replace",
            object: &object,
        };
        let request = RouteNetlinkMessage::NewAddress(message_of(link, prefix));
        self.change(request, NLM_F_CREATE | NLM_F_REPLACE, subject)
    }

    /// Takes an address away; tells whether it was there.
    pub fn delete_address(&mut self, link: IfIndex, prefix: IpNet) -> Result<bool> {
        let object = format!("address {prefix} on interface {link}");
        let subject = Subject {
            action: "delete",
            object: &object,
        };
        let request = RouteNetlinkMessage::DelAddress(message_of(link, prefix));
        existed(self.change(request, 0, subject))
    }
}

pub(crate) fn address_of(message: &AddressMessage) -> Option<Address> {
    let header = &message.header;
    // `Local` is the own address where the two differ (point to point).
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => found = Some(*ip),
            AddressAttribute::Address(ip) if found.is_none() => found = Some(*ip),
            _ => {}
        }
    }
    Some(Address {
        link: IfIndex::new(header.index),
        prefix: IpNet::new(found?, header.prefix_len).ok()?,
        local_scope: u8::from(header.scope) >= 253,
    })
}

fn message_of(link: IfIndex, prefix: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link.get();
    message.header.family = match Family::of(prefix.addr()) {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    };
    message.header.prefix_len = prefix.prefix_len();
    message
        .attributes
        .push(AddressAttribute::Local(prefix.addr()));
    message
        .attributes
        .push(AddressAttribute::Address(prefix.addr()));
    message
}
