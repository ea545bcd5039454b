// SPDX-License-Identifier: Apache-2.0
//! Does this packet belong to a connection, and what does it change about it?

use crate::direct;
use crate::live::LiveFlow;
use crate::tables::Tables;
use weir_abi::flow::{Dependencies, Kind, state};
use weir_abi::{
    FlowEntry, FlowKey, Generation, IfIndex, MacAddress, NodeIndex, PolicyCookie, Protocol,
    Seconds, Slot,
};
use weir_packet::checksum::{address_delta, port_delta};
use weir_packet::{Summary, tcp_flags};

/// The connection that a packet belongs to, as far as the table remembers it.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'t> {
    /// The entry of the packet's own direction.
    pub own: Option<LiveFlow<'t>>,
    /// The entry of the other direction.
    pub pair: Option<LiveFlow<'t>>,
    /// The packet answers the direction that opened the connection.
    pub reply: bool,
    pub standing: Standing,
}

impl Connection<'_> {
    /// Nothing known.
    pub const NONE: Self = Self {
        own: None,
        pair: None,
        reply: false,
        standing: Standing::New,
    };
}

impl Connection<'_> {
    /// The packet goes to a service, which an entry translates.
    #[inline(always)]
    pub fn is_to_service(&self) -> bool {
        self.own.as_ref().is_some_and(|own| {
            let kind = own.fixed().kind;
            kind.contains(Kind::TRANSLATE_DESTINATION) && !kind.contains(Kind::REPLY)
        })
    }

    /// The packet goes towards where the connection was opened to, and may go elsewhere than those before it: it is not in
    /// the middle of a conversation that only one peer can continue.
    #[inline(always)]
    pub fn may_move(&self, summary: &Summary) -> bool {
        !self.reply && (!matches!(summary.key.protocol, Protocol::TCP) || opens(summary))
    }

    /// The packet is another try to open a connection that nobody has answered.
    #[inline(always)]
    pub fn is_opening(&self, summary: &Summary) -> bool {
        opens(summary) && self.own.as_ref().is_some_and(|own| !own.is_answered())
    }
}

/// How a packet relates to what is in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It opens a connection.
    New,
    /// It opens a connection where a closed one stood (TCP port reuse).
    Reopened,
    /// It continues one.
    Continued,
}

/// Looks both ways: under the packet's own tuple, and, where that entry is gone (evicted, or not
/// made yet), under the reversed one. A connection lives while either of its entries does.
///
/// `absent`: the own entry has been looked for and is not there. `pair_key` is memory for the key of the other direction.
#[inline(always)]
pub fn find<'t, T: Tables>(
    tables: &'t T,
    summary: &Summary,
    absent: bool,
    now: Seconds,
    pair_key: &mut FlowKey,
) -> Connection<'t> {
    let key = &summary.key;
    if !absent && let Some(own) = tables.flow(key) {
        *pair_key = own.fixed().pair_key(key);
        let pair = tables
            .flow(pair_key)
            .filter(|pair| points_to(pair, pair_key, key));
        let alive = own.expires() > now || pair.is_some_and(|pair| pair.expires() > now);
        let reply = own.fixed().kind.contains(Kind::REPLY);
        let closed = own.state() & (state::CLOSING | state::PEER_CLOSING) != 0;
        let standing = if !alive || direct::is_outdated(tables, own.fixed().kind) {
            Standing::New
        } else if closed && opens(summary) {
            Standing::Reopened
        } else {
            return Connection {
                own: Some(own),
                pair,
                reply,
                standing: Standing::Continued,
            };
        };
        return Connection {
            own: None,
            pair: None,
            reply: false,
            standing,
        };
    }
    *pair_key = key.reversed();
    // A SYN opens whatever is there: what it belongs to was under its own tuple. A left-over of the
    // other direction is met when the tuple of the answers is reserved.
    if !opens(summary)
        && let Some(pair) = tables.flow(pair_key)
        && points_to(&pair, pair_key, key)
        && pair.expires() > now
    {
        let reply = !pair.fixed().kind.contains(Kind::REPLY);
        return Connection {
            own: None,
            pair: Some(pair),
            reply,
            standing: Standing::Continued,
        };
    }
    Connection {
        own: None,
        pair: None,
        reply: false,
        standing: Standing::New,
    }
}

/// Whether an entry is the other half of the one under `key`, not a leftover of something else.
#[inline(always)]
fn points_to(pair: &LiveFlow<'_>, pair_key: &FlowKey, key: &FlowKey) -> bool {
    pair.fixed().pair_key(pair_key) == *key
}

/// A TCP SYN without ACK.
#[inline(always)]
fn opens(summary: &Summary) -> bool {
    matches!(summary.key.protocol, Protocol::TCP)
        && summary.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK) == tcp_flags::SYN
}

/// State bits that this packet adds to its own direction.
#[inline(always)]
pub fn own_state(summary: &Summary, continued: bool) -> u32 {
    let flags = summary.tcp_flags;
    let mut bits = u32::from(flags) << state::TCP_FLAGS_SHIFT;
    if matches!(summary.key.protocol, Protocol::TCP) {
        if flags & tcp_flags::SYN == 0 {
            bits |= state::SEEN_NON_SYN;
        }
        if flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
            bits |= state::CLOSING;
        }
        if flags & tcp_flags::RST != 0 {
            bits |= state::PEER_CLOSING;
        }
    } else if continued {
        bits |= state::SEEN_NON_SYN;
    }
    bits
}

/// State bits that this packet adds to the other direction.
#[inline(always)]
pub fn pair_state(summary: &Summary, reply: bool) -> u32 {
    let flags = summary.tcp_flags;
    let mut bits = if reply { state::ANSWERED } else { 0 };
    if flags & (tcp_flags::FIN | tcp_flags::RST) != 0 {
        bits |= state::PEER_CLOSING;
    }
    if flags & tcp_flags::RST != 0 {
        bits |= state::CLOSING;
    }
    bits
}

/// How long an entry lives without another packet (RFC 5382 and RFC 4787 set the floor; the values
/// are configuration).
#[inline(always)]
pub fn timeout<T: Tables>(tables: &T, protocol: Protocol, bits: u32) -> u32 {
    const BOTH: u32 = state::CLOSING | state::PEER_CLOSING;
    if !matches!(protocol, Protocol::TCP) {
        return u32::from(tables.config(|config| &config.timeout_other));
    }
    if bits & BOTH != 0 {
        return u32::from(if bits & BOTH == BOTH {
            tables.config(|config| &config.timeout_tcp_closing)
        } else {
            tables.config(|config| &config.timeout_tcp_half_closed)
        });
    }
    if bits & (state::SEEN_NON_SYN | state::ANSWERED) == 0 {
        return u32::from(tables.config(|config| &config.timeout_tcp_syn));
    }
    u32::from(tables.config(|config| &config.timeout_tcp))
}

/// The other direction's entry before its first packet: it exists, so that the packet is known to
/// be an answer, and says how addresses are translated back; where the packet goes is decided when
/// it comes ([`FlowEntry::action`] is no action yet).
///
/// Field by field, here and elsewhere in the slow path: an entry built as a whole would first be
/// built on the kernel's small stack.
#[inline(always)]
pub fn write_pair(pair: &mut FlowEntry, key: &FlowKey, entry: &FlowEntry) {
    let Kind(bits) = entry.kind;
    let mut kind = (bits ^ Kind::REPLY.0) & (Kind::REPLY.0 | Kind::OUT.0 | Kind::MASQUERADE.0);
    if entry.kind.contains(Kind::TRANSLATE_SOURCE) {
        kind |= Kind::TRANSLATE_DESTINATION.0;
    }
    if entry.kind.contains(Kind::TRANSLATE_DESTINATION) {
        kind |= Kind::TRANSLATE_SOURCE.0;
    }
    pair.expires = entry.expires;
    pair.last_report = Seconds(0);
    pair.state = 0;
    pair.ingress = IfIndex::NONE;
    pair.dependencies = Dependencies {
        slots: [Slot::NONE; 4],
        generations: [Generation(0); 4],
    };
    pair.egress = IfIndex::NONE;
    pair.action = 0;
    pair.kind = Kind(kind);
    pair.mtu = 0;
    pair.destination_mac = MacAddress([0; 6]);
    pair.source_mac = MacAddress([0; 6]);
    pair.node = NodeIndex::NONE;
    pair.sender = NodeIndex::NONE;
    pair.packets = 0;
    pair.bytes = 0;
    pair.translated_source = key.destination;
    pair.translated_destination = key.source;
    pair.translated_source_port = key.destination_port;
    pair.translated_destination_port = key.source_port;
    pair.address_delta = [0; 2];
    pair.port_delta = [0; 2];
    pair.cookie = PolicyCookie::NONE;
    pair.created = entry.created;
}

/// Works out what the translation does to checksums.
#[inline(always)]
pub fn write_deltas(key: &FlowKey, entry: &mut FlowEntry) {
    entry.address_delta = address_delta(
        [&key.source, &key.destination],
        [&entry.translated_source, &entry.translated_destination],
    );
    entry.port_delta = port_delta(
        [key.source_port, key.destination_port],
        [
            entry.translated_source_port,
            entry.translated_destination_port,
        ],
    );
}
