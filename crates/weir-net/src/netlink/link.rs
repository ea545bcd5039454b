// SPDX-License-Identifier: Apache-2.0
//! Network interfaces: read, changed and deleted; `create` makes them.

mod create;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        State,
    },
};

use super::{Netlink, Subject};
use crate::{Error, IfIndex, MacAddress, Result};

pub use create::{Veth, Vxlan};

/// A network interface as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent flags of the kernel"
)]
pub struct Link {
    /// Its number in its namespace.
    pub index: IfIndex,
    /// Its name.
    pub name: String,
    /// The driver (`veth`, `bridge`, `vxlan`), empty for physical devices and loopback.
    pub kind: String,
    /// Its hardware address, where it has one of six bytes.
    pub mac: Option<MacAddress>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it can carry packets now.
    pub running: bool,
    /// Whether it resolves no neighbours.
    pub noarp: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// The bridge (or other device) that it belongs to.
    pub master: Option<IfIndex>,
    /// The index of the other end (veth) or of the device below (vlan), in whichever namespace that is.
    pub peer: Option<IfIndex>,
}

/// What to change on an interface; what is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Switch it on or off.
    pub up: Option<bool>,
    /// Set the MTU.
    pub mtu: Option<u32>,
    /// Set the hardware address.
    pub mac: Option<MacAddress>,
    /// Resolve neighbours or not.
    pub arp: Option<bool>,
    /// Put it into a bridge, or (`Some(None)`) take it out.
    pub master: Option<Option<IfIndex>>,
    /// Give it a new name (it must be down).
    pub name: Option<String>,
    /// Let the kernel make up an IPv6 link-local address, or not.
    pub generate_address: Option<bool>,
}

impl LinkChange {
    /// Only switches it on.
    pub fn up() -> Self {
        Self {
            up: Some(true),
            ..Self::default()
        }
    }
}

impl Netlink {
    /// All interfaces.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        let subject = Subject {
            action: "list",
            object: "links",
        };
        self.dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            subject,
            |message| {
                if let RouteNetlinkMessage::NewLink(message) = message {
                    links.push(link_of(&message));
                }
            },
        )?;
        Ok(links)
    }

    /// The interface with a name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.get_link(message, name)
    }

    /// The interface with an index, if there is one.
    pub fn link_by_index(&mut self, index: IfIndex) -> Result<Option<Link>> {
        let mut message = LinkMessage::default();
        message.header.index = index.get();
        self.get_link(message, &index.to_string())
    }

    /// The interface with a name, which must be there.
    pub fn require_link(&mut self, name: &str) -> Result<Link> {
        self.link(name)?.ok_or_else(|| Error::NotFound {
            what: "interface",
            object: name.to_owned(),
        })
    }

    /// Changes an interface.
    pub fn change_link(&mut self, index: IfIndex, change: &LinkChange) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index.get();
        let mut flag = |flag: LinkFlags, value: bool| {
            message.header.change_mask |= flag;
            if value {
                message.header.flags |= flag;
            }
        };
        if let Some(up) = change.up {
            flag(LinkFlags::Up, up);
        }
        if let Some(arp) = change.arp {
            flag(LinkFlags::Noarp, !arp);
        }
        message.attributes = common(change.mac, change.mtu);
        if let Some(master) = change.master {
            message
                .attributes
                .push(LinkAttribute::Controller(master.map_or(0, IfIndex::get)));
        }
        if let Some(name) = &change.name {
            check_name(name)?;
            message.attributes.push(LinkAttribute::IfName(name.clone()));
        }
        if let Some(generate) = change.generate_address {
            let mode = if generate {
                In6AddrGenMode::Eui64
            } else {
                In6AddrGenMode::None
            };
            let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode)]);
            message
                .attributes
                .push(LinkAttribute::AfSpecUnspec(vec![inet6]));
        }
        let object = format!("interface {index} ({change:?})");
        let subject = Subject {
            action: "change",
            object: &object,
        };
        self.change(RouteNetlinkMessage::SetLink(message), 0, subject)
    }

    /// Removes an interface; tells whether it was there.
    pub fn delete_link(&mut self, index: IfIndex) -> Result<bool> {
        let mut message = LinkMessage::default();
        message.header.index = index.get();
        let object = format!("interface {index}");
        let subject = Subject {
            action: "delete",
            object: &object,
        };
        existed(self.change(RouteNetlinkMessage::DelLink(message), 0, subject))
    }

    /// Removes the interface with a name; tells whether it was there.
    pub fn delete_link_named(&mut self, name: &str) -> Result<bool> {
        match self.link(name)? {
            Some(link) => self.delete_link(link.index),
            None => Ok(false),
        }
    }

    fn get_link(&mut self, message: LinkMessage, object: &str) -> Result<Option<Link>> {
        let subject = Subject {
            action: "read interface",
            object,
        };
        Ok(
            match self.get(RouteNetlinkMessage::GetLink(message), subject)? {
                Some(RouteNetlinkMessage::NewLink(message)) => Some(link_of(&message)),
                _ => None,
            },
        )
    }
}

/// Turns "not there" into `false`.
pub(crate) fn existed(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn link_of(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        index: IfIndex::new(message.header.index),
        name: String::new(),
        kind: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::LowerUp),
        noarp: flags.contains(LinkFlags::Noarp),
        loopback: flags.contains(LinkFlags::Loopback),
        master: None,
        peer: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                link.mac = bytes.as_slice().try_into().ok().map(MacAddress::new);
            }
            LinkAttribute::Controller(index) => link.master = Some(IfIndex::new(*index)),
            LinkAttribute::Link(index) => link.peer = Some(IfIndex::new(*index)),
            LinkAttribute::OperState(State::Down | State::LowerLayerDown) => link.running = false,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind.to_string();
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn common(mac: Option<MacAddress>, mtu: Option<u32>) -> Vec<LinkAttribute> {
    mac.map(|mac| LinkAttribute::Address(mac.bytes().to_vec()))
        .into_iter()
        .chain(mtu.map(LinkAttribute::Mtu))
        .collect()
}

/// The kernel cuts a name that is too long off in some requests; refuse it instead.
fn check_name(name: &str) -> Result<()> {
    let fits = (1..=15).contains(&name.len());
    if fits && !name.contains(['/', ' ', ':']) && name != "." && name != ".." {
        Ok(())
    } else {
        Err(Error::InvalidInterfaceName(name.to_owned()))
    }
}
