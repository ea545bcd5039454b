// SPDX-License-Identifier: Apache-2.0
//! What the first bytes of a packet say, for people.
//!
//! Events carry a cut-off beginning of a packet that may be malformed: that is often why it was
//! dropped. So every part is optional and nothing here fails; where the bytes end, the answer ends.

mod icmp;
mod ip;
mod transport;

pub use icmp::icmp_name;
pub use ip::Ip;
pub use transport::{Transport, tcp_flags};

use std::fmt;
use std::net::Ipv4Addr;
use weir_abi::MacAddress;

const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// As much of a packet as could be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Packet {
    pub ethernet: Option<Ethernet>,
    pub network: Option<Network>,
    pub transport: Option<Transport>,
    /// What a VXLAN tunnel carries: its first headers.
    pub inner: Option<Inner>,
}

/// The packet inside a tunnel packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    pub vni: u32,
    pub ethernet: Option<Ethernet>,
    pub network: Option<Network>,
    pub transport: Option<Transport>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ethernet {
    pub source: MacAddress,
    pub destination: MacAddress,
    pub ethertype: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    Arp {
        /// 1 is a question, 2 an answer.
        operation: u16,
        sender_mac: MacAddress,
        sender: Ipv4Addr,
        target: Ipv4Addr,
    },
    Ip(Ip),
}

impl Packet {
    /// Reads a captured frame. Devices without Ethernet headers are recognized by what stands
    /// where the Ethernet type would be.
    pub fn parse(bytes: &[u8]) -> Self {
        let known = [ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_IPV6];
        match (number16(bytes, 12), bytes.first()) {
            (Some(ethertype), _) if known.contains(&ethertype) => Self::parse_ethernet(bytes),
            (_, Some(first)) if matches!(first >> 4, 4 | 6) && Ip::parse(bytes).is_some() => {
                Self::parse_ip(None, bytes)
            }
            _ => Self::parse_ethernet(bytes),
        }
    }

    /// Reads a frame that begins with an Ethernet header.
    pub fn parse_ethernet(bytes: &[u8]) -> Self {
        let Some(ethernet) = Ethernet::parse(bytes) else {
            return Self::default();
        };
        let payload = bytes.get(ETHERNET..).unwrap_or_default();
        match ethernet.ethertype {
            ETHERTYPE_ARP => Self {
                ethernet: Some(ethernet),
                network: parse_arp(payload),
                ..Self::default()
            },
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Self::parse_ip(Some(ethernet), payload),
            _ => Self {
                ethernet: Some(ethernet),
                ..Self::default()
            },
        }
    }

    /// Reads a packet that begins with an IP header.
    pub fn parse_layer3(bytes: &[u8]) -> Self {
        Self::parse_ip(None, bytes)
    }

    fn parse_ip(ethernet: Option<Ethernet>, bytes: &[u8]) -> Self {
        let Some((ip, header)) = Ip::parse(bytes) else {
            return Self {
                ethernet,
                ..Self::default()
            };
        };
        let payload = bytes.get(header..).unwrap_or_default();
        let transport = (ip.fragment_offset == 0)
            .then(|| Transport::parse(ip.protocol, payload))
            .flatten();
        Self {
            ethernet,
            network: Some(Network::Ip(ip)),
            inner: match transport {
                Some(Transport::Udp { .. }) => Inner::parse(payload.get(8..).unwrap_or_default()),
                _ => None,
            },
            transport,
        }
    }

    /// The IP header, where there is one.
    pub const fn ip(&self) -> Option<&Ip> {
        match &self.network {
            Some(Network::Ip(ip)) => Some(ip),
            Some(Network::Arp { .. }) | None => None,
        }
    }

    /// `TCP`, `ARP`, `proto-47`, `ethertype-0x88cc`; `None`: too short for either.
    pub fn protocol(&self) -> Option<String> {
        match (&self.network, &self.ethernet) {
            (Some(Network::Arp { .. }), _) => Some("ARP".to_owned()),
            (Some(Network::Ip(ip)), _) => Some(ip.protocol.to_string()),
            (None, Some(ethernet)) => Some(format!("ethertype-{:#06x}", ethernet.ethertype)),
            (None, None) => None,
        }
    }

    /// What stands behind the addresses in a line: TCP flags, the ICMP message, who asks for whom.
    pub fn flags(&self) -> String {
        match (&self.network, &self.transport) {
            (Some(Network::Arp { .. }), _) => self.arp(),
            (Some(Network::Ip(ip)), None) if ip.fragment_offset > 0 => {
                format!("fragment at {}", ip.fragment_offset)
            }
            (_, Some(transport)) => transport.flags(),
            _ => String::new(),
        }
    }

    fn arp(&self) -> String {
        match self.network {
            Some(Network::Arp {
                operation: 1,
                sender,
                target,
                ..
            }) => format!("who-has {target} tell {sender}"),
            Some(Network::Arp {
                operation: 2,
                sender,
                sender_mac,
                ..
            }) => format!("{sender} is-at {sender_mac}"),
            Some(Network::Arp { operation, .. }) => format!("operation {operation}"),
            Some(Network::Ip(_)) | None => String::new(),
        }
    }

    /// One line for each layer.
    pub fn layers(&self) -> Vec<String> {
        let mut lines = self.own_layers();
        if let Some(inner) = self.inner {
            lines.push(format!("vxlan vni {}", inner.vni));
            lines.extend(inner.packet().own_layers());
        }
        lines
    }

    fn own_layers(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(ethernet) = &self.ethernet {
            lines.push(ethernet.to_string());
        }
        match &self.network {
            Some(Network::Arp { .. }) => lines.push(format!("arp {}", self.arp())),
            Some(Network::Ip(ip)) => lines.push(ip.to_string()),
            None => {}
        }
        if let Some(transport) = &self.transport {
            lines.push(transport.to_string());
        }
        lines
    }
}

impl Inner {
    /// Behind the UDP header. The port of a tunnel can be configured, so the header itself must
    /// say what it is: only the I flag, reserved bytes zero (RFC 7348, section 5), IP inside.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let [0x08, 0, 0, 0, a, b, c, 0] = array(bytes, 0)? else {
            return None;
        };
        let frame = bytes.get(8..)?;
        let ethernet = Ethernet::parse(frame)?;
        if !matches!(ethernet.ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
            return None;
        }
        let (ip, header) = Ip::parse(frame.get(ETHERNET..)?)?;
        let payload = frame.get(ETHERNET + header..).unwrap_or_default();
        Some(Self {
            vni: u32::from_be_bytes([0, a, b, c]),
            ethernet: Some(ethernet),
            network: Some(Network::Ip(ip)),
            transport: (ip.fragment_offset == 0)
                .then(|| Transport::parse(ip.protocol, payload))
                .flatten(),
        })
    }

    /// The same as a packet of its own.
    pub const fn packet(self) -> Packet {
        Packet {
            ethernet: self.ethernet,
            network: self.network,
            transport: self.transport,
            inner: None,
        }
    }
}

impl Ethernet {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            destination: MacAddress(array(bytes, 0)?),
            source: MacAddress(array(bytes, 6)?),
            ethertype: number16(bytes, 12)?,
        })
    }
}

impl fmt::Display for Ethernet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            destination,
            ethertype,
        } = self;
        write!(
            f,
            "ethernet {source} -> {destination} type {ethertype:#06x}"
        )
    }
}

fn parse_arp(bytes: &[u8]) -> Option<Network> {
    // Only Ethernet and IPv4: hardware type 1, protocol type 0x0800, lengths 6 and 4.
    (array::<6>(bytes, 0)? == [0, 1, 8, 0, 6, 4]).then_some(())?;
    Some(Network::Arp {
        operation: number16(bytes, 6)?,
        sender_mac: MacAddress(array(bytes, 8)?),
        sender: array::<4>(bytes, 14)?.into(),
        target: array::<4>(bytes, 24)?.into(),
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}
