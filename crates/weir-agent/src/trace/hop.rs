// SPDX-License-Identifier: Apache-2.0
//! A program that the packet met on its way, and how its ends are written.

use std::net::IpAddr;
use std::rc::Rc;

use weir_abi::observation::Hook;
use weir_abi::service::FrontendKey;
use weir_abi::{FlowKey, IfIndex};

use super::frame::has_ports;
use super::run::Seen;
use super::view::View;

/// A program that the packet met.
pub(super) struct Hop {
    pub(super) view: Rc<View>,
    pub(super) hook: Hook,
    pub(super) interface: IfIndex,
    pub(super) arrives: FlowKey,
    /// The packet as it goes on, or would have gone on had it not been dropped.
    pub(super) leaves: FlowKey,
    pub(super) seen: Seen,
}

impl Hop {
    /// What services are asked for.
    pub(super) fn frontend(&self) -> FrontendKey {
        let key = &self.arrives;
        FrontendKey::new(key.destination, key.destination_port, key.protocol)
    }

    /// Clients of this node are given other backends than those of the network.
    pub(super) fn is_internal(&self) -> bool {
        self.hook != Hook::FromNetdev
    }
}

/// One end of a tuple.
pub(super) fn socket(key: &FlowKey, source: bool) -> String {
    let (address, port) = if source {
        (key.source, key.source_port)
    } else {
        (key.destination, key.destination_port)
    };
    match address.to_ip() {
        ip if !has_ports(key.protocol) => ip.to_string(),
        IpAddr::V4(ip) => format!("{ip}:{}", port.get()),
        IpAddr::V6(ip) => format!("[{ip}]:{}", port.get()),
    }
}
