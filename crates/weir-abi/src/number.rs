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
