// SPDX-License-Identifier: Apache-2.0
//! Who is behind an address, by longest prefix.

use crate::address::Address;
use crate::identity::Identity;
use crate::number::{BlockGroup, NodeIndex};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of the longest-prefix maps (`ipcache`, `masquerade_exempt`).
///
/// The kernel wants the prefix length first, in host order (`struct bpf_lpm_trie_key_u8`). IPv4
/// prefixes count the 96 bits of the mapped form: 10.0.0.0/8 has length 104.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Debug,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct PrefixKey {
    /// 0 to 128 bits.
    pub length: u32,
    pub address: Address,
}

impl PrefixKey {
    /// The key that finds the longest prefix of one address.
    #[inline(always)]
    pub const fn host(address: Address) -> Self {
        Self {
            length: 128,
            address,
        }
    }
}

/// Value of the `ipcache` map.
#[derive(
    Clone, Copy, PartialEq, Eq, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct IpcacheRow {
    pub identity: Identity,
    /// The `ipBlock`s of policies that the address (or every address of the prefix that has no
    /// longer one) lies in.
    pub blocks: BlockGroup,
    /// The node behind which the address is reached by tunnel; none in native routing.
    pub node: NodeIndex,
    /// Bits of [`flags`].
    pub flags: u16,
}

/// Bits of [`IpcacheRow::flags`].
pub mod flags {
    /// The range of a node's pods, not a known pod: `identity` is unknown.
    pub const POD_RANGE: u16 = 0x0001;
    /// The range of this node's own pods.
    pub const LOCAL_RANGE: u16 = 0x0002;
    /// The address of a service: what no frontend answers is refused, never sent on.
    pub const SERVICE: u16 = 0x0004;
}
