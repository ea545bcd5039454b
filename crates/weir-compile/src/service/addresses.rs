// SPDX-License-Identifier: Apache-2.0
//! Whether an address is a service's alone, or a node's too.

use weir_abi::service::{FrontendKey, FrontendKind};
use weir_abi::{Address, Port, Protocol};
use weir_model::World;

use super::{ServiceCompiler, ServiceSettings};

impl ServiceCompiler {
    pub(super) fn look_at_nodes(&mut self, world: &World, settings: &ServiceSettings) {
        let objects = world.nodes().flat_map(|node| node.addresses.iter());
        let addresses = objects.chain(&settings.node_addresses);
        let now = addresses.map(|ip| Address::from(*ip)).collect();
        let before = std::mem::replace(&mut self.nodes, now);
        self.addresses
            .extend(before.symmetric_difference(&self.nodes));
    }

    /// Whether an address is a service's alone, now that its frontends changed. A node's is not:
    /// what no frontend answers there is for the node.
    pub(super) fn claim_address(&mut self, address: Address) {
        let theirs = |kind: u8| {
            FrontendKind::from_number(kind).is_some_and(|kind| match kind {
                FrontendKind::ClusterIp
                | FrontendKind::ExternalIps
                | FrontendKind::LoadBalancer => true,
                FrontendKind::NodePort | FrontendKind::HostPort => false,
            })
        };
        let rows = &self.ledger.rows;
        let first = FrontendKey::new(address, Port::NONE, Protocol(0));
        let here = rows
            .frontends
            .range(first..)
            .take_while(|(key, _)| key.address == address);
        let claimed =
            !self.nodes.contains(&address) && here.into_iter().any(|(_, row)| theirs(row.kind));
        if rows.addresses.contains(&address) != claimed {
            self.ledger.set_address(address, claimed);
        }
    }
}
