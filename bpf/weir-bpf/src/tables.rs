// SPDX-License-Identifier: Apache-2.0
//! The maps as `weir-verdict` sees them.

use crate::{CONFIG, event, maps};
use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_NOEXIST, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_fib_lookup;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use core::mem::{size_of, zeroed};
use core::ptr::{NonNull, read_volatile};
use weir_abi::config::features;
use weir_abi::counter::{Counter, Direction, metric_index};
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::ipcache::IpcacheRow;
use weir_abi::node::{NodeRow, TunnelMtu};
use weir_abi::{
    Address, DatapathConfig, EndpointRow, FlowEntry, FlowKey, Generation, IfIndex, MacAddress,
    NodeIndex, Seconds, Slot,
};
use weir_verdict::{Insert, LiveFlow, Route, Tables};

/// The maps, and the packet that `bpf_fib_lookup` is asked for.
pub struct KernelTables {
    pub skb: *mut __sk_buff,
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
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
        maps::IPCACHE.get(&Key::new(128, *address)).copied()
    }

    #[inline(always)]
    fn masquerade_exempt(&self, address: &Address) -> bool {
        maps::MASQUERADE_EXEMPT.get(&Key::new(128, *address)).is_some()
    }

    #[inline(always)]
    fn node(&self, index: NodeIndex) -> Option<&NodeRow> {
        maps::NODES.get(u32::from(index.0))
    }

    #[inline(always)]
    fn generation(&self, slot: Slot) -> Generation {
        Generation(maps::GENERATIONS.get(u32::from(slot.0)).copied().unwrap_or(0))
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
    fn route(&self, source: &Address, destination: &Address) -> Result<Route, i32> {
        let mut found = NO_ROUTE;
        match ask_route(self.skb, source, destination, &mut found) {
            0 => Ok(found),
            code => Err(code),
        }
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
            event::signal(weir_abi::event::signal::COLLECT_GARBAGE);
        }
    }
}

#[inline(always)]
fn words(address: &Address) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.0;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ]
}

const NO_ROUTE: Route = Route {
    egress: IfIndex::NONE,
    mtu: 0,
    source_mac: MacAddress([0; 6]),
    destination_mac: MacAddress([0; 6]),
};

/// Asks the node's routing table; 0 or the code of the failure. A function of its own, because the
/// question fills much of the stack.
#[inline(never)]
fn ask_route(
    skb: *mut __sk_buff,
    source: &Address,
    destination: &Address,
    found: &mut Route,
) -> i32 {
    // SAFETY: all zero is a valid value of this plain C struct.
    let mut query: FibLookup = unsafe { zeroed() };
    // SAFETY: the context is valid while the program runs.
    query.ifindex = unsafe { (*skb).ifindex };
    // Any length makes the kernel report the route's MTU, with what it learned of the path.
    query.__bindgen_anon_1.tot_len = 1;
    if destination.is_v4() {
        query.family = AF_INET;
        query.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(source.v4_octets());
        query.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(destination.v4_octets());
    } else {
        query.family = AF_INET6;
        query.__bindgen_anon_3.ipv6_src = words(source);
        query.__bindgen_anon_4.ipv6_dst = words(destination);
    }
    // SAFETY: context and query are valid, the size is the query's.
    let code = unsafe {
        bpf_fib_lookup(skb.cast(), (&raw mut query).cast(), size_of::<FibLookup>() as i32, 0)
    } as i32;
    let resolved = match code as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_FRAG_NEEDED => true,
        BPF_FIB_LKUP_RET_NO_NEIGH => false,
        _ => return code,
    };
    found.egress = IfIndex(query.ifindex);
    // SAFETY: both members of the union are the same u16.
    found.mtu = unsafe { query.__bindgen_anon_1.mtu_result };
    if resolved {
        found.source_mac = MacAddress(query.smac);
        found.destination_mac = MacAddress(query.dmac);
    }
    0
}
