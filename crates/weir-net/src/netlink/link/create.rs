// SPDX-License-Identifier: Apache-2.0
//! Interfaces that are made: veth pairs, bridges, dummies and VXLAN devices.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage},
};

use super::{Link, check_name, common};
use crate::netlink::{Netlink, Subject};
use crate::{IfIndex, MacAddress, NetNamespace, Result};

/// A pair of virtual Ethernet devices to be made.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Name of the end in the handle's namespace.
    pub name: &'a str,
    /// Hardware address of that end; the kernel picks one when absent.
    pub mac: Option<MacAddress>,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Hardware address of the other end.
    pub peer_mac: Option<MacAddress>,
    /// Where the other end goes; the same namespace when absent.
    pub peer_namespace: Option<&'a NetNamespace>,
    /// MTU of both ends; 1500 when absent.
    pub mtu: Option<u32>,
}

/// A VXLAN device to be made, without learning.
#[derive(Clone, Copy, Debug)]
pub struct Vxlan<'a> {
    /// Name of the device.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Option<MacAddress>,
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port.
    pub port: u16,
    /// Source address of the tunnel.
    pub local: IpAddr,
    /// The device below.
    pub device: IfIndex,
    /// Its MTU.
    pub mtu: Option<u32>,
}

impl Netlink {
    /// Makes a pair of virtual Ethernet devices, both down, and returns the near end.
    pub fn create_veth(&mut self, veth: &Veth<'_>) -> Result<Link> {
        check_name(veth.peer_name)?;
        let mut peer = LinkMessage::default();
        peer.attributes
            .push(LinkAttribute::IfName(veth.peer_name.to_owned()));
        peer.attributes.extend(common(veth.peer_mac, veth.mtu));
        if let Some(namespace) = veth.peer_namespace {
            peer.attributes
                .push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        }
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        self.create(
            veth.name,
            InfoKind::Veth,
            Some(data),
            common(veth.mac, veth.mtu),
        )
    }

    /// Makes a pair of virtual Ethernet devices unless the near end is there; tells whether it made it.
    pub fn ensure_veth(&mut self, veth: &Veth<'_>) -> Result<(Link, bool)> {
        self.ensure(veth.name, |netlink| netlink.create_veth(veth))
    }

    /// Makes a bridge unless it is there.
    pub fn ensure_bridge(&mut self, name: &str) -> Result<(Link, bool)> {
        self.ensure(name, |netlink| {
            netlink.create(name, InfoKind::Bridge, None, Vec::new())
        })
    }

    /// Makes a dummy device unless it is there.
    pub fn ensure_dummy(&mut self, name: &str) -> Result<(Link, bool)> {
        self.ensure(name, |netlink| {
            netlink.create(name, InfoKind::Dummy, None, Vec::new())
        })
    }

    /// Makes a VXLAN device unless it is there.
    pub fn ensure_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<(Link, bool)> {
        let data = InfoData::Vxlan(vec![
            InfoVxlan::Id(vxlan.vni),
            InfoVxlan::Link(vxlan.device.get()),
            match vxlan.local {
                IpAddr::V4(local) => InfoVxlan::Local(local),
                IpAddr::V6(local) => InfoVxlan::Local6(local),
            },
            InfoVxlan::Port(vxlan.port),
            InfoVxlan::Learning(false),
        ]);
        let attributes = common(vxlan.mac, vxlan.mtu);
        self.ensure(vxlan.name, |netlink| {
            netlink.create(vxlan.name, InfoKind::Vxlan, Some(data), attributes)
        })
    }

    fn create(
        &mut self,
        name: &str,
        kind: InfoKind,
        data: Option<InfoData>,
        attributes: Vec<LinkAttribute>,
    ) -> Result<Link> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.extend(attributes);
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data.map(LinkInfo::Data));
        message.attributes.push(LinkAttribute::LinkInfo(info));
        let subject = Subject {
            action: "create interface",
            object: name,
        };
        self.change(
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
            subject,
        )?;
        self.require_link(name)
    }

    fn ensure(
        &mut self,
        name: &str,
        create: impl FnOnce(&mut Self) -> Result<Link>,
    ) -> Result<(Link, bool)> {
        match self.link(name)? {
            Some(link) => Ok((link, false)),
            None => create(self).map(|link| (link, true)),
        }
    }
}
