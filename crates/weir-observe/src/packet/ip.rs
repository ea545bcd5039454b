// SPDX-License-Identifier: Apache-2.0
//! IP headers of both families.

use super::{array, number16};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use weir_abi::Protocol;

/// Extension headers that are followed.
const EXTENSIONS_MAX: usize = 8;

/// An IP header of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Behind the extension headers.
    pub protocol: Protocol,
    pub ttl: u8,
    /// Header and payload, as the header says.
    pub length: usize,
    /// Byte offset of a later fragment; 0: the first fragment, or none.
    pub fragment_offset: u16,
    pub more_fragments: bool,
}

impl Ip {
    /// The header and its length with options or extension headers.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        match bytes.first()? >> 4 {
            4 => Self::parse_v4(bytes),
            6 => Self::parse_v6(bytes),
            _ => None,
        }
    }

    fn parse_v4(bytes: &[u8]) -> Option<(Self, usize)> {
        let header = usize::from(bytes.first()? & 0x0f) * 4;
        let fragment = number16(bytes, 6)?;
        let ip = Self {
            source: Ipv4Addr::from(array::<4>(bytes, 12)?).into(),
            destination: Ipv4Addr::from(array::<4>(bytes, 16)?).into(),
            protocol: Protocol(*bytes.get(9)?),
            ttl: *bytes.get(8)?,
            length: number16(bytes, 2)?.into(),
            fragment_offset: (fragment & 0x1fff) << 3,
            more_fragments: fragment & 0x2000 != 0,
        };
        (header >= 20).then_some((ip, header))
    }

    fn parse_v6(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut ip = Self {
            source: Ipv6Addr::from(array::<16>(bytes, 8)?).into(),
            destination: Ipv6Addr::from(array::<16>(bytes, 24)?).into(),
            protocol: Protocol(*bytes.get(6)?),
            ttl: *bytes.get(7)?,
            length: 40 + usize::from(number16(bytes, 4)?),
            fragment_offset: 0,
            more_fragments: false,
        };
        let mut header = 40;
        for _ in 0..EXTENSIONS_MAX {
            let length = match ip.protocol.0 {
                // Hop-by-hop, routing, destination options, mobility: in units of 8 bytes, the
                // first not counted (RFC 8200, section 4).
                0 | 43 | 60 | 135 => bytes.get(header + 1).map(|&len| usize::from(len) * 8 + 8),
                44 => {
                    let fragment = number16(bytes, header + 2).unwrap_or_default();
                    ip.fragment_offset = fragment & 0xfff8;
                    ip.more_fragments = fragment & 1 != 0;
                    Some(8)
                }
                // Authentication: in units of 4 bytes, the first two not counted (RFC 4302).
                51 => bytes.get(header + 1).map(|&len| usize::from(len) * 4 + 8),
                _ => None,
            };
            let (Some(length), Some(&next)) = (length, bytes.get(header)) else {
                break;
            };
            ip.protocol = Protocol(next);
            header += length;
            if ip.fragment_offset > 0 {
                break;
            }
        }
        Some((ip, header))
    }
}

impl fmt::Display for Ip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.source.is_ipv4() {
            "ipv4"
        } else {
            "ipv6"
        };
        let Self {
            source,
            destination,
            protocol,
            ttl,
            length,
            fragment_offset,
            more_fragments,
        } = self;
        write!(
            f,
            "{family} {source} -> {destination} {protocol} ttl {ttl} length {length}"
        )?;
        if *fragment_offset > 0 || *more_fragments {
            let more = if *more_fragments {
                ", more follow"
            } else {
                ", last"
            };
            write!(f, " fragment at {fragment_offset}{more}")?;
        }
        Ok(())
    }
}
