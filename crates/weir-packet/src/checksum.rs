// SPDX-License-Identifier: Apache-2.0
//! Internet checksums (RFC 1071) and their incremental update (RFC 1624).
//!
//! The ones' complement sum does not depend on byte order (RFC 1071, section 2B): words are summed
//! as the machine reads them and stored back the same way, and never swapped.

use weir_abi::{Address, Port};

/// A running ones' complement sum. 32 bits hold the sum of 65,536 words, more than any packet has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(pub u32);

impl Sum {
    /// Adds one word as it stands in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn add(self, word: [u8; 2]) -> Self {
        Self(self.0.wrapping_add(u16::from_ne_bytes(word) as u32))
    }

    /// Adds the complement of a word: takes it out of the sum.
    #[inline(always)]
    #[must_use]
    pub const fn remove(self, word: [u8; 2]) -> Self {
        Self(self.0.wrapping_add(!u16::from_ne_bytes(word) as u32))
    }

    /// Adds bytes; their number must be even.
    #[inline(always)]
    #[must_use]
    pub fn add_bytes<const N: usize>(self, bytes: &[u8; N]) -> Self {
        let (words, _) = bytes.as_chunks::<2>();
        let mut sum = self;
        for word in words {
            sum = sum.add(*word);
        }
        sum
    }

    /// Adds an address; the prefix of the mapped form is added too and so must be taken out or
    /// cancel out.
    #[inline(always)]
    #[must_use]
    pub fn add_address(self, address: &Address) -> Self {
        self.add_bytes(&address.0)
    }

    /// Takes an address out.
    #[inline(always)]
    #[must_use]
    pub fn remove_address(self, address: &Address) -> Self {
        let (words, _) = address.0.as_chunks::<2>();
        let mut sum = self;
        for word in words {
            sum = sum.remove(*word);
        }
        sum
    }

    /// The sum in sixteen bits.
    #[inline(always)]
    pub const fn folded(self) -> [u8; 2] {
        let once = (self.0 & 0xffff).wrapping_add(self.0 >> 16);
        let twice = (once & 0xffff).wrapping_add(once >> 16);
        (twice as u16).to_ne_bytes()
    }

    /// The checksum field for the summed words.
    #[inline(always)]
    pub const fn checksum(self) -> [u8; 2] {
        let [a, b] = self.folded();
        [!a, !b]
    }
}

/// The checksum field after the words that it covers changed by `delta` (RFC 1624, equation 3).
#[inline(always)]
pub const fn updated(field: [u8; 2], delta: [u8; 2]) -> [u8; 2] {
    Sum(0).remove(field).add(delta).checksum()
}

/// As [`updated`], for a transport header of which every checksum is whole. Of UDP (`zero_is_none`) a sum of zero is sent
/// as all ones, and a field of zero says that there is none (RFC 768).
#[inline(always)]
pub const fn transport_updated(field: [u8; 2], delta: [u8; 2], zero_is_none: bool) -> [u8; 2] {
    if zero_is_none && u16::from_ne_bytes(field) == 0 {
        return field;
    }
    let new = updated(field, delta);
    if zero_is_none && u16::from_ne_bytes(new) == 0 {
        return [0xff; 2];
    }
    new
}

/// What replacing two addresses changes.
#[inline(always)]
pub fn address_delta(old: [&Address; 2], new: [&Address; 2]) -> [u8; 2] {
    let [old_source, old_destination] = old;
    let [new_source, new_destination] = new;
    Sum(0)
        .remove_address(old_source)
        .remove_address(old_destination)
        .add_address(new_source)
        .add_address(new_destination)
        .folded()
}

/// What replacing two ports changes.
#[inline(always)]
pub const fn port_delta(old: [Port; 2], new: [Port; 2]) -> [u8; 2] {
    let [old_source, old_destination] = old;
    let [new_source, new_destination] = new;
    Sum(0)
        .remove(old_source.0)
        .remove(old_destination.0)
        .add(new_source.0)
        .add(new_destination.0)
        .folded()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain definition: sum of big-endian words, folded, complemented.
    fn reference(bytes: &[u8]) -> [u8; 2] {
        let mut sum: u64 = 0;
        for pair in bytes.chunks(2) {
            sum += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        (!u16::try_from(sum).unwrap()).to_be_bytes()
    }

    /// 0x0000 and 0xffff are the same number in ones' complement.
    fn same(a: [u8; 2], b: [u8; 2]) -> bool {
        a == b || (matches!(a, [0, 0] | [255, 255]) && matches!(b, [0, 0] | [255, 255]))
    }

    proptest! {
        #[test]
        fn full_sum_equals_the_definition(bytes: [u8; 40]) {
            prop_assert_eq!(Sum(0).add_bytes(&bytes).checksum(), reference(&bytes));
        }

        #[test]
        fn update_equals_summing_again(mut bytes: [u8; 40], word in 0usize..20, new: [u8; 2]) {
            let before = reference(&bytes);
            let old = [bytes[word * 2], bytes[word * 2 + 1]];
            let delta = Sum(0).remove(old).add(new).folded();
            bytes[word * 2] = new[0];
            bytes[word * 2 + 1] = new[1];
            prop_assert!(same(updated(before, delta), reference(&bytes)));
        }

        #[test]
        fn the_mapped_prefix_cancels_out(a: [u8; 4], b: [u8; 4], c: [u8; 4], d: [u8; 4]) {
            let delta = address_delta(
                [&Address::from_v4(a), &Address::from_v4(b)],
                [&Address::from_v4(c), &Address::from_v4(d)],
            );
            let mut before = [0; 8];
            before[..4].copy_from_slice(&a);
            before[4..].copy_from_slice(&b);
            let mut after = [0; 8];
            after[..4].copy_from_slice(&c);
            after[4..].copy_from_slice(&d);
            prop_assert!(same(updated(reference(&before), delta), reference(&after)));
        }
    }
}
