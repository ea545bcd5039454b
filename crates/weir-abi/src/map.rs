// SPDX-License-Identifier: Apache-2.0
//! The maps: names, default sizes, and what listings call them.

/// How full a map can get, and what happens then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapShape {
    /// Entries come and go; insertion fails when the map is full.
    Hash,
    /// The least recently used entries make room.
    LruHash,
    /// Longest prefix; insertion fails when the map is full.
    LongestPrefix,
    /// Always full: indexed from 0.
    Array,
    /// The same, a value for each CPU.
    PerCpuArray,
    /// A byte ring.
    RingBuffer,
}

/// One map of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapInfo {
    /// The name in the object, in the pin directory and in `mapSizes`.
    pub name: &'static str,
    /// What `status --verbose` calls it; "ct-" is what people grep for.
    pub title: &'static str,
    pub shape: MapShape,
    /// Entries (bytes for the ring buffer).
    pub default_size: u32,
    /// Whether `mapSizes` may change it.
    pub resizable: bool,
    /// Whether it is pinned and survives the agent.
    pub pinned: bool,
}

macro_rules! maps {
    ($($constant:ident: $name:literal, $title:literal, $shape:ident, $size:expr, $resizable:literal, $pinned:literal;)*) => {
        $(
            #[doc = concat!("`", $name, "`: ", $title)]
            pub const $constant: MapInfo = MapInfo {
                name: $name,
                title: $title,
                shape: MapShape::$shape,
                default_size: $size,
                resizable: $resizable,
                pinned: $pinned,
            };
        )*
        /// Every map of the object.
        pub const ALL: &[MapInfo] = &[$($constant,)*];
    };
}

maps! {
    FLOWS: "flows", "ct-global (connection tracking and NAT)", LruHash, 524_288, true, true;
    FRAGMENTS: "fragments", "ct-fragments (IP fragmentation)", LruHash, 8_192, true, true;
    ENDPOINTS: "endpoints", "Endpoints", Hash, 65_535, true, true;
    IPCACHE: "ipcache", "IP cache", LongestPrefix, 512_000, true, true;
    MASQUERADE_EXEMPT: "masq_exempt", "Masquerade exemptions", LongestPrefix, 16_384, true, true;
    NODES: "nodes", "Nodes", Array, 16_384, false, true;
    TUNNEL_MTU: "tunnel_mtu", "Path MTU of nodes", LruHash, 16_384, true, true;
    GENERATIONS: "generations", "Generations", Array, crate::flow::SLOTS, false, true;
    FRONTENDS: "frontends", "Service frontends", Hash, 65_536, true, true;
    BACKENDS: "backends", "Service backends", Array, 262_144, true, true;
    SERVICE_BACKENDS: "service_backends", "Service backend states", Hash, 262_144, true, true;
    MAGLEV: "maglev", "Service Maglev tables", Array, 1, true, true;
    SOURCE_RANGES: "source_ranges", "Service source ranges", LongestPrefix, 16_384, true, true;
    AFFINITY: "affinity", "Service session affinity", LruHash, 65_536, true, true;
    SOCKET_SERVICES: "socket_services", "Service sockets", LruHash, 262_144, true, true;
    POLICY: "policy", "Policy", Hash, 131_072, true, true;
    POLICY_HITS: "policy_hits", "Policy counters", Array, 131_072, true, true;
    METRICS: "metrics", "Metrics", PerCpuArray, crate::counter::METRICS, false, true;
    COUNTERS: "counters", "Counters", PerCpuArray, crate::counter::COUNTERS, false, true;
    EVENTS: "events", "Events", RingBuffer, 1 << 20, true, true;
    SCRATCH: "scratch", "Scratch", PerCpuArray, 1, false, false;
}
