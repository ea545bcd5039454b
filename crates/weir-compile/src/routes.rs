// SPDX-License-Identifier: Apache-2.0
//! Routes of the node's main table, as data.
//!
//! The node's own stack reaches pods by them; packets of pods do not need them in tunnel mode. In
//! native mode the programs ask the kernel's table for the next hop, so there they carry all.

use std::net::IpAddr;

use ipnet::IpNet;

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoutePath {
    /// Into the datapath through `weir_host`.
    Host {
        /// What the node's own sockets use as their address.
        source: Option<IpAddr>,
        /// Stated where packets have to fit into a tunnel.
        mtu: Option<u32>,
    },
    /// To the node itself, over the underlay.
    Node { gateway: IpAddr },
}

/// A route that must exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DesiredRoute {
    pub destination: IpNet,
    pub path: RoutePath,
}
