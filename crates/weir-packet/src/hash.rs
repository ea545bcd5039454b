// SPDX-License-Identifier: Apache-2.0
//! A hash of tuples (64-bit multiply-mix); equal in the kernel and on the host.

use weir_abi::{Address, FlowKey};

const START: u64 = 0x51_7c_c1_b7_27_22_0a_95;

/// The hash of a tuple.
#[inline(always)]
pub fn hash_of(key: &FlowKey) -> u32 {
    let mut hash = add_address(START, &key.source);
    hash = add_address(hash, &key.destination);
    let ([a, b], [c, d]) = (key.source_port.0, key.destination_port.0);
    upper_half(mix(
        hash,
        u64::from_le_bytes([a, b, c, d, key.protocol.0, 0, 0, 0]),
    ))
}

/// The hash of a flow: equal for both directions, where nothing is translated.
pub fn hash_of_flow(key: &FlowKey) -> u32 {
    hash_of(key).wrapping_add(hash_of(&key.reversed()))
}

/// The hash of an address alone.
#[inline(always)]
pub fn hash_of_address(address: &Address) -> u32 {
    upper_half(add_address(START, address))
}

#[inline(always)]
fn add_address(hash: u64, address: &Address) -> u64 {
    let [high, low] = address.words();
    mix(mix(hash, u64::from_le(high)), u64::from_le(low))
}

#[inline(always)]
const fn upper_half(hash: u64) -> u32 {
    let [_, _, _, _, e, f, g, h] = hash.to_le_bytes();
    u32::from_le_bytes([e, f, g, h])
}

#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weir_abi::{Port, Protocol};

    proptest! {
        #[test]
        fn a_flow_has_one_hash_for_both_directions(source: [u8; 16], destination: [u8; 16], ports: [u16; 2]) {
            let mut key = FlowKey::new(Address(source), Address(destination), Protocol::TCP);
            key.set_ports(Port::new(ports[0]), Port::new(ports[1]));
            prop_assert_eq!(hash_of_flow(&key), hash_of_flow(&key.reversed()));
            prop_assume!(key != key.reversed());
            prop_assert_ne!(hash_of(&key), hash_of(&key.reversed()));
        }
    }
}
