// SPDX-License-Identifier: Apache-2.0
//! One parse for both families: from an IP header to a [`Summary`].

use crate::packet::PacketRead;
use crate::tcp_flags;
use weir_abi::{Address, DropReason, FlowKey, Port, Protocol};

/// What a packet is, as far as forwarding is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum PacketClass {
    /// It belongs to a flow by its own tuple.
    Flow,
    /// It reports an error about another packet, whose start it carries.
    IcmpError,
    /// Neighbour discovery and the like, which belongs to a link (ICMPv6 types 130 to 137, 143).
    LinkLocal,
    /// ICMP that is neither.
    OtherIcmp,
}

/// Which part of a fragmented datagram the packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Fragment {
    /// Not fragmented.
    Whole,
    /// The first part, with the transport header.
    First,
    /// A later part, without ports.
    Later,
}

/// Everything about a packet that decisions need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C, align(8))]
pub struct Summary {
    /// Ports are zero in a later fragment and in ICMP that is no echo.
    pub key: FlowKey,
    /// Offset of the IP header.
    pub l3_offset: u32,
    /// Offset of the transport header.
    pub l4_offset: u32,
    /// Bytes of the IP packet (of the whole packet before segmentation).
    pub l3_length: u32,
    /// Bytes from the IP header to the transport payload: what every segment repeats.
    pub headers_length: u32,
    /// The identification that fragments share.
    pub identification: [u8; 4],
    pub class: PacketClass,
    pub fragment: Fragment,
    pub ttl: u8,
    /// TCP flags, 0 for other protocols.
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    pub is_v4: bool,
}

/// Why a packet cannot be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed(pub DropReason);

/// IPv6 extension headers that are walked over, at most (RFC 8200, section 4.1 orders them; more
/// than these in one packet is nothing that real stacks send).
const EXTENSION_HEADERS_MAX: u32 = 6;

impl Summary {
    /// Parses the IP packet at `l3_offset`. The version field decides the family; the caller has
    /// seen an ethertype that promises one of the two.
    pub fn parse<P: PacketRead>(packet: &P, l3_offset: u32) -> Result<Self, Malformed> {
        let mut summary = Self::EMPTY;
        match summary.parse_into(packet, l3_offset) {
            None => Ok(summary),
            Some(reason) => Err(Malformed(reason)),
        }
    }

    /// The same into existing memory; the answer is what is wrong, if anything is. A function of
    /// its own in the kernel's build, for what only some packets have inside.
    #[inline(never)]
    pub fn parse_into<P: PacketRead>(&mut self, packet: &P, l3_offset: u32) -> Option<DropReason> {
        self.parse_here(packet, l3_offset)
    }

    /// As [`Self::parse_into`], but part of the caller: for what every packet passes, where a call
    /// is felt.
    #[inline(always)]
    pub fn parse_here<P: PacketRead>(&mut self, packet: &P, l3_offset: u32) -> Option<DropReason> {
        match self.fill(packet, l3_offset) {
            Ok(()) => None,
            Err(Malformed(reason)) => Some(reason),
        }
    }

    /// Nothing read yet.
    pub const EMPTY: Self = Self {
        key: FlowKey {
            source: Address::UNSPECIFIED,
            destination: Address::UNSPECIFIED,
            source_port: Port::NONE,
            destination_port: Port::NONE,
            protocol: Protocol(0),
            zone: [0; 2],
            reserved: 0,
        },
        l3_offset: 0,
        l4_offset: 0,
        l3_length: 0,
        headers_length: 0,
        identification: [0; 4],
        class: PacketClass::Flow,
        fragment: Fragment::Whole,
        ttl: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        is_v4: false,
    };

    #[inline(always)]
    fn fill<P: PacketRead>(&mut self, packet: &P, l3_offset: u32) -> Result<(), Malformed> {
        const INVALID: Malformed = Malformed(DropReason::InvalidPacket);
        let [first] = packet.load::<1>(l3_offset).ok_or(INVALID)?;
        self.l3_offset = l3_offset;
        self.l3_length = packet.length().wrapping_sub(l3_offset);
        self.identification = [0; 4];
        self.class = PacketClass::Flow;
        self.fragment = Fragment::Whole;
        self.tcp_flags = 0;
        self.icmp_type = 0;
        self.icmp_code = 0;
        match first >> 4 {
            4 => self.ipv4(packet)?,
            6 => self.ipv6(packet)?,
            _ => return Err(INVALID),
        }
        self.headers_length = self.l4_offset.wrapping_sub(l3_offset);
        match self.fragment {
            Fragment::Whole | Fragment::First => {
                self.transport(packet)?;
                // What lies behind the packet (Ethernet's padding) is not of the packet.
                if self.headers_length > self.l3_length {
                    return Err(Malformed(DropReason::CtInvalidHeader));
                }
                Ok(())
            }
            Fragment::Later if tracked(self.key.protocol) => Ok(()),
            Fragment::Later => Err(Malformed(DropReason::CtUnknownL4)),
        }
    }

    /// Reads ports, flags and ICMP types.
    #[inline(always)]
    fn transport<P: PacketRead>(&mut self, packet: &P) -> Result<(), Malformed> {
        const TRUNCATED: Malformed = Malformed(DropReason::CtInvalidHeader);
        let offset = self.l4_offset;
        match self.key.protocol {
            Protocol::TCP => {
                let [ports, _, _, offset_and_flags] =
                    packet.load_words::<4>(offset).ok_or(TRUNCATED)?;
                let [offset_byte, flags, _, _] = offset_and_flags.to_ne_bytes();
                let header = u32::from(offset_byte >> 4).wrapping_mul(4);
                if header < 20 || self.headers_length.wrapping_add(header) > self.l3_length {
                    return Err(TRUNCATED);
                }
                self.set_ports(ports);
                self.tcp_flags = flags
                    & (tcp_flags::FIN
                        | tcp_flags::SYN
                        | tcp_flags::RST
                        | tcp_flags::PSH
                        | tcp_flags::ACK
                        | tcp_flags::URG);
                self.headers_length = self.headers_length.wrapping_add(header);
            }
            Protocol::UDP | Protocol::SCTP => {
                let [ports, _] = packet.load_words::<2>(offset).ok_or(TRUNCATED)?;
                self.set_ports(ports);
                self.headers_length = self.headers_length.wrapping_add(8);
            }
            Protocol::ICMP if self.is_v4 => self.icmp(packet.load::<8>(offset).ok_or(TRUNCATED)?),
            Protocol::ICMPV6 if !self.is_v4 => {
                self.icmp(packet.load::<8>(offset).ok_or(TRUNCATED)?);
            }
            // Group membership (RFC 3376) belongs to the link, as neighbour discovery does.
            Protocol(2) if self.is_v4 => return Err(Malformed(DropReason::IgmpHandled)),
            _ => return Err(Malformed(DropReason::CtUnknownL4)),
        }
        Ok(())
    }

    /// Ports as they stand side by side in a header.
    #[inline(always)]
    fn set_ports(&mut self, ports: u32) {
        let [a, b, c, d] = ports.to_ne_bytes();
        self.key.set_ports(Port([a, b]), Port([c, d]));
    }

    /// Echo (RFC 792, RFC 4443 section 4) has an identifier in the place of a port; errors
    /// (RFC 792; RFC 4443 section 3) belong to the flow of the packet inside.
    #[inline(always)]
    fn icmp(&mut self, header: [u8; 8]) {
        let [kind, code, _, _, a, b, _, _] = header;
        self.icmp_type = kind;
        self.icmp_code = code;
        self.headers_length = self.headers_length.wrapping_add(8);
        let (request, reply) = if self.is_v4 { (8, 0) } else { (128, 129) };
        if kind == request {
            self.key.set_ports(Port([a, b]), Port::NONE);
        } else if kind == reply {
            self.key.set_ports(Port::NONE, Port([a, b]));
        } else {
            self.class = match (self.is_v4, kind) {
                (true, 3 | 4 | 11 | 12) | (false, 1..=127) => PacketClass::IcmpError,
                (false, 130..=137 | 143) => PacketClass::LinkLocal,
                _ => PacketClass::OtherIcmp,
            };
        }
    }

    /// Bytes of the largest IP packet that leaves: of a segment, where the packet will be cut.
    #[inline(always)]
    pub const fn largest_packet(&self, segment_size: u32) -> u32 {
        if segment_size == 0 {
            self.l3_length
        } else {
            self.headers_length.wrapping_add(segment_size)
        }
    }
}

/// Protocols whose packets belong to flows.
#[inline(always)]
const fn tracked(protocol: Protocol) -> bool {
    matches!(
        protocol,
        Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::ICMP | Protocol::ICMPV6
    )
}

impl Summary {
    /// RFC 791, section 3.1.
    #[inline(always)]
    fn ipv4<P: PacketRead>(&mut self, packet: &P) -> Result<(), Malformed> {
        const INVALID: Malformed = Malformed(DropReason::InvalidPacket);
        let [start, second, third, source, destination] =
            packet.load_words::<5>(self.l3_offset).ok_or(INVALID)?;
        let [vihl, _, l0, l1] = start.to_ne_bytes();
        let [i0, i1, f0, f1] = second.to_ne_bytes();
        let [ttl, protocol, _, _] = third.to_ne_bytes();
        let header_length = u32::from(vihl & 0x0f).wrapping_mul(4);
        let total_length = u32::from(u16::from_be_bytes([l0, l1]));
        // A total length of zero is a packet of more than 64 kB before segmentation (BIG TCP).
        if header_length < 20
            || header_length > self.l3_length
            || (total_length != 0
                && (total_length < header_length || total_length > self.l3_length))
        {
            return Err(INVALID);
        }
        let offset = u16::from_be_bytes([f0 & 0x1f, f1]);
        self.key = FlowKey::new(
            Address::from_v4(source.to_ne_bytes()),
            Address::from_v4(destination.to_ne_bytes()),
            Protocol(protocol),
        );
        self.l4_offset = self.l3_offset.wrapping_add(header_length);
        self.ttl = ttl;
        self.is_v4 = true;
        self.fragment = fragment_of(offset != 0, f0 & 0x20 != 0);
        self.identification = [i0, i1, 0, 0];
        // Behind the packet there may be padding to Ethernet's least length.
        if total_length != 0 && packet.segment_size() == 0 {
            self.l3_length = total_length;
        }
        Ok(())
    }

    /// RFC 8200, sections 3 and 4.
    #[inline(always)]
    fn ipv6<P: PacketRead>(&mut self, packet: &P) -> Result<(), Malformed> {
        const INVALID: Malformed = Malformed(DropReason::InvalidPacket);
        const INVALID_CHAIN: Malformed = Malformed(DropReason::InvalidExtensionHeader);
        let offset = self.l3_offset;
        let [_, second, addresses @ ..] = packet.load_words::<10>(offset).ok_or(INVALID)?;
        let [p0, p1, next, hop_limit] = second.to_ne_bytes();
        let total_length = u32::from(u16::from_be_bytes([p0, p1])).wrapping_add(40);
        if total_length > self.l3_length {
            return Err(INVALID);
        }
        let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
        self.ttl = hop_limit;
        self.is_v4 = false;
        // A payload length of zero is a jumbo packet (BIG TCP).
        if total_length != 40 && packet.segment_size() == 0 {
            self.l3_length = total_length;
        }
        let mut protocol = next;
        let mut at = offset.wrapping_add(40);
        for _ in 0..EXTENSION_HEADERS_MAX {
            let step = match protocol {
                // Hop-by-hop options, routing, destination options: units of 8 bytes after the
                // first 8.
                0 | 43 | 60 => {
                    let [next, length] = packet.load::<2>(at).ok_or(INVALID_CHAIN)?;
                    protocol = next;
                    u32::from(length).wrapping_add(1).wrapping_mul(8)
                }
                // Fragment header (section 4.5).
                44 => {
                    let [next, _, f0, f1, i0, i1, i2, i3] =
                        packet.load::<8>(at).ok_or(INVALID_CHAIN)?;
                    protocol = next;
                    self.identification = [i0, i1, i2, i3];
                    self.fragment = fragment_of(f0 != 0 || f1 & 0xf8 != 0, f1 & 1 != 0);
                    8
                }
                _ => break,
            };
            at = at.wrapping_add(step);
            if at.wrapping_sub(offset) > self.l3_length {
                return Err(INVALID_CHAIN);
            }
            if matches!(self.fragment, Fragment::Later) {
                // What follows is payload, whatever the next header says.
                break;
            }
        }
        if matches!(protocol, 0 | 43 | 44 | 60) && !matches!(self.fragment, Fragment::Later) {
            return Err(INVALID_CHAIN);
        }
        self.key = FlowKey::new(
            Address::from_v6([s0, s1, s2, s3]),
            Address::from_v6([d0, d1, d2, d3]),
            Protocol(protocol),
        );
        self.l4_offset = at;
        Ok(())
    }
}

/// An offset of zero with no more to come is a whole packet ("atomic fragment", RFC 6946).
#[inline(always)]
const fn fragment_of(has_offset: bool, more: bool) -> Fragment {
    match (has_offset, more) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::Whole,
    }
}
