// SPDX-License-Identifier: Apache-2.0
//! What the programs are told once, at load time.

use crate::address::{Address, Port};
use crate::number::IfIndex;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Load-time constants, stored in the object's read-only data under the name
/// [`DatapathConfig::SYMBOL`] and frozen before verification: a feature that is off is dead code to
/// the verifier. A change means loading again and a link update, which no packet notices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct DatapathConfig {
    /// Bits of [`features`].
    pub features: u32,
    /// The interface `weir_host`.
    pub host: IfIndex,
    /// The node's primary addresses, unspecified where it has none of that family: sources of
    /// masqueraded packets and of ICMP errors towards the network.
    pub node_ipv4: Address,
    pub node_ipv6: Address,
    /// UDP port of the tunnel.
    pub tunnel_port: Port,
    /// MTU of the underlay devices, bytes.
    pub underlay_mtu: u16,
    /// MTU of the pods' links, bytes.
    pub pod_mtu: u16,
    /// First and last port that masquerading hands out.
    pub masquerade_port_min: u16,
    pub masquerade_port_max: u16,
    /// Seconds between two reports (and revalidations) of one direction of a flow.
    pub report_interval: u16,
    /// Time-outs in seconds (reference: Cilium's defaults).
    pub timeout_tcp: u16,
    pub timeout_tcp_syn: u16,
    pub timeout_tcp_closing: u16,
    pub timeout_other: u16,
    /// Bytes of a packet that an event carries, at most [`crate::event::CAPTURE_MAX`].
    pub capture_length: u16,
    /// What becomes of a packet to a service without a backend: 0 rejected, 1 dropped in silence.
    pub no_backend_drops: u8,
    /// Whether sockets of pods are translated (those of the node always are): 0 or 1.
    pub pod_sockets: u8,
    /// Entries of one Maglev table, a prime; 0: backends are chosen by a seeded hash.
    pub maglev_size: u32,
    /// What keeps the choice of backends from being foreseen.
    pub seed: u32,
    /// The node's own network namespace (`SO_NETNS_COOKIE`).
    pub node_namespace: u64,
    /// Seconds for a TCP connection of which one side has said that it will send no more: the other may never do so
    /// (`CLOSE_WAIT`), and kube-proxy gives such connections an hour.
    pub timeout_tcp_half_closed: u16,
    pub reserved: [u8; 6],
}

/// Bits of [`DatapathConfig::features`].
pub mod features {
    /// Pods of other nodes are reached through the tunnel, else by routing.
    pub const TUNNEL: u32 = 0x01;
    /// Traffic from pods to addresses outside the cluster takes the node's address.
    pub const MASQUERADE: u32 = 0x02;
    /// Decide only: no map row, counter, event or packet is written (ADR 0002).
    pub const DRY_RUN: u32 = 0x04;
    /// Send trace events (drops are always sent).
    pub const TRACE: u32 = 0x08;
    /// Answer packets that do not fit, or whose TTL is used up, by ICMP errors.
    pub const ICMP_ERRORS: u32 = 0x10;
    /// Backends on other nodes answer clients from outside the cluster directly.
    pub const DIRECT_RETURN: u32 = 0x20;

    /// Every feature with the name that listings and snapshots use.
    pub const ALL: [(u32, &str); 6] = [
        (TUNNEL, "tunnel"),
        (MASQUERADE, "masquerade"),
        (DRY_RUN, "dry-run"),
        (TRACE, "trace"),
        (ICMP_ERRORS, "icmp-errors"),
        (DIRECT_RETURN, "direct-return"),
    ];
}

impl DatapathConfig {
    /// Name of the constant in the object.
    pub const SYMBOL: &'static str = "CONFIG";
    /// The overlay's fixed network identifier (identities are resolved by address, ADR 0005).
    pub const VNI: [u8; 3] = [0, 0, 1];
    /// Outer headers of the tunnel over IPv4: 20 IPv4, 8 UDP, 8 VXLAN, 14 inner Ethernet.
    pub const TUNNEL_OVERHEAD_V4: u16 = 50;
    /// The same over IPv6 (40 bytes of IP header).
    pub const TUNNEL_OVERHEAD_V6: u16 = 70;
    /// UDP port of packets that name their backend: Geneve's (RFC 8926), so that tools can read them.
    pub const DISPATCH_PORT: Port = Port::new(6081);
    /// Outer headers of such a packet over IPv4: those of the tunnel and an option of 24 bytes.
    pub const DISPATCH_OVERHEAD_V4: u16 = 74;
    /// The same over IPv6.
    pub const DISPATCH_OVERHEAD_V6: u16 = 94;

    /// Tunnel mode with masquerading and the defaults of the field; no addresses.
    pub const DEFAULT: Self = Self {
        features: features::TUNNEL | features::MASQUERADE | features::TRACE | features::ICMP_ERRORS,
        host: IfIndex::NONE,
        node_ipv4: Address::UNSPECIFIED,
        node_ipv6: Address::UNSPECIFIED,
        tunnel_port: Port::new(8472),
        underlay_mtu: 1500,
        pod_mtu: 1450,
        masquerade_port_min: 32768,
        masquerade_port_max: 65535,
        report_interval: 5,
        timeout_tcp: 8000,
        timeout_tcp_syn: 60,
        timeout_tcp_closing: 10,
        timeout_other: 60,
        capture_length: 128,
        no_backend_drops: 0,
        pod_sockets: 1,
        maglev_size: 0,
        seed: 0,
        node_namespace: 0,
        timeout_tcp_half_closed: 3600,
        reserved: [0; 6],
    };

    /// Whether a bit of [`features`] is on.
    #[inline(always)]
    pub const fn has(&self, feature: u32) -> bool {
        self.features & feature != 0
    }
}

impl Default for DatapathConfig {
    fn default() -> Self {
        Self::DEFAULT
    }
}
