// SPDX-License-Identifier: Apache-2.0
//! The flow table: what an established packet needs, in one look-up (ADR 0007).
//!
//! A connection is two entries: one under the key of its first packet ([`Kind::REPLY`] clear) and
//! one under the key that packets of the other direction carry when they reach this node. Each
//! entry says how packets of its direction are translated and where they go next, and names what
//! that decision depended on ([`Dependencies`]). There is no other connection table: conntrack and
//! NAT listings, garbage collection and diagnosis all read these entries.

use crate::address::{Address, MacAddress, Port, Protocol};
use crate::number::{Generation, IfIndex, NodeIndex, PolicyCookie, Seconds, Slot};
use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The tuple of a packet as it stands in the packet at the hook where it is seen.
///
/// For ICMP echo the identifier takes the place of a port: of the source port in a request, of the
/// destination port in a reply, the other one is 0; so a reply's key is the request's reversed.
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
)]
#[repr(C, align(8))]
pub struct FlowKey {
    pub source: Address,
    pub destination: Address,
    pub source_port: Port,
    pub destination_port: Port,
    /// Zero; room for a zone, so that overlapping address ranges can be told apart later.
    pub zone: [u8; 2],
    pub protocol: Protocol,
    /// Zero. (Every field lies at a multiple of its size, which the verifier asks of the stack.)
    pub reserved: u8,
}

impl FlowKey {
    /// A key without ports. Whole words, here and in [`Self::set_ports`]: a key is hashed and
    /// compared by words right after it was stored.
    #[inline(always)]
    pub const fn new(source: Address, destination: Address, protocol: Protocol) -> Self {
        let ([a, b], [c, d]) = (source.words(), destination.words());
        let tail = tail(Port::NONE, Port::NONE, protocol);
        zerocopy::transmute!([a, b, c, d, tail])
    }

    /// Gives a key its ports.
    #[inline(always)]
    pub fn set_ports(&mut self, source: Port, destination: Port) {
        let new = tail(source, destination, self.protocol);
        let [.., last]: &mut [u64; 5] = zerocopy::transmute_mut!(self);
        *last = new;
    }

    /// The key of the other direction, where nothing is translated.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            zone: self.zone,
            reserved: 0,
        }
    }
}

/// What follows the addresses of a key.
#[inline(always)]
const fn tail(source: Port, destination: Port, protocol: Protocol) -> u64 {
    let ports = u32::from_ne_bytes(zerocopy::transmute!([source.0, destination.0])) as u64;
    if cfg!(target_endian = "little") {
        ports | (protocol.0 as u64) << 48
    } else {
        ports << 32 | (protocol.0 as u64) << 8
    }
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            source,
            destination,
            source_port,
            destination_port,
            protocol,
            zone: _,
            reserved: _,
        } = self;
        let (open, close) = if source.is_v4() { ("", "") } else { ("[", "]") };
        write!(
            f,
            "{protocol} {open}{source}{close}:{source_port} -> {open}{destination}{close}:{destination_port}"
        )
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a packet of the flow does after its rewrite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Action {
    /// Into the pod behind interface [`FlowEntry::egress`].
    ToEndpoint = 1,
    /// Out of device [`FlowEntry::egress`] with the entry's MAC addresses.
    ToDevice = 2,
    /// Encapsulated for node [`FlowEntry::node`], then as [`Action::ToDevice`].
    ToTunnel = 3,
    /// Into the node's own stack through `weir_host`.
    ToHost = 4,
    /// On along the path it is on: to or from the node's own sockets.
    Pass = 5,
}

impl Action {
    /// The action with this number, as stored in an entry.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::ToEndpoint),
            2 => Some(Self::ToDevice),
            3 => Some(Self::ToTunnel),
            4 => Some(Self::ToHost),
            5 => Some(Self::Pass),
            _ => None,
        }
    }
}

/// What never changes about a flow entry while it lives (a set of bits).
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(transparent)]
pub struct Kind(pub u8);

impl Kind {
    /// Packets of this entry answer the direction that opened the flow.
    pub const REPLY: Self = Self(0x01);
    /// The flow was opened from this node (a pod or the node itself): listed as `OUT`, else `IN`.
    pub const OUT: Self = Self(0x02);
    /// The source address or port is rewritten.
    pub const TRANSLATE_SOURCE: Self = Self(0x04);
    /// The destination address or port is rewritten.
    pub const TRANSLATE_DESTINATION: Self = Self(0x08);
    /// The flow is masqueraded: this entry is half of a NAT mapping.
    pub const MASQUERADE: Self = Self(0x10);
    /// Packets must arrive inside the tunnel.
    pub const FROM_TUNNEL: Self = Self(0x20);
    /// Packets leave as they came and name the backend (the translated destination) beside them:
    /// its node translates them and answers the client itself. The flow has no other direction
    /// on this node.
    pub const DIRECT: Self = Self(0x40);

    /// All bits of `other` are set.
    #[inline(always)]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits of this one that the other one lacks.
    #[inline(always)]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether packets are translated, here or, with [`Self::DIRECT`], by the backend's node.
    #[inline(always)]
    pub const fn translates(self) -> bool {
        self.0 & (Self::TRANSLATE_SOURCE.0 | Self::TRANSLATE_DESTINATION.0) != 0
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// Bits of [`FlowEntry::state`], which changes while the flow lives.
pub mod state {
    /// A FIN or RST was seen in this entry's direction.
    pub const CLOSING: u32 = 0x01;
    /// A FIN or RST was seen in the other direction.
    pub const PEER_CLOSING: u32 = 0x02;
    /// A packet other than the opening SYN was seen (for TCP), or a second packet (others).
    pub const SEEN_NON_SYN: u32 = 0x04;
    /// The other direction has answered: the flow is established.
    pub const ANSWERED: u32 = 0x08;
    /// TCP flags seen in this direction stand in these eight bits.
    pub const TCP_FLAGS_SHIFT: u32 = 8;
}

/// What the decision behind an entry depended on, as (slot, generation) pairs.
///
/// An entry is used only while every slot still holds the generation that was current when the
/// entry was written; otherwise the packet is decided again. Unused places hold slot 0, whose
/// generation never changes. Two objects may share a slot: then a change of one makes the other's
/// flows be decided again, which costs time but never correctness.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Dependencies {
    pub slots: [Slot; 4],
    pub generations: [Generation; 4],
}

/// One direction of a connection: 128 bytes, two cache lines; what every packet reads comes first.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct FlowEntry {
    /// The entry is dead from this second on. Changes with traffic.
    pub expires: Seconds,
    /// When the flow was last reported and revalidated. Changes with traffic.
    pub last_report: Seconds,
    /// Bits of [`state`]. Changes with traffic.
    pub state: u32,
    /// Packets must come in here; 0 is "anywhere".
    pub ingress: IfIndex,
    pub dependencies: Dependencies,
    /// Where packets leave, by [`Self::action`].
    pub egress: IfIndex,
    /// A number of [`Action`].
    pub action: u8,
    pub kind: Kind,
    /// Largest IP packet that fits the way, bytes; 0 is "not limited".
    pub mtu: u16,
    pub destination_mac: MacAddress,
    pub source_mac: MacAddress,
    /// The tunnel's far end, for [`Action::ToTunnel`].
    pub node: NodeIndex,
    /// The node that the tunnel must come from, with [`Kind::FROM_TUNNEL`].
    pub sender: NodeIndex,

    /// Packets of this direction. Changes with traffic.
    pub packets: u64,
    /// Bytes of this direction, IP header on. Changes with traffic.
    pub bytes: u64,
    pub translated_source: Address,
    pub translated_destination: Address,
    pub translated_source_port: Port,
    pub translated_destination_port: Port,
    /// Difference that the new addresses make to a ones' complement sum (RFC 1624), as bytes of
    /// the packet order.
    pub address_delta: [u8; 2],
    /// The same for the new ports.
    pub port_delta: [u8; 2],
    /// Resolves to the rules behind the verdict: in the entry of the direction that opened the flow
    /// those of the sender's egress, in the other one those of the receiver's ingress.
    pub cookie: PolicyCookie,
    /// When the flow was first seen by this node.
    pub created: Seconds,
}

impl FlowEntry {
    /// The tuple that packets of this entry carry after their rewrite.
    #[inline(always)]
    pub const fn translated(&self, key: &FlowKey) -> FlowKey {
        if self.kind.translates() {
            FlowKey {
                source: self.translated_source,
                destination: self.translated_destination,
                source_port: self.translated_source_port,
                destination_port: self.translated_destination_port,
                protocol: key.protocol,
                zone: key.zone,
                reserved: 0,
            }
        } else {
            *key
        }
    }

    /// The key of the other direction's entry.
    #[inline(always)]
    pub const fn pair_key(&self, key: &FlowKey) -> FlowKey {
        self.translated(key).reversed()
    }

    /// TCP flags seen in this direction.
    pub const fn tcp_flags_seen(&self) -> u8 {
        (self.state >> state::TCP_FLAGS_SHIFT).to_le_bytes()[0]
    }
}

/// Entries of the `generations` map: few enough that the map stays in the processor's caches.
pub const SLOTS: u32 = 4_096;

impl Slot {
    /// Never bumped: an unused place in [`Dependencies`].
    pub const NONE: Self = Self(0);
    /// Bumped to have every flow decided again.
    pub const ALL: Self = Self(1);
    /// Bumped when routes or neighbours of the node change, and together with [`Self::ALL`]: a flow
    /// that is routed depends on this one alone.
    pub const ROUTES: Self = Self(2);
    /// No generation: other than 0 once a service has sent a packet from the network to the node's
    /// own stack, whose answers have to be looked for from then on.
    pub const HOST_BACKENDS: Self = Self(3);

    /// Number of slots, the size of the `generations` map.
    const COUNT: u32 = SLOTS;
    /// Slots below this one stand for a single thing.
    const FIRST_HASHED: u32 = 16;

    /// The slot of whatever is known about an address: endpoint, identity, tunnel end.
    #[inline(always)]
    pub const fn of_address(address: &Address) -> Self {
        let [high, low] = address.words();
        // Fibonacci hashing: the upper bits of the product depend on all bits of the sum.
        let mixed = high
            .rotate_left(32)
            .wrapping_add(low)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self::spread((mixed >> 32) as u32)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the result is below COUNT")]
    const fn spread(hash: u32) -> Self {
        let range = Self::COUNT - Self::FIRST_HASHED;
        Self((((hash as u64 * range as u64) >> 32) as u32 + Self::FIRST_HASHED) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::size_of;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_what_the_kernel_side_was_measured_with() {
        assert_eq!(size_of::<FlowKey>(), 40);
        assert_eq!(size_of::<FlowEntry>(), 128);
    }

    #[test]
    fn what_every_packet_reads_is_in_the_first_cache_line() {
        assert_eq!(core::mem::offset_of!(FlowEntry, packets), 64);
    }

    proptest! {
        #[test]
        fn a_key_of_words_is_the_key_of_its_fields(a: [u8; 16], b: [u8; 4], ports: [[u8; 2]; 2], protocol: u8) {
            let (source, destination) = (Address(a), Address::from_v4(b));
            let mut key = FlowKey::new(source, destination, Protocol(protocol));
            key.set_ports(Port(ports[0]), Port(ports[1]));
            let expected = FlowKey {
                source,
                destination,
                source_port: Port(ports[0]),
                destination_port: Port(ports[1]),
                protocol: Protocol(protocol),
                zone: [0; 2],
                reserved: 0,
            };
            prop_assert_eq!(key, expected);
            prop_assert_eq!(Address::from_words(source.words()), source);
            let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, b[0], b[1], b[2], b[3]];
            prop_assert_eq!(destination.0, mapped);
            prop_assert!(destination.is_v4());
        }

        #[test]
        fn hashed_slots_stay_clear_of_the_fixed_ones(bytes: [u8; 16]) {
            prop_assert!(u32::from(Slot::of_address(&Address(bytes)).0) >= Slot::FIRST_HASHED);
        }
    }
}
