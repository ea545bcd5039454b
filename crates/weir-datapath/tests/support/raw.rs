// SPDX-License-Identifier: Apache-2.0
//! Packets byte by byte, right or wrong on purpose.

use weir_abi::{Address, MacAddress};

use super::world::ip;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

/// ICMP or ICMPv6.
pub(crate) fn icmp_of(family: usize) -> u8 {
    [1, 58][family]
}

/// Adds sixteen-bit words, the last one filled up with zero (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let mut total = bytes.chunks(2).fold(0_u32, |total, pair| {
        total + u32::from(pair[0]) * 256 + u32::from(pair.get(1).copied().unwrap_or(0))
    });
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let [.., a, b] = (!sum(bytes)).to_be_bytes();
    [a, b]
}

/// What transport checksums cover beside the segment (RFC 9293, section 3.1; RFC 8200, section 8.1).
pub(crate) fn pseudo_header(from: Address, to: Address, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [from, to] {
        if address.is_v4() {
            bytes.extend(address.v4_octets());
        } else {
            bytes.extend(address.0);
        }
    }
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

/// Puts the checksum into a segment.
fn sealed(from: &str, to: &str, protocol: u8, at: usize, mut segment: Vec<u8>) -> Vec<u8> {
    let mut covered = Vec::new();
    if protocol != 1 {
        covered = pseudo_header(ip(from), ip(to), protocol, segment.len());
    }
    covered.extend(&segment);
    segment[at..at + 2].copy_from_slice(&checksum(&covered));
    segment
}

/// A TCP segment.
pub(crate) fn tcp(
    from: &str,
    to: &str,
    [source, destination]: [u16; 2],
    flags: u8,
    data: &[u8],
) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    segment.extend([
        0, 0, 3, 0xe8, 0, 0, 7, 0xd0, 0x50, flags, 0xfa, 0, 0, 0, 0, 0,
    ]);
    segment.extend(data);
    sealed(from, to, TCP, 16, segment)
}

/// A UDP datagram.
pub(crate) fn udp(from: &str, to: &str, [source, destination]: [u16; 2], data: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    segment.extend(u16::try_from(8 + data.len()).unwrap().to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(data);
    sealed(from, to, UDP, 6, segment)
}

/// An ICMP or ICMPv6 message: type, code and the four bytes after the checksum.
pub(crate) fn icmp(
    from: &str,
    to: &str,
    [kind, code]: [u8; 2],
    rest: [u8; 4],
    data: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(data);
    let protocol = if ip(from).is_v4() { 1 } else { 58 };
    sealed(from, to, protocol, 2, message)
}

/// An SCTP packet; nobody here looks at its CRC.
pub(crate) fn sctp([source, destination]: [u16; 2]) -> Vec<u8> {
    let mut packet = Vec::new();
    packet.extend(source.to_be_bytes());
    packet.extend(destination.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0x11, 0x22, 0x33, 0x44, 1, 0, 0, 4]);
    packet
}

/// The IP header's changeable parts.
#[derive(Clone, Debug)]
pub(crate) struct Ip<'a> {
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) protocol: u8,
    pub(crate) hops: u8,
    /// IPv4: flags and fragment offset. IPv6: a fragment header with these, where not zero.
    pub(crate) fragment: u16,
    /// IPv4: options, a multiple of four bytes. IPv6: whole extension headers after the fixed one.
    pub(crate) extra: Vec<u8>,
    /// IPv6: the protocol number of the first extension header.
    pub(crate) first: Option<u8>,
}

impl<'a> Ip<'a> {
    pub(crate) fn new(from: &'a str, to: &'a str, protocol: u8) -> Self {
        Self {
            from,
            to,
            protocol,
            hops: 64,
            fragment: 0,
            extra: Vec::new(),
            first: None,
        }
    }

    pub(crate) fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// Part of a datagram: offset in bytes, and whether more follow.
    pub(crate) fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = if ip(self.from).is_v4() {
            (offset / 8) | if more { 0x2000 } else { 0 }
        } else {
            offset | u16::from(more)
        };
        self
    }

    /// With options or extension headers.
    pub(crate) fn extra(mut self, first: Option<u8>, extra: &[u8]) -> Self {
        self.extra = extra.to_vec();
        self.first = first;
        self
    }

    /// The packet with its payload.
    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        if ip(self.from).is_v4() {
            self.v4(payload)
        } else {
            self.v6(payload)
        }
    }

    fn v4(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.extra.len();
        let total = u16::try_from(header + payload.len()).unwrap();
        let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0x12, 0x34]);
        packet.extend(self.fragment.to_be_bytes());
        packet.extend([self.hops, self.protocol, 0, 0]);
        packet.extend(ip(self.from).v4_octets());
        packet.extend(ip(self.to).v4_octets());
        packet.extend(&self.extra);
        let check = checksum(&packet);
        packet[10..12].copy_from_slice(&check);
        packet.extend(payload);
        packet
    }

    fn v6(&self, payload: &[u8]) -> Vec<u8> {
        let mut inner = self.extra.clone();
        if self.fragment != 0 {
            inner.extend([self.protocol, 0]);
            inner.extend(self.fragment.to_be_bytes());
            inner.extend([0, 0, 0x12, 0x34]);
        }
        inner.extend(payload);
        let last = if self.fragment == 0 {
            self.protocol
        } else {
            44
        };
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(inner.len()).unwrap().to_be_bytes());
        packet.extend([self.first.unwrap_or(last), self.hops]);
        packet.extend(ip(self.from).0);
        packet.extend(ip(self.to).0);
        packet.extend(inner);
        packet
    }
}

/// Puts an Ethernet header in front.
pub(crate) fn ethernet(source: MacAddress, destination: MacAddress, packet: &[u8]) -> Vec<u8> {
    let mut frame = destination.0.to_vec();
    frame.extend(source.0);
    frame.extend(if packet[0] >> 4 == 4 {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    });
    frame.extend(packet);
    frame
}

/// The UDP payload of a packet that names its backend.
pub(crate) fn geneve((backend, port): (&str, u16), packet: &[u8]) -> Vec<u8> {
    let mut payload = vec![0x06, 0x40, 0x65, 0x58, 0, 0, 1, 0, 0xff, 0x57, 0x81, 0x05];
    payload.extend(ip(backend).0);
    payload.extend(port.to_be_bytes());
    payload.extend([0, 0]);
    payload.extend(ethernet(MacAddress::GATEWAY, MacAddress::TUNNEL, packet));
    payload
}

/// A tunnel packet's UDP payload.
pub(crate) fn vxlan(network: [u8; 3], packet: &[u8]) -> Vec<u8> {
    let [a, b, c] = network;
    let mut payload = vec![8, 0, 0, 0, a, b, c, 0];
    payload.extend(ethernet(MacAddress::GATEWAY, MacAddress::TUNNEL, packet));
    payload
}
