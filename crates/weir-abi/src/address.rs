// SPDX-License-Identifier: Apache-2.0
//! Addresses, ports and protocol numbers as they appear in packets and in map keys.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first twelve bytes of an IPv4 address in its IPv6 form (RFC 4291, section 2.5.5.2).
pub const MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// The last four bytes of [`MAPPED_PREFIX`], the only ones that are not all zero.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// An IPv4 or IPv6 address, 16 bytes in network order; IPv4 is stored as `::ffff:a.b.c.d`.
///
/// One form for both families keeps every look-up, comparison and checksum a single code path. The
/// mapped prefix adds the same amount to both sides of a checksum difference and so cancels out.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// `::`, the unspecified address; never a mapped IPv4 address.
    pub const UNSPECIFIED: Self = Self([0; 16]);

    /// The mapped form of an IPv4 address given in network order.
    #[inline(always)]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        let (prefix, octets) = (MAPPED as u64, u32::from_ne_bytes(octets) as u64);
        Self::from_words([
            0,
            if cfg!(target_endian = "little") {
                octets << 32 | prefix
            } else {
                prefix << 32 | octets
            },
        ])
    }

    /// An IPv6 address from the words of a header.
    #[inline(always)]
    pub const fn from_v6(words: [u32; 4]) -> Self {
        Self::from_words(zerocopy::transmute!(words))
    }

    /// The address as two words, as they lie in memory. Taken to bytes and put together again, an
    /// address costs the programs sixteen loads, and what is stored in bytes is slow to read as a word.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 2] {
        zerocopy::transmute!(self.0)
    }

    /// The address of [`Self::words`].
    #[inline(always)]
    pub const fn from_words(words: [u64; 2]) -> Self {
        Self(zerocopy::transmute!(words))
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [a, b, prefix, _]: [u32; 4] = zerocopy::transmute!(self.0);
        a | b == 0 && prefix == MAPPED
    }

    /// The last four bytes: the IPv4 address where [`Self::is_v4`] holds.
    #[inline(always)]
    pub const fn v4_octets(&self) -> [u8; 4] {
        let [.., a, b, c, d] = self.0;
        [a, b, c, d]
    }

    /// `fe80::/10` (RFC 4291, section 2.5.6) or 169.254.0.0/16 (RFC 3927).
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        let [a, b, .., y, z, _, _] = self.0;
        if self.is_v4() {
            y == 169 && z == 254
        } else {
            a == 0xfe && b & 0xc0 == 0x80
        }
    }

    /// `ff00::/8`, 224.0.0.0/4 or the IPv4 broadcast address.
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        let [a, .., x, y, z, w] = self.0;
        if self.is_v4() {
            x & 0xf0 == 0xe0 || (x == 255 && y == 255 && z == 255 && w == 255)
        } else {
            a == 0xff
        }
    }

    /// The address in the standard library's form, mapped addresses as IPv4.
    pub fn to_ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from(self.v4_octets()))
        } else {
            IpAddr::V6(Ipv6Addr::from(self.0))
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4(address.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.octets())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// A transport port, or what stands in its place (the ICMP echo identifier), in network order.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Port(pub [u8; 2]);

impl Port {
    /// Port 0: "no port", as in the unused half of an echo key.
    pub const NONE: Self = Self([0; 2]);

    /// From a number in host order.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be_bytes())
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be_bytes(self.0)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// An Ethernet address.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The host side of every pod link: what pods see as their gateway.
    pub const GATEWAY: Self = Self([0x0a, 0x57, 0x45, 0x49, 0x52, 0x01]);
    /// `weir_host`, through which the node's own stack is reached.
    pub const HOST: Self = Self([0x0a, 0x57, 0x45, 0x49, 0x52, 0x02]);
    /// The inner Ethernet header of every tunnelled packet carries this as its destination.
    pub const TUNNEL: Self = Self([0x0a, 0x57, 0x45, 0x49, 0x52, 0x03]);
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    pub const ICMP: Self = Self(1);
    pub const TCP: Self = Self(6);
    pub const UDP: Self = Self(17);
    pub const ICMPV6: Self = Self(58);
    pub const SCTP: Self = Self(132);

    /// The name that listings print: `TCP`, `UDP`, `ICMP`, `ICMPv6`, `SCTP`; others have none.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::ICMP => Some("ICMP"),
            Self::TCP => Some("TCP"),
            Self::UDP => Some("UDP"),
            Self::ICMPV6 => Some("ICMPv6"),
            Self::SCTP => Some("SCTP"),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "proto-{}", self.0),
        }
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_told_apart() {
        let v4 = Address::from(Ipv4Addr::new(10, 0, 0, 1));
        let v6 = Address::from(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
        assert!(v4.is_v4());
        assert!(!v6.is_v4());
        assert!(!Address::UNSPECIFIED.is_v4());
        assert_eq!(v4.to_ip(), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(
            v6.to_ip(),
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))
        );
    }

    #[test]
    fn special_ranges_follow_the_standard_library() {
        for text in [
            "169.254.1.1",
            "fe80::1",
            "10.0.0.1",
            "fd00::1",
            "febf::1",
            "fec0::1",
        ] {
            let ip: IpAddr = text.parse().unwrap();
            let expected = match ip {
                IpAddr::V4(v4) => v4.is_link_local(),
                IpAddr::V6(v6) => v6.is_unicast_link_local(),
            };
            assert_eq!(Address::from(ip).is_link_local(), expected, "{text}");
        }
        for text in ["224.0.0.1", "239.1.1.1", "240.0.0.1", "ff02::1", "fe80::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(
                Address::from(ip).is_multicast(),
                ip.is_multicast(),
                "{text}"
            );
        }
    }
}
