// SPDX-License-Identifier: Apache-2.0
//! Packets that nobody sends.

use std::net::IpAddr;

use weir_abi::{Address, DatapathConfig, FlowKey, MacAddress, Port, Protocol};
use weir_packet::dispatch::{self, Backend};
use weir_packet::memory::MemoryPacket;
use weir_packet::{ETHERNET_LENGTH, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Summary, tcp_flags};

/// Hops that it may take: as fresh from a socket.
const HOPS: u8 = 64;
/// UDP and VXLAN header.
const TUNNEL_HEADERS: u32 = 8 + 8;

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: Protocol,
    /// Also the identifier of an echo request.
    pub(super) source_port: u16,
    /// 0 for protocols without ports.
    pub(super) port: u16,
}

impl Opening {
    /// The tuple as flow tables know it.
    pub(super) fn key(&self) -> FlowKey {
        FlowKey {
            source: self.source.into(),
            destination: self.destination.into(),
            source_port: Port::new(self.source_port),
            destination_port: Port::new(self.port),
            zone: [0; 2],
            protocol: self.protocol,
            reserved: 0,
        }
    }

    /// The packet with its Ethernet header.
    pub(super) fn frame(&self, from: MacAddress, to: MacAddress) -> Vec<u8> {
        let segment = self.segment();
        let length = u16::try_from(segment.len()).unwrap_or(u16::MAX);
        let mut frame = Vec::with_capacity(usize::from(length) + 64);
        frame.extend(to.0);
        frame.extend(from.0);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend((length + 20).to_be_bytes());
                header.extend([0, 1, 0x40, 0, HOPS, self.protocol.0, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = checksum(&[&header]);
                if let Some(place) = header.get_mut(10..12) {
                    place.copy_from_slice(&sum);
                }
                frame.extend(ETHERTYPE_IPV4);
                frame.extend(header);
            }
            (source, destination) => {
                frame.extend(ETHERTYPE_IPV6);
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([self.protocol.0, HOPS]);
                frame.extend(Address::from(source).0);
                frame.extend(Address::from(destination).0);
            }
        }
        frame.extend(segment);
        frame
    }

    fn segment(&self) -> Vec<u8> {
        let mut ports = self.source_port.to_be_bytes().to_vec();
        ports.extend(self.port.to_be_bytes());
        match self.protocol {
            Protocol::TCP => {
                let (window, offset) = (0xfa, 0x50);
                let mut segment = ports;
                segment.extend([0, 0, 0, 1, 0, 0, 0, 0]);
                segment.extend([offset, tcp_flags::SYN, window, 0, 0, 0, 0, 0]);
                self.sealed(segment, 16)
            }
            Protocol::UDP => {
                let mut segment = ports;
                segment.extend([0, 8, 0, 0]);
                self.sealed(segment, 6)
            }
            Protocol::ICMP | Protocol::ICMPV6 => {
                let kind = if self.protocol == Protocol::ICMP {
                    8
                } else {
                    128
                };
                let mut message = vec![kind, 0, 0, 0];
                message.extend(self.source_port.to_be_bytes());
                message.extend([0, 1]);
                self.sealed(message, 2)
            }
            // SCTP: an empty INIT; nobody on the way looks at its checksum.
            _ => {
                let mut packet = ports;
                packet.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 4]);
                packet
            }
        }
    }

    /// Puts the checksum into a segment (RFC 9293, section 3.1; RFC 8200, section 8.1).
    fn sealed(&self, mut segment: Vec<u8>, at: usize) -> Vec<u8> {
        let mut pseudo = Vec::new();
        if self.protocol != Protocol::ICMP {
            for address in [self.source, self.destination] {
                match address {
                    IpAddr::V4(v4) => pseudo.extend(v4.octets()),
                    IpAddr::V6(v6) => pseudo.extend(v6.octets()),
                }
            }
            let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
            pseudo.extend(length.to_be_bytes());
            pseudo.extend([0, 0, 0, self.protocol.0]);
        }
        let sum = checksum(&[&pseudo, &segment]);
        if let Some(place) = segment.get_mut(at..at + 2) {
            place.copy_from_slice(&sum);
        }
        segment
    }
}

/// Whether a protocol has ports that rules and services can name.
pub(super) const fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
}

/// The tuple of a frame, of the packet inside where it is a tunnel's; one that names its backend has got there.
pub(super) fn tuple(frame: &[u8]) -> Option<FlowKey> {
    let packet = MemoryPacket::new(frame.to_vec());
    let outer = Summary::parse(&packet, ETHERNET_LENGTH).ok()?;
    let mut backend = Backend::NONE;
    let names_backend = outer.key.protocol == Protocol::UDP
        && outer.key.destination_port == DatapathConfig::DISPATCH_PORT
        && dispatch::read(&packet, &outer, &mut backend);
    if names_backend {
        let inside = ETHERNET_LENGTH + dispatch::room(outer.is_v4).bytes();
        let inner = Summary::parse(&packet, inside).ok()?;
        return Some(FlowKey {
            destination: backend.address,
            destination_port: backend.port,
            ..inner.key
        });
    }
    let is_tunnel = outer.key.protocol == Protocol::UDP
        && outer.key.destination_port == DatapathConfig::DEFAULT.tunnel_port;
    if !is_tunnel {
        return Some(outer.key);
    }
    let inside = outer.l4_offset + TUNNEL_HEADERS + ETHERNET_LENGTH;
    Summary::parse(&packet, inside).ok().map(|inner| inner.key)
}

/// The internet checksum of parts of an even length, but for the last one (RFC 1071).
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let word = [
                pair.first().copied().unwrap_or(0),
                pair.get(1).copied().unwrap_or(0),
            ];
            sum += u32::from(u16::from_be_bytes(word));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, destination: &str, protocol: Protocol) {
        let opening = Opening {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            source_port: 40_000,
            port: if has_ports(protocol) { 80 } else { 0 },
        };
        let frame = opening.frame(MacAddress::GATEWAY, MacAddress::HOST);
        assert_eq!(tuple(&frame), Some(opening.key()));
        let v4 = opening.source.is_ipv4();
        let start = if v4 { 34 } else { 54 };
        if v4 {
            assert_eq!(checksum(&[&frame[14..34]]), [0, 0]);
        }
        if protocol == Protocol::ICMP {
            assert_eq!(checksum(&[&frame[start..]]), [0, 0]);
        }
    }

    #[test]
    fn packets_say_what_they_should() {
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
            check("10.8.0.1", "10.8.1.2", protocol);
            check("fd00::1", "fd00::2", protocol);
        }
        check("10.8.0.1", "10.8.1.2", Protocol::ICMP);
        check("fd00::1", "fd00::2", Protocol::ICMPV6);
    }
}
