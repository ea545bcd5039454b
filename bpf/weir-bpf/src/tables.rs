// SPDX-License-Identifier: Apache-2.0
//! The maps as `weir-verdict` sees them.

use crate::skb::field;
use crate::{CONFIG, maps, ring};
use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_NOEXIST, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::helpers::{bpf_fib_lookup, bpf_loop};
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
use weir_verdict::tables::Repeat;
use weir_verdict::{Insert, LiveFlow, Route, Tables};

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
    fn repeat<R: Repeat>(&self, times: u32, body: &mut R) {
        // SAFETY: the callback gets back the context that is passed here, while it lives.
        unsafe { bpf_loop(times, turn::<R> as *mut c_void, (&raw mut *body).cast(), 0) };
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
        ask_route(self.skb, source, destination, found)
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
    query.ifindex = field(unsafe { &raw const (*skb).ifindex });
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
        bpf_fib_lookup(
            skb.cast(),
            (&raw mut query).cast(),
            size_of::<FibLookup>() as i32,
            0,
        )
    } as i32;
    let resolved = match code as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_FRAG_NEEDED => true,
        BPF_FIB_LKUP_RET_NO_NEIGH => false,
        _ => return code,
    };
    found.egress = IfIndex(query.ifindex);
    // Without a neighbour the kernel stops before it reports the MTU.
    // SAFETY: both members of the union are the same u16.
    found.mtu = if resolved {
        unsafe { query.__bindgen_anon_1.mtu_result }
    } else {
        0
    };
    found.source_mac = if resolved {
        mac(&query.smac)
    } else {
        MacAddress([0; 6])
    };
    found.destination_mac = if resolved {
        mac(&query.dmac)
    } else {
        MacAddress([0; 6])
    };
    0
}

/// A MAC address at an even place on the stack, read by halves: as one wide word it would be
/// misaligned.
#[inline(always)]
fn mac(from: &[u8; 6]) -> MacAddress {
    let halves = from.as_ptr().cast::<[u8; 2]>();
    let half = |place| {
        // SAFETY: three pairs of bytes lie in six bytes.
        unsafe { read_volatile(halves.add(place).cast::<u16>()) }.to_ne_bytes()
    };
    let ([a, b], [c, d], [e, f]) = (half(0), half(1), half(2));
    MacAddress([a, b, c, d, e, f])
}
