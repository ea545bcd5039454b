// SPDX-License-Identifier: Apache-2.0
//! Security identities: node-local numbers over label sets (ADR 0005).

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A set of labels that policy can tell from others; numbers up to 255 are reserved and have the
/// meanings that the field has agreed on, pods get numbers from [`Identity::FIRST_POD`] on.
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
pub struct Identity(pub u32);

impl Identity {
    /// Not known (yet): an address in a pod range that no pod is known to have.
    pub const UNKNOWN: Self = Self(0);
    /// This node.
    pub const HOST: Self = Self(1);
    /// Anything outside the cluster.
    pub const WORLD: Self = Self(2);
    /// Another node of the cluster.
    pub const REMOTE_NODE: Self = Self(6);
    /// The API server, wherever it runs.
    pub const KUBE_APISERVER: Self = Self(7);
    /// Outside the cluster, by IPv4, in a dual-stack cluster.
    pub const WORLD_IPV4: Self = Self(9);
    /// Outside the cluster, by IPv6, in a dual-stack cluster.
    pub const WORLD_IPV6: Self = Self(10);
    /// The first number that a pod's label set can get.
    pub const FIRST_POD: Self = Self(256);

    /// The label that stands for a reserved identity, without its `reserved:` prefix.
    pub const fn reserved_name(self) -> Option<&'static str> {
        match self {
            Self::UNKNOWN => Some("unknown"),
            Self::HOST => Some("host"),
            Self::WORLD => Some("world"),
            Self::REMOTE_NODE => Some("remote-node"),
            Self::KUBE_APISERVER => Some("kube-apiserver"),
            Self::WORLD_IPV4 => Some("world-ipv4"),
            Self::WORLD_IPV6 => Some("world-ipv6"),
            _ => None,
        }
    }

    /// Whether the identity stands for hosts outside the cluster.
    #[inline(always)]
    pub const fn is_world(self) -> bool {
        self.0 == 2 || self.0 == 9 || self.0 == 10
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reserved_name() {
            Some(name) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
