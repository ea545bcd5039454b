// SPDX-License-Identifier: Apache-2.0
//! Connections of a client outside to a port of this node, whose backend is a pod of another node.

use weir_verdict::memory::MemoryTables;

use super::raw::{Ip, TCP, UDP, ethernet, tcp, udp, vxlan};
use super::tuple::innermost;
use super::world::{Links, NEIGHBOUR, NODE, OTHER_NODE, REMOTE, WORLD, pod_mac};

pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
const NODE_PORT: u16 = 30_081;
const BACKEND_PORT: u16 = 8080;

/// How the node reaches the backend, and who answers the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Native,
    Tunnel,
    NativeDirect,
    TunnelDirect,
}

impl Mode {
    pub(crate) const ALL: [Self; 4] = [
        Self::Native,
        Self::Tunnel,
        Self::NativeDirect,
        Self::TunnelDirect,
    ];

    pub(crate) fn tables(self, links: &Links) -> MemoryTables {
        match self {
            Self::Native => links.tables(true),
            Self::Tunnel => links.tables(false),
            Self::NativeDirect => links.direct_tables(true),
            Self::TunnelDirect => links.direct_tables(false),
        }
    }
}

/// One connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Relayed {
    pub(crate) family: usize,
    pub(crate) is_tcp: bool,
    pub(crate) port: u16,
}

impl Relayed {
    /// What the client sends.
    pub(crate) fn question(&self, flags: u8) -> Vec<u8> {
        let (client, node) = (WORLD[self.family], NODE[self.family]);
        let packet = self.packet(client, node, [self.port, NODE_PORT], flags);
        ethernet(NEIGHBOUR, pod_mac(1), &packet)
    }

    /// What comes back from the backend for a packet that was sent to it; nothing where the client is answered by
    /// another node.
    pub(crate) fn answer(&self, mode: Mode, sent: &[u8], flags: u8) -> Option<Vec<u8>> {
        let (backend, node) = (REMOTE[self.family], NODE[self.family]);
        let seen = innermost(sent).source_port;
        let packet = self.packet(backend, node, [BACKEND_PORT, seen], flags);
        let packet = match mode {
            Mode::Native => packet,
            Mode::Tunnel => {
                let [from, to] = [OTHER_NODE[0], NODE[0]];
                let payload = vxlan([0, 0, 1], &packet);
                Ip::new(from, to, UDP).packet(&udp(from, to, [50_000, 8472], &payload))
            }
            Mode::NativeDirect | Mode::TunnelDirect => return None,
        };
        Some(ethernet(NEIGHBOUR, pod_mac(1), &packet))
    }

    fn packet(&self, from: &str, to: &str, ports: [u16; 2], flags: u8) -> Vec<u8> {
        if self.is_tcp {
            Ip::new(from, to, TCP).packet(&tcp(from, to, ports, flags, b"data"))
        } else {
            Ip::new(from, to, UDP).packet(&udp(from, to, ports, b"data"))
        }
    }
}
