// SPDX-License-Identifier: Apache-2.0
//! One type per kind of number, so that an interface index is never passed for an endpoint.

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone,
            Copy,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            Default,
            FromBytes,
            IntoBytes,
            Immutable,
            KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The plain number.
            #[inline(always)]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A network interface of the node, as the kernel numbers it; 0 is "none".
    IfIndex(u32)
}
number! {
    /// An endpoint (a pod's link) of this node; 0 is "none", 1 is the node itself.
    EndpointId(u16)
}
number! {
    /// A remote node's place in the `nodes` map; 0 is "no node" (no tunnel).
    NodeIndex(u16)
}
number! {
    /// The version of something that verdicts depend on; see [`crate::flow::Dependencies`].
    Generation(u32)
}
number! {
    /// A place in the `generations` map.
    Slot(u16)
}
number! {
    /// Seconds of the kernel's coarse monotonic clock (`bpf_ktime_get_coarse_ns`), from boot.
    Seconds(u32)
}

number! {
    /// A frontend's number in listings; 0 is "none".
    FrontendId(u32)
}
number! {
    /// A service's port on this node; 0 is "none".
    ServiceId(u32)
}
number! {
    /// A policy set that endpoints share; 0 is "none".
    PolicySet(u32)
}
number! {
    /// The `ipBlock`s that an address lies in, as one number; 0 is "none".
    BlockGroup(u32)
}
number! {
    /// The rules behind a verdict; 0 is "none".
    PolicyCookie(u32)
}

impl ServiceId {
    /// Not a service.
    pub const NONE: Self = Self(0);
}

impl PolicySet {
    /// No policy.
    pub const NONE: Self = Self(0);
}

impl BlockGroup {
    /// In no block.
    pub const NONE: Self = Self(0);
}

impl PolicyCookie {
    /// Nothing decided.
    pub const NONE: Self = Self(0);
}

impl EndpointId {
    /// No endpoint of this node.
    pub const NONE: Self = Self(0);
    /// The node itself.
    pub const HOST: Self = Self(1);
}

impl IfIndex {
    /// No interface.
    pub const NONE: Self = Self(0);
}

impl NodeIndex {
    /// Not behind a tunnel.
    pub const NONE: Self = Self(0);
}
