// SPDX-License-Identifier: Apache-2.0
//! Policy sets: which peers and ports are allowed, by rows that several endpoints share (ADR 0006,
//! ADR 0010).
//!
//! A verdict looks up at most three keys: any peer, the peer's identity, and the group of `ipBlock`s
//! that the peer's address lies in. Among the port rules that match, the highest precedence wins,
//! and deny over allow where it is equal; nothing that matches is a denial.

use crate::address::Protocol;
use crate::number::{BlockGroup, PolicyCookie, PolicySet};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What [`PolicyKey::peer`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PeerKind {
    /// Every peer; the number is 0.
    Any = 0,
    /// An [`crate::Identity`].
    Identity = 1,
    /// A [`BlockGroup`].
    Blocks = 2,
}

/// Which way the traffic that a set decides on goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PolicyDirection {
    /// Into the endpoint.
    Ingress = 0,
    /// Out of the endpoint.
    Egress = 1,
}

impl PolicyDirection {
    /// As listings name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// Key of the `policy` map.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct PolicyKey {
    /// An identity, a block group, or 0.
    pub peer: u32,
    /// Zero. (Placed so that constants that the compiler stores together begin at a multiple of
    /// eight, which the verifier asks of the stack.)
    pub reserved: u32,
    /// A number of [`PeerKind`].
    pub peer_kind: u8,
    /// A number of [`PolicyDirection`].
    pub direction: u8,
    /// 0, then 1 and so on while [`PolicyRow::continues`].
    pub part: u16,
    pub set: PolicySet,
}

/// Port rules in one row.
pub const RULES_PER_ROW: usize = 8;
/// Rows that one peer can have in one direction of a set.
pub const PARTS_MAX: u16 = 16;

/// Protocol and ports that are allowed (or denied) for the peer of the row.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PortRule {
    /// Resolves to the policies behind the rule, and is the place of its counter.
    pub cookie: PolicyCookie,
    /// First and last port, host order; 0 to 65535 is every port (and what has no ports).
    pub first_port: u16,
    pub last_port: u16,
    /// Higher wins.
    pub precedence: u16,
    /// 0 is every protocol.
    pub protocol: Protocol,
    /// Bits of [`rule_flags`].
    pub flags: u8,
}

/// Bits of [`PortRule::flags`].
pub mod rule_flags {
    /// The rule denies.
    pub const DENY: u8 = 0x01;
}

/// Value of the `policy` map.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PolicyRow {
    /// What the row is about, as in its key. The programs look at it after the rules: a row whose
    /// memory passed to another one meanwhile allows nothing.
    pub set: PolicySet,
    pub peer: u32,
    /// Rules in use, at most [`RULES_PER_ROW`].
    pub count: u16,
    /// 1: the row with the next `part` goes on.
    pub continues: u16,
    pub rules: [PortRule; RULES_PER_ROW],
}

/// Value of the `policy_hits` array; the place is a [`PolicyCookie`].
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PolicyHits {
    /// Connections that the rule decided.
    pub packets: u64,
    /// Bytes of the packets that were decided on.
    pub bytes: u64,
}

impl PolicyRow {
    /// The rows of one peer, in parts; `None` where they do not fit into [`PARTS_MAX`] rows.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most PARTS_MAX parts of RULES_PER_ROW rules"
    )]
    pub fn parts(
        first: PolicyKey,
        rules: &[PortRule],
    ) -> Option<impl Iterator<Item = (PolicyKey, Self)>> {
        let count = rules.len().div_ceil(RULES_PER_ROW);
        if count > usize::from(PARTS_MAX) {
            return None;
        }
        let chunks = rules.chunks(RULES_PER_ROW).enumerate();
        Some(chunks.map(move |(part, chunk)| {
            let mut row = Self {
                set: first.set,
                peer: first.peer,
                count: chunk.len() as u16,
                continues: u16::from(part + 1 < count),
                rules: [PortRule::default(); RULES_PER_ROW],
            };
            for (place, rule) in row.rules.iter_mut().zip(chunk) {
                *place = *rule;
            }
            let key = PolicyKey {
                part: part as u16,
                ..first
            };
            (key, row)
        }))
    }
}

impl PolicyKey {
    /// The first part of a peer's rows.
    #[inline(always)]
    pub const fn new(
        set: PolicySet,
        direction: PolicyDirection,
        peer_kind: PeerKind,
        peer: u32,
    ) -> Self {
        Self {
            set,
            peer,
            peer_kind: peer_kind as u8,
            direction: direction as u8,
            part: 0,
            reserved: 0,
        }
    }

    /// The key of a block group.
    #[inline(always)]
    pub const fn blocks(set: PolicySet, direction: PolicyDirection, group: BlockGroup) -> Self {
        Self::new(set, direction, PeerKind::Blocks, group.0)
    }
}
