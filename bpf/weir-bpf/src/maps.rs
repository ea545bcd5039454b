// SPDX-License-Identifier: Apache-2.0
//! The maps, by the names and default sizes of `weir_abi::map`. The loader resizes and pins them.

use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use weir_abi::counter::Metric;
use weir_abi::event::EventRecord;
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::ipcache::IpcacheRow;
use weir_abi::node::{NodeRow, TunnelMtu};
use weir_abi::policy::{PolicyHits, PolicyKey, PolicyRow};
use weir_abi::service::{
    AffinityKey, AffinityRow, BackendRow, FrontendKey, FrontendRow, ServiceBackendKey,
    ServiceBackendRow, SocketKey, SocketRow,
};
use weir_abi::{Address, EndpointRow, FlowEntry, FlowKey, ServiceId, map};
use weir_verdict::Workspace;

const fn size(info: map::MapInfo) -> usize {
    info.default_size as usize
}

#[btf_map(name = "flows")]
pub static FLOWS: LruHashMap<FlowKey, FlowEntry, { size(map::FLOWS) }> = LruHashMap::new();

#[btf_map(name = "fragments")]
pub static FRAGMENTS: LruHashMap<FragmentKey, FragmentRow, { size(map::FRAGMENTS) }> =
    LruHashMap::new();

#[btf_map(name = "endpoints")]
pub static ENDPOINTS: HashMap<Address, EndpointRow, { size(map::ENDPOINTS) }, 1> = HashMap::new();

#[btf_map(name = "ipcache")]
pub static IPCACHE: LpmTrie<Address, IpcacheRow, { size(map::IPCACHE) }> = LpmTrie::new();

#[btf_map(name = "masq_exempt")]
pub static MASQUERADE_EXEMPT: LpmTrie<Address, u32, { size(map::MASQUERADE_EXEMPT) }> =
    LpmTrie::new();

#[btf_map(name = "nodes")]
pub static NODES: Array<NodeRow, { size(map::NODES) }> = Array::new();

#[btf_map(name = "tunnel_mtu")]
pub static TUNNEL_MTU: LruHashMap<Address, TunnelMtu, { size(map::TUNNEL_MTU) }> =
    LruHashMap::new();

#[btf_map(name = "generations")]
pub static GENERATIONS: Array<u32, { size(map::GENERATIONS) }> = Array::new();

#[btf_map(name = "frontends")]
pub static FRONTENDS: HashMap<FrontendKey, FrontendRow, { size(map::FRONTENDS) }, 1> =
    HashMap::new();

#[btf_map(name = "backends")]
pub static BACKENDS: Array<BackendRow, { size(map::BACKENDS) }> = Array::new();

#[btf_map(name = "service_backends")]
pub static SERVICE_BACKENDS: HashMap<
    ServiceBackendKey,
    ServiceBackendRow,
    { size(map::SERVICE_BACKENDS) },
    1,
> = HashMap::new();

#[btf_map(name = "maglev")]
pub static MAGLEV: Array<u16, { size(map::MAGLEV) }> = Array::new();

#[btf_map(name = "source_ranges")]
pub static SOURCE_RANGES: LpmTrie<SourceRange, u32, { size(map::SOURCE_RANGES) }> = LpmTrie::new();

#[btf_map(name = "affinity")]
pub static AFFINITY: LruHashMap<AffinityKey, AffinityRow, { size(map::AFFINITY) }> =
    LruHashMap::new();

#[btf_map(name = "socket_services")]
pub static SOCKET_SERVICES: LruHashMap<SocketKey, SocketRow, { size(map::SOCKET_SERVICES) }> =
    LruHashMap::new();

#[btf_map(name = "policy")]
pub static POLICY: HashMap<PolicyKey, PolicyRow, { size(map::POLICY) }, 1> = HashMap::new();

#[btf_map(name = "policy_hits")]
pub static POLICY_HITS: Array<PolicyHits, { size(map::POLICY_HITS) }> = Array::new();

#[btf_map(name = "metrics")]
pub static METRICS: PerCpuArray<Metric, { size(map::METRICS) }> = PerCpuArray::new();

#[btf_map(name = "counters")]
pub static COUNTERS: PerCpuArray<u64, { size(map::COUNTERS) }> = PerCpuArray::new();

#[btf_map(name = "events")]
pub static EVENTS: RingBuf<EventRecord, { size(map::EVENTS) }> = RingBuf::new();

/// What follows the prefix length in [`SourceRangeKey`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SourceRange {
    pub service: ServiceId,
    pub address: Address,
}

/// What would fill the stack: one packet's workspace and one event.
#[repr(C)]
pub struct Scratch {
    /// First, because a dry run is read from here: it fills the record and does not send it.
    pub record: EventRecord,
    pub workspace: Workspace,
    /// Events that this processor has sent.
    pub sent: u32,
}

#[btf_map(name = "scratch")]
pub static SCRATCH: PerCpuArray<Scratch, { size(map::SCRATCH) }> = PerCpuArray::new();
