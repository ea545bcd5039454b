// SPDX-License-Identifier: Apache-2.0
//! Counters that the programs keep in pinned maps, so that they survive the agent.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Value of the per-CPU `metrics` array; the place is [`metric_index`].
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Metric {
    pub packets: u64,
    /// Bytes from the IP header on (of the frame, where no IP header was found).
    pub bytes: u64,
}

/// Which way a counted packet was going, seen from the pods of this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Direction {
    /// Neither, or not known yet.
    Unspecified = 0,
    /// Towards a pod or the node.
    Ingress = 1,
    /// From a pod or the node.
    Egress = 2,
}

impl Direction {
    /// All directions in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Unspecified, Self::Ingress, Self::Egress];

    /// As metrics label it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "UNSPECIFIED",
            Self::Ingress => "INGRESS",
            Self::Egress => "EGRESS",
        }
    }
}

/// Entries of the `metrics` array: 256 reasons (0 is "forwarded") times four directions.
pub const METRICS: u32 = 1024;

/// The place of a reason's counter.
#[inline(always)]
pub const fn metric_index(reason: u8, direction: Direction) -> u32 {
    (reason as u32) << 2 | direction as u32
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $label:literal;)*) => {
        /// Things that the programs count beside packets: places in the per-CPU `counters` array.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Counter { $($(#[$doc])* $name = $number,)* }

        impl Counter {
            /// All counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name in listings and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

counters! {
    /// Events that found no room in the ring buffer.
    EventsLost = 0, "events_lost";
    /// Flows seen for the first time (pairs of entries).
    FlowsCreated = 1, "flows_created";
    /// Flows decided again because something they depended on changed, or their pair was gone.
    FlowsRefreshed = 2, "flows_refreshed";
    /// Ports tried for masquerading beyond the first.
    MasqueradeRetries = 3, "masquerade_retries";
    /// ICMP errors sent by the programs ("fragmentation needed", "time exceeded", …).
    IcmpErrorsSent = 4, "icmp_errors_sent";
    /// ICMP errors translated back to the flow they are about.
    IcmpErrorsTranslated = 5, "icmp_errors_translated";
    /// Packets that the fast path handed to the full decision.
    SlowPath = 6, "slow_path";
    /// Packets that the program at a device's driver forwarded.
    Accelerated = 7, "accelerated";
}

/// Entries of the `counters` array.
pub const COUNTERS: u32 = 32;
