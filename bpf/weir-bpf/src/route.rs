// SPDX-License-Identifier: Apache-2.0
//! The node's routing table, asked by `bpf_fib_lookup`.

use crate::window::field;
use aya_ebpf::bindings::{
    __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::bpf_fib_lookup;
use core::mem::{size_of, transmute, zeroed};
use core::ptr::read_volatile;
use weir_abi::{Address, IfIndex, MacAddress};
use weir_verdict::Route;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The question, placed so that its addresses lie at multiples of eight: they are copied in wide
/// words, and the verifier asks for alignment on the stack.
#[repr(C, align(8))]
struct Query(FibLookup);

#[inline(always)]
fn words(address: &Address) -> [u32; 4] {
    let [a, b] = address.words();
    // SAFETY: any bytes are numbers.
    unsafe { transmute::<[u64; 2], [u32; 4]>([a, b]) }
}

/// Asks the node's routing table; 0 or the code of the failure. A function of its own, because the
/// question fills much of the stack.
#[inline(never)]
pub fn ask(skb: *mut __sk_buff, source: &Address, destination: &Address, found: &mut Route) -> i32 {
    // SAFETY: all zero is a valid value of this plain C struct.
    let Query(query) = &mut Query(unsafe { zeroed() });
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
            (&raw mut *query).cast(),
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
