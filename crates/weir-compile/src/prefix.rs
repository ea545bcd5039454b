// SPDX-License-Identifier: Apache-2.0
//! Between prefixes as people write them and keys of the longest-prefix maps.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weir_abi::Address;
use weir_abi::address::MAPPED_PREFIX;
use weir_abi::ipcache::PrefixKey;

/// Bits of the mapped form that stand before the 32 of an IPv4 address.
const MAPPED_BITS: u8 = 96;

/// The key of a prefix; host bits are cleared.
pub fn prefix_key(prefix: IpNet) -> PrefixKey {
    let prefix = prefix.trunc();
    let length = match prefix {
        IpNet::V4(v4) => v4.prefix_len() + MAPPED_BITS,
        IpNet::V6(v6) => v6.prefix_len(),
    };
    PrefixKey {
        length: u32::from(length),
        address: Address::from(prefix.addr()),
    }
}

/// The prefix of a key: none where the length is over 128 bits, which nobody but a hand-made row
/// can have.
pub fn prefix_of_key(key: &PrefixKey) -> Option<IpNet> {
    let length = u8::try_from(key.length).ok()?;
    let mapped = length >= MAPPED_BITS && key.address.0.starts_with(&MAPPED_PREFIX);
    match key.address.to_ip() {
        IpAddr::V4(v4) if mapped => Ipv4Net::new(v4, length - MAPPED_BITS)
            .ok()
            .map(|net| net.trunc().into()),
        IpAddr::V4(_) | IpAddr::V6(_) => Ipv6Net::new(key.address.0.into(), length)
            .ok()
            .map(|net| net.trunc().into()),
    }
}

/// A key as text, in the family's own notation.
pub fn display_prefix(key: &PrefixKey) -> impl fmt::Display {
    struct Shown(PrefixKey);
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match prefix_of_key(&self.0) {
                Some(prefix) => prefix.fmt(f),
                None => write!(f, "{}/{}", self.0.address, self.0.length),
            }
        }
    }
    Shown(*key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ipv4_lengths_count_the_mapped_bits() {
        let key = prefix_key("10.1.2.3/8".parse().unwrap());
        assert_eq!(
            key,
            PrefixKey {
                length: 104,
                address: Address::from_v4([10, 0, 0, 0])
            }
        );
        assert_eq!(display_prefix(&key).to_string(), "10.0.0.0/8");
        assert_eq!(
            prefix_key("10.1.2.3/32".parse().unwrap()),
            PrefixKey::host(Address::from_v4([10, 1, 2, 3]))
        );
        assert_eq!(display_prefix(&PrefixKey::default()).to_string(), "::/0");
    }

    proptest! {
        #[test]
        fn keys_round_trip_v4(bytes: [u8; 4], length in 0u8..=32) {
            let net: IpNet = Ipv4Net::new(bytes.into(), length).unwrap().trunc().into();
            prop_assert_eq!(prefix_of_key(&prefix_key(net)), Some(net));
        }

        #[test]
        fn keys_round_trip_v6(bytes: [u8; 16], length in 0u8..=128) {
            let net: IpNet = Ipv6Net::new(bytes.into(), length).unwrap().trunc().into();
            prop_assume!(!(length >= 96 && bytes.starts_with(&MAPPED_PREFIX)));
            prop_assert_eq!(prefix_of_key(&prefix_key(net)), Some(net));
        }

        #[test]
        fn any_key_can_be_shown(length: u32, bytes: [u8; 16]) {
            let _ = display_prefix(&PrefixKey { length, address: Address(bytes) }).to_string();
        }
    }
}
