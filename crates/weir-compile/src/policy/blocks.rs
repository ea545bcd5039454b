// SPDX-License-Identifier: Apache-2.0
//! The `ipBlock`s that rules on this node ask, and where their edges are.
//!
//! Every edge of a block, its range and its exceptions, is a prefix of its own in `ipcache`. Then all
//! addresses that share a longest prefix lie in the same blocks, and one number says which.

mod edges;
mod settle;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use weir_abi::policy::PolicyDirection;
use weir_abi::{Identity, Protocol};
use weir_model::{IpBlock, NamedPorts};

pub(crate) use edges::{Edges, root};

/// What makes two blocks the same one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct BlockKey {
    pub(crate) block: IpBlock,
    /// Only pods in the block that have a port of this name.
    pub(crate) named: Option<(String, Protocol)>,
}

/// A block's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct BlockId(pub(crate) u32);

/// A block that an address lies in, and where the block asks for a named port the number behind the
/// name; otherwise 0.
pub(crate) type Element = (BlockId, u16);

#[derive(Clone, Debug)]
struct Block {
    key: BlockKey,
    /// Identities with sets whose rules ask the block.
    users: BTreeSet<(Identity, PolicyDirection)>,
    /// Compiled policies that hold the number.
    holders: u32,
    /// Its edges are prefixes.
    active: bool,
}

/// All blocks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    numbers: BTreeMap<BlockKey, BlockId>,
    known: BTreeMap<BlockId, Block>,
    edges: Edges,
    /// Blocks with edges that ask for a named port.
    named: u32,
    /// Blocks that may have to change between active and not.
    unsettled: BTreeSet<BlockId>,
    /// Blocks whose edges found no room.
    refused: BTreeSet<BlockId>,
    last: u32,
}

impl Blocks {
    /// The number of a block.
    pub(crate) fn hold(&mut self, key: BlockKey) -> BlockId {
        if let Some(id) = self.numbers.get(&key) {
            if let Some(block) = self.known.get_mut(id) {
                block.holders += 1;
            }
            return *id;
        }
        self.last += 1;
        let id = BlockId(self.last);
        let block = Block {
            key: key.clone(),
            users: BTreeSet::new(),
            holders: 1,
            active: false,
        };
        self.numbers.insert(key, id);
        self.known.insert(id, block);
        id
    }

    /// Gives a number back. The block itself stays until [`Self::settle`] has taken its edges away.
    pub(crate) fn release(&mut self, id: BlockId) {
        if let Some(block) = self.known.get_mut(&id) {
            block.holders -= 1;
            self.unsettled.insert(id);
        }
    }

    /// Notes or forgets that a set asks a block.
    pub(crate) fn set_user(&mut self, id: BlockId, user: (Identity, PolicyDirection), uses: bool) {
        if let Some(block) = self.known.get_mut(&id) {
            if uses {
                block.users.insert(user);
            } else {
                block.users.remove(&user);
            }
            self.unsettled.insert(id);
        }
    }

    /// The sets that ask a block.
    pub(crate) fn users(
        &self,
        id: BlockId,
    ) -> impl Iterator<Item = (Identity, PolicyDirection)> + '_ {
        let users = self.known.get(&id).map(|block| &block.users);
        users.into_iter().flatten().copied()
    }

    /// The block behind a number.
    pub(crate) fn key(&self, id: BlockId) -> Option<&BlockKey> {
        self.known.get(&id).map(|block| &block.key)
    }

    /// Blocks that found no room in `ipcache`.
    pub(crate) const fn refused(&self) -> &BTreeSet<BlockId> {
        &self.refused
    }

    /// The edges of the blocks that are asked.
    pub(crate) const fn edges(&self) -> &Edges {
        &self.edges
    }

    /// Whether membership inside a zone differs from pod to pod.
    pub(crate) fn asks_for_ports(&self, zone: &IpNet) -> bool {
        let named = |id: &BlockId| self.key(*id).is_some_and(|key| key.named.is_some());
        self.named > 0 && self.edges.inside(zone).iter().any(named)
    }

    /// The blocks that the addresses of a zone lie in. Named ports are those of the pod that has the
    /// address.
    pub(crate) fn membership(&self, zone: &IpNet, ports: Option<&NamedPorts>) -> Vec<Element> {
        let inside = self.edges.inside(zone);
        let mut elements = Vec::with_capacity(inside.len());
        for id in inside {
            match self.key(id).and_then(|key| key.named.as_ref()) {
                None => elements.push((id, 0)),
                Some((name, protocol)) => {
                    let numbers = ports.into_iter();
                    let numbers = numbers.flat_map(|ports| ports.numbers(name, *protocol));
                    elements.extend(numbers.map(|number| (id, number)));
                }
            }
        }
        elements.sort_unstable();
        elements.dedup();
        elements
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    pub(super) fn key(cidr: &str, except: &[&str]) -> BlockKey {
        BlockKey {
            block: IpBlock::new(net(cidr), except.iter().map(|text| net(text))).unwrap(),
            named: None,
        }
    }

    pub(super) const USER: (Identity, PolicyDirection) = (Identity(300), PolicyDirection::Egress);

    #[test]
    fn membership_follows_the_edges() {
        let mut blocks = Blocks::default();
        let ten = blocks.hold(key("10.0.0.0/8", &["10.1.0.0/16"]));
        let one = blocks.hold(key("10.1.0.0/16", &["10.1.2.0/24"]));
        let all = blocks.hold(key("::/0", &[]));
        for id in [ten, one, all] {
            blocks.set_user(id, USER, true);
        }
        assert_eq!(blocks.settle(100, |_| false).ranges.len(), 3);
        let check = |text: &str, expected: &[BlockId]| {
            let found = blocks.membership(&blocks.edges().innermost(&net(text)), None);
            let expected: Vec<_> = expected.iter().map(|id| (*id, 0)).collect();
            assert_eq!(found, expected, "{text}");
        };
        check("10.0.0.0/8", &[ten]);
        check("10.1.0.0/16", &[one]);
        check("10.1.2.0/24", &[]);
        check("10.1.3.4/32", &[one]);
        check("10.2.3.4/32", &[ten]);
        check("0.0.0.0/0", &[]);
        check("fd00::1/128", &[all]);
        // IPv4 lies inside `::/0` in the map, so it needs a prefix that says "not in it".
        assert!(
            blocks.edges().contains(&net("0.0.0.0/0"))
                && blocks.edges().all().any(|one| one == net("0.0.0.0/0"))
        );
        assert_eq!(blocks.edges().all().count(), 5);

        blocks.set_user(all, USER, false);
        blocks.release(all);
        assert_eq!(blocks.settle(100, |_| false).ranges, [net("::/0")]);
        assert!(!blocks.edges().contains(&net("0.0.0.0/0")) && blocks.key(all).is_none());
    }

    #[test]
    fn named_ports_depend_on_the_pod() {
        let mut blocks = Blocks::default();
        let named = Some(("http".to_owned(), Protocol::TCP));
        let id = blocks.hold(BlockKey {
            named,
            ..key("10.0.0.0/8", &[])
        });
        blocks.set_user(id, USER, true);
        blocks.settle(100, |_| false);
        let port = |name: &str, port| weir_model::NamedPort {
            name: name.to_owned(),
            protocol: Protocol::TCP,
            port,
        };
        let ports: NamedPorts = [port("http", 8080), port("x", 1)].into_iter().collect();
        let host = blocks.edges().innermost(&net("10.0.0.1/32"));
        assert_eq!(blocks.membership(&host, Some(&ports)), [(id, 8080)]);
        assert!(blocks.membership(&host, None).is_empty());
        assert!(
            blocks
                .membership(&host, Some(&NamedPorts::default()))
                .is_empty()
        );
    }
}
