// SPDX-License-Identifier: Apache-2.0
//! The ranges that nodes give to their pods, and the routes to what is in them.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::ipcache::{IpcacheRow, flags};
use weir_abi::{Identity, NodeIndex};
use weir_model::{Node, NodeName};

use super::{Compiler, RoutingMode};
use crate::prefix::prefix_key;
use crate::{DesiredRoute, Problem, RoutePath};

impl Compiler<'_> {
    pub(super) fn ranges(
        &mut self,
        node: &Node,
        index: NodeIndex,
        taken: &mut Vec<(IpNet, NodeName)>,
    ) {
        let own = node.name == self.settings.node;
        for cidr in &node.pod_cidrs {
            let net = cidr.net();
            let overlap = taken
                .iter()
                .find(|(other, _)| other.contains(&net) || net.contains(other));
            match overlap {
                Some((_, first)) if *first == node.name => continue,
                Some((_, first)) => {
                    self.out
                        .problems
                        .push(Problem::overlap(*cidr, first, &node.name));
                    continue;
                }
                None => taken.push((net, node.name.clone())),
            }
            let local = if own { flags::LOCAL_RANGE } else { 0 };
            let row = IpcacheRow {
                identity: Identity::UNKNOWN,
                blocks: weir_abi::BlockGroup::NONE,
                node: index,
                flags: flags::POD_RANGE | local,
            };
            if self.room_for(|| format!("pod range {net} of node {}", node.name)) {
                self.out.rows.ipcache.insert(prefix_key(net), row);
            }
            self.route(node, net, own);
        }
    }

    fn route(&mut self, node: &Node, destination: IpNet, own: bool) {
        let example = destination.addr();
        let path = match (own, self.settings.routing) {
            (true, _) | (_, RoutingMode::Tunnel) => self.host_path(example),
            (false, RoutingMode::Native) => {
                let Some(gateway) = node.address_like(example) else {
                    let cidr = destination.to_string();
                    self.out.problems.push(Problem::NoGateway {
                        node: node.name.clone(),
                        cidr,
                    });
                    return;
                };
                RoutePath::Node { gateway }
            }
        };
        self.out.routes.push(DesiredRoute { destination, path });
    }

    pub(super) fn host_path(&self, example: IpAddr) -> RoutePath {
        let own = self.world.node(&self.settings.node);
        let source = own.and_then(|node| node.address_like(example)).or_else(|| {
            let mut found = self.settings.node_addresses.iter();
            found
                .find(|address| address.is_ipv4() == example.is_ipv4())
                .copied()
        });
        let mtu = match self.settings.routing {
            RoutingMode::Native => None,
            // The links of the node's own pods are as narrow as the way to the others.
            RoutingMode::Tunnel => Some(self.settings.pod_mtu),
        };
        RoutePath::Host { source, mtu }
    }
}
