// SPDX-License-Identifier: Apache-2.0
//! The maps as `weir-verdict` sees them.

use crate::{CONFIG, maps, ring, route, steps};
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::bpf_loop;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use core::ptr::{NonNull, read_volatile, write_volatile};
use weir_abi::config::features;
use weir_abi::counter::{Counter, Direction, metric_index};
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::ipcache::IpcacheRow;
use weir_abi::node::{NodeRow, TunnelMtu};
use weir_abi::policy::{PolicyKey, PolicyRow};
use weir_abi::service::{
    AffinityKey, AffinityRow, BackendRow, FrontendKey, FrontendRow, ServiceBackendKey,
    ServiceBackendRow, SocketKey, SocketRow,
};
use weir_abi::{
    Address, DatapathConfig, EndpointRow, FlowEntry, FlowKey, Generation, NodeIndex, PolicyCookie,
    Seconds, ServiceId, Slot,
};
use weir_packet::PacketRead;
use weir_verdict::tables::Repeat;
use weir_verdict::{Insert, LiveFlow, Outcome, Route, Tables, Workspace};

/// The maps, and the packet that `bpf_fib_lookup` is asked for.
pub struct KernelTables {
    pub skb: *mut __sk_buff,
}

/// The key that finds an address's longest prefix, placed so that the address lies at a multiple of
/// eight: it is copied in wide words, and the verifier asks for alignment on the stack.
#[repr(C, align(8))]
struct HostKey {
    unused: u32,
    length: u32,
    address: Address,
}

impl HostKey {
    #[inline(always)]
    fn new(address: &Address) -> Self {
        Self {
            unused: 0,
            length: 128,
            address: *address,
        }
    }

    #[inline(always)]
    fn get(&self) -> &Key<Address> {
        let key = &raw const self.length;
        // SAFETY: `length` and `address` follow each other as in `Key`, which needs no alignment.
        unsafe { &*key.cast::<Key<Address>>() }
    }
}

/// As [`HostKey`], for the source ranges of a service; every field lies at a multiple of its size.
#[repr(C, align(8))]
struct SourceKey {
    length: u32,
    service: ServiceId,
    address: Address,
}

const NANOSECONDS: u64 = 1_000_000_000;

impl KernelTables {
    #[inline(always)]
    fn dry(&self) -> bool {
        self.config(|config| &config.features) & features::DRY_RUN != 0
    }
}

impl Tables for KernelTables {
    #[inline(always)]
    fn config<V: Copy>(&self, field: impl Fn(&DatapathConfig) -> &V) -> V {
        // SAFETY: a reference into a static; volatile, because the loader overwrites the value
        // that the compiler sees.
        unsafe { read_volatile(field(&CONFIG)) }
    }

    #[inline(always)]
    fn now(&self) -> Seconds {
        // SAFETY: the helper has no preconditions.
        Seconds((unsafe { bpf_ktime_get_coarse_ns() } / NANOSECONDS) as u32)
    }

    #[inline(always)]
    fn repeat<R: Repeat>(&self, times: u32, body: &mut R) {
        // SAFETY: the callback gets back the context that is passed here, while it lives.
        unsafe { bpf_loop(times, turn::<R> as *mut c_void, (&raw mut *body).cast(), 0) };
    }

    #[inline(always)]
    fn decide<P: PacketRead>(&self, _: &P, workspace: &mut Workspace) -> Outcome {
        // SAFETY: a valid context and workspace, and the number of an outcome.
        unsafe { Outcome::from_number(steps::decide(self.skb, workspace)) }
    }

    #[inline(always)]
    fn select_backend(&self, workspace: &mut Workspace, frontend: &FrontendRow) -> Outcome {
        // SAFETY: a valid workspace and row, and the number of an outcome.
        unsafe { Outcome::from_number(steps::select_backend(workspace, frontend)) }
    }

    #[inline(always)]
    fn check_policy(&self, workspace: &mut Workspace) -> Outcome {
        // SAFETY: as above.
        unsafe { Outcome::from_number(steps::check_policy(workspace)) }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<LiveFlow<'_>> {
        let entry = NonNull::new(maps::FLOWS.get_ptr_mut(key)?)?;
        // SAFETY: map values stay allocated while the program runs. An entry can be recycled for
        // another flow meanwhile, as in every LRU map; then this packet is treated as that flow's.
        Some(unsafe { LiveFlow::new(entry) })
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey, entry: &FlowEntry, insert: Insert) -> Result<(), i32> {
        if self.dry() {
            return match insert {
                Insert::Reserve if maps::FLOWS.get_ptr(key).is_some() => {
                    Err(weir_verdict::tables::EXISTS)
                }
                Insert::Reserve | Insert::Replace => Ok(()),
            };
        }
        let flags = match insert {
            Insert::Replace => 0,
            Insert::Reserve => u64::from(BPF_NOEXIST),
        };
        maps::FLOWS.insert(key, entry, flags)
    }

    #[inline(always)]
    fn endpoint(&self, address: &Address) -> Option<EndpointRow> {
        // SAFETY: rows are replaced as a whole by the agent; a row is copied at once.
        unsafe { maps::ENDPOINTS.get(address) }.copied()
    }

    #[inline(always)]
    fn ipcache(&self, address: &Address) -> Option<IpcacheRow> {
        maps::IPCACHE.get(HostKey::new(address).get()).copied()
    }

    #[inline(always)]
    fn masquerade_exempt(&self, address: &Address) -> bool {
        maps::MASQUERADE_EXEMPT
            .get(HostKey::new(address).get())
            .is_some()
    }

    #[inline(always)]
    fn node(&self, index: NodeIndex) -> Option<&NodeRow> {
        maps::NODES.get(u32::from(index.0))
    }

    #[inline(always)]
    fn generation(&self, slot: Slot) -> Generation {
        Generation(
            maps::GENERATIONS
                .get(u32::from(slot.0))
                .copied()
                .unwrap_or(0),
        )
    }

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<&FrontendRow> {
        // SAFETY: rows are replaced as a whole; one that is replaced meanwhile is found out by its
        // backends, which name their service.
        unsafe { maps::FRONTENDS.get(key) }
    }

    #[inline(always)]
    fn backend(&self, place: u32) -> Option<&BackendRow> {
        maps::BACKENDS.get(place)
    }

    #[inline(always)]
    fn service_backend(&self, key: &ServiceBackendKey) -> Option<ServiceBackendRow> {
        // SAFETY: copied at once.
        unsafe { maps::SERVICE_BACKENDS.get(key) }.copied()
    }

    #[inline(always)]
    fn maglev(&self, place: u32) -> u16 {
        maps::MAGLEV.get(place).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn source_range(&self, service: ServiceId, address: &Address) -> bool {
        let key = SourceKey {
            length: 160,
            service,
            address: *address,
        };
        let key = (&raw const key).cast::<Key<maps::SourceRange>>();
        // SAFETY: `SourceKey` is laid out as `Key` is, which needs no alignment.
        maps::SOURCE_RANGES.get(unsafe { &*key }).is_some()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityRow> {
        // SAFETY: copied at once.
        unsafe { maps::AFFINITY.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_affinity(&self, key: &AffinityKey, row: &AffinityRow) {
        if !self.dry() {
            let _ = maps::AFFINITY.insert(key, row, 0);
        }
    }

    #[inline(always)]
    fn socket_service(&self, key: &SocketKey) -> Option<SocketRow> {
        // SAFETY: copied at once.
        unsafe { maps::SOCKET_SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_socket(&self, key: &SocketKey, row: &SocketRow) {
        if !self.dry() {
            let _ = maps::SOCKET_SERVICES.insert(key, row, 0);
        }
    }

    #[inline(always)]
    fn note_host_backend(&self) {
        if !self.dry()
            && let Some(noted) = maps::GENERATIONS.get_ptr_mut(u32::from(Slot::HOST_BACKENDS.0))
        {
            // SAFETY: a whole aligned word that everybody sets to the same value.
            unsafe { write_volatile(noted, 1) };
        }
    }

    #[inline(always)]
    fn policy(&self, key: &PolicyKey) -> Option<&PolicyRow> {
        // SAFETY: rows are replaced as a whole; readers check whose row they have read.
        unsafe { maps::POLICY.get(key) }
    }

    #[inline(always)]
    fn count_policy(&self, cookie: PolicyCookie, bytes: u32) {
        if self.dry() {
            return;
        }
        if let Some(hits) = maps::POLICY_HITS.get_ptr_mut(cookie.0) {
            // SAFETY: counters in the map, valid and aligned while the program runs.
            unsafe {
                weir_verdict::live::add(&raw mut (*hits).packets, 1);
                weir_verdict::live::add(&raw mut (*hits).bytes, u64::from(bytes));
            }
        }
    }

    #[inline(always)]
    fn tunnel_mtu(&self, remote: &Address) -> Option<TunnelMtu> {
        // SAFETY: copied at once.
        unsafe { maps::TUNNEL_MTU.get(remote) }.copied()
    }

    #[inline(always)]
    fn learn_tunnel_mtu(&self, remote: &Address, mtu: &TunnelMtu) {
        if !self.dry() {
            let _ = maps::TUNNEL_MTU.insert(remote, mtu, 0);
        }
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRow> {
        // SAFETY: copied at once.
        unsafe { maps::FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, row: &FragmentRow) {
        if !self.dry() {
            let _ = maps::FRAGMENTS.insert(key, row, 0);
        }
    }

    #[inline(always)]
    fn route(&self, source: &Address, destination: &Address, found: &mut Route) -> i32 {
        route::ask(self.skb, source, destination, found)
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        if self.dry() {
            return;
        }
        if let Some(count) = maps::COUNTERS.get_ptr_mut(counter as u32) {
            // SAFETY: a per-CPU value that no other program touches at the same time.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn count_packet(&self, reason: u8, direction: Direction, bytes: u32) {
        if self.dry() {
            return;
        }
        if let Some(metric) = maps::METRICS.get_ptr_mut(metric_index(reason, direction)) {
            // SAFETY: a per-CPU value that no other program touches at the same time.
            unsafe {
                (*metric).packets += 1;
                (*metric).bytes += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn signal_garbage(&self) {
        if !self.dry() {
            ring::signal(weir_abi::event::signal::COLLECT_GARBAGE);
        }
    }
}

/// One turn of a loop that the kernel runs.
extern "C" fn turn<R: Repeat>(index: u32, body: *mut c_void) -> i64 {
    // SAFETY: `repeat` passes a body of this type, and nothing else uses it meanwhile.
    let body = unsafe { &mut *body.cast::<R>() };
    i64::from(body.once(index))
}
