// SPDX-License-Identifier: Apache-2.0
//! The `ipBlock`s that rules on this node ask, and where their edges are.
//!
//! Every edge of a block, its range and its exceptions, is a prefix of its own in `ipcache`. Then all
//! addresses that share a longest prefix lie in the same blocks, and one number says which.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net};
use weir_abi::ipcache::PrefixKey;
use weir_abi::policy::PolicyDirection;
use weir_abi::{Identity, Protocol};
use weir_model::{IpBlock, NamedPorts};

use super::zones::root;
use crate::prefix::prefix_key;

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

/// Blocks that begin and end at a prefix.
#[derive(Clone, Debug, Default)]
struct Edge {
    begin: BTreeSet<BlockId>,
    end: BTreeSet<BlockId>,
}

/// What [`Blocks::settle`] changed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settled {
    /// Ranges in which membership may differ.
    pub(crate) ranges: Vec<IpNet>,
    /// Edges that were not there before, and those that are there no longer.
    pub(crate) added: BTreeSet<IpNet>,
    pub(crate) removed: BTreeSet<IpNet>,
}

/// All blocks.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    numbers: BTreeMap<BlockKey, BlockId>,
    known: BTreeMap<BlockId, Block>,
    edges: BTreeMap<IpNet, Edge>,
    /// Edges of each length, so that a walk asks for no others.
    v4_lengths: [u32; 33],
    v6_lengths: [u32; 129],
    /// IPv6 edges that hold the mapped IPv4 addresses.
    over_v4: u32,
    /// Blocks with edges that ask for a named port.
    named: u32,
    /// Blocks that may have to change between active and not.
    unsettled: BTreeSet<BlockId>,
    /// Blocks whose edges found no room.
    refused: BTreeSet<BlockId>,
    last: u32,
}

impl Default for Blocks {
    fn default() -> Self {
        Self {
            numbers: BTreeMap::new(),
            known: BTreeMap::new(),
            edges: BTreeMap::new(),
            v4_lengths: [0; 33],
            v6_lengths: [0; 129],
            over_v4: 0,
            named: 0,
            unsettled: BTreeSet::new(),
            refused: BTreeSet::new(),
            last: 0,
        }
    }
}

/// In the longest-prefix maps IPv4 addresses are a part of `::/0`, to which they do not belong.
fn holds_v4(net: &IpNet) -> bool {
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    matches!(net, IpNet::V6(v6) if v6.prefix_len() <= 96 && v6.contains(&mapped))
}

fn every_v4() -> IpNet {
    Ipv4Net::default().into()
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

    /// Whether `ipcache` needs a row for a prefix because of an edge.
    pub(crate) fn is_edge(&self, net: &IpNet) -> bool {
        self.edges.contains_key(net) || (self.over_v4 > 0 && *net == every_v4())
    }

    /// Every prefix for which [`Self::is_edge`].
    pub(crate) fn edges(&self) -> impl Iterator<Item = IpNet> + '_ {
        let guard = (self.over_v4 > 0 && !self.edges.contains_key(&every_v4())).then(every_v4);
        self.edges.keys().copied().chain(guard)
    }

    /// Edges that are single addresses.
    pub(crate) fn host_edges(&self) -> impl Iterator<Item = IpNet> + '_ {
        let any = self.v4_lengths[32] + self.v6_lengths[128] > 0;
        let edges = self.edges.keys().filter(move |_| any).copied();
        edges.filter(|net| net.prefix_len() == net.max_prefix_len())
    }

    /// The narrowest edge that holds a prefix; the range of everything where none does.
    pub(crate) fn innermost(&self, net: &IpNet) -> IpNet {
        let lengths = (0..=net.prefix_len()).zip(self.lengths(net)).rev();
        let mut lengths = lengths.filter(|(_, count)| **count > 0);
        let found = lengths.find_map(|(length, _)| {
            let outer = IpNet::new(net.addr(), length).ok()?.trunc();
            self.edges.contains_key(&outer).then_some(outer)
        });
        found.unwrap_or_else(|| root(net))
    }

    fn lengths(&self, net: &IpNet) -> &[u32] {
        match net {
            IpNet::V4(_) => &self.v4_lengths,
            IpNet::V6(_) => &self.v6_lengths,
        }
    }

    /// The blocks that all addresses of a zone lie in.
    fn inside(&self, zone: &IpNet) -> Vec<BlockId> {
        let mut inside: Vec<BlockId> = Vec::new();
        for (length, count) in (0..=zone.prefix_len()).zip(self.lengths(zone)) {
            if *count == 0 {
                continue;
            }
            let outer = IpNet::new(zone.addr(), length).map(|outer| outer.trunc());
            let Some(edge) = outer.ok().and_then(|outer| self.edges.get(&outer)) else {
                continue;
            };
            inside.extend(&edge.begin);
            inside.retain(|id| !edge.end.contains(id));
        }
        inside
    }

    /// Whether membership inside a zone differs from pod to pod.
    pub(crate) fn asks_for_ports(&self, zone: &IpNet) -> bool {
        let named = |id: &BlockId| self.key(*id).is_some_and(|key| key.named.is_some());
        self.named > 0 && self.inside(zone).iter().any(named)
    }

    /// The blocks that the addresses of a zone lie in. Named ports are those of the pod that has the
    /// address.
    pub(crate) fn membership(&self, zone: &IpNet, ports: Option<&NamedPorts>) -> Vec<Element> {
        let inside = self.inside(zone);
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

    /// Puts in the edges of blocks that are asked now and takes away those of the others, as long as
    /// there is room for new prefixes. `is_known` tells prefixes that have a row anyway.
    pub(crate) fn settle(&mut self, room: usize, is_known: impl Fn(&PrefixKey) -> bool) -> Settled {
        let mut wanted: BTreeSet<BlockId> = BTreeSet::new();
        let asked = |block: &Block| !block.users.is_empty();
        let tight = self.edges.len() + self.unsettled_edges() + 1 > room;
        if tight || !self.refused.is_empty() {
            // Every block is weighed again, oldest first.
            let mut prefixes = BTreeSet::new();
            let mut refused = BTreeSet::new();
            for (id, block) in self.known.iter().filter(|(_, block)| asked(block)) {
                let mut more: BTreeSet<IpNet> = edges_of(&block.key.block).collect();
                if more.iter().any(holds_v4) {
                    more.insert(every_v4());
                }
                more.retain(|net| !is_known(&prefix_key(*net)) && !prefixes.contains(net));
                if prefixes.len() + more.len() <= room {
                    prefixes.extend(more);
                    wanted.insert(*id);
                } else {
                    refused.insert(*id);
                }
            }
            self.refused = refused;
            self.unsettled = self.known.keys().copied().collect();
        } else {
            let asked = |id: &&BlockId| self.known.get(id).is_some_and(asked);
            wanted = self.unsettled.iter().filter(asked).copied().collect();
        }
        let mut settled = Settled::default();
        for id in std::mem::take(&mut self.unsettled) {
            let Some(block) = self.known.get_mut(&id) else {
                continue;
            };
            let active = wanted.contains(&id);
            if block.active != active {
                block.active = active;
                let BlockKey { block, named } = block.key.clone();
                if named.is_some() {
                    self.named = if active {
                        self.named + 1
                    } else {
                        self.named - 1
                    };
                }
                self.draw(id, &block, active, &mut settled);
                settled.ranges.push(block.cidr());
            }
            if let Some(block) = self.known.get(&id)
                && block.holders == 0
                && !block.active
            {
                self.numbers.remove(&block.key);
                self.known.remove(&id);
            }
        }
        settled
    }

    fn unsettled_edges(&self) -> usize {
        let blocks = self.unsettled.iter().filter_map(|id| self.known.get(id));
        blocks
            .map(|block| 1 + block.key.block.except().count())
            .sum()
    }

    /// Adds or removes the edges of a block.
    fn draw(&mut self, id: BlockId, block: &IpBlock, add: bool, settled: &mut Settled) {
        let nets = std::iter::once((block.cidr(), true));
        for (net, begins) in nets.chain(block.except().map(|net| (net, false))) {
            if add && !self.edges.contains_key(&net) {
                self.count(&net, true);
                if !settled.removed.remove(&net) {
                    settled.added.insert(net);
                }
            }
            let edge = self.edges.entry(net).or_default();
            let list = if begins {
                &mut edge.begin
            } else {
                &mut edge.end
            };
            if add {
                list.insert(id);
            } else {
                list.remove(&id);
            }
            if edge.begin.is_empty() && edge.end.is_empty() {
                self.edges.remove(&net);
                self.count(&net, false);
                if !settled.added.remove(&net) {
                    settled.removed.insert(net);
                }
            }
        }
    }

    fn count(&mut self, net: &IpNet, add: bool) {
        let count = match net {
            IpNet::V4(v4) => &mut self.v4_lengths[usize::from(v4.prefix_len())],
            IpNet::V6(v6) => &mut self.v6_lengths[usize::from(v6.prefix_len())],
        };
        let counts = [Some(count), holds_v4(net).then_some(&mut self.over_v4)];
        for count in counts.into_iter().flatten() {
            *count = if add {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
        }
    }
}

fn edges_of(block: &IpBlock) -> impl Iterator<Item = IpNet> + '_ {
    std::iter::once(block.cidr()).chain(block.except())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn key(cidr: &str, except: &[&str]) -> BlockKey {
        BlockKey {
            block: IpBlock::new(net(cidr), except.iter().map(|text| net(text))).unwrap(),
            named: None,
        }
    }

    const USER: (Identity, PolicyDirection) = (Identity(300), PolicyDirection::Egress);

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
            let found = blocks.membership(&blocks.innermost(&net(text)), None);
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
            blocks.is_edge(&net("0.0.0.0/0")) && blocks.edges().any(|one| one == net("0.0.0.0/0"))
        );
        assert_eq!(blocks.edges().count(), 5);

        blocks.set_user(all, USER, false);
        blocks.release(all);
        assert_eq!(blocks.settle(100, |_| false).ranges, [net("::/0")]);
        assert!(!blocks.is_edge(&net("0.0.0.0/0")) && blocks.key(all).is_none());
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
        let host = blocks.innermost(&net("10.0.0.1/32"));
        assert_eq!(blocks.membership(&host, Some(&ports)), [(id, 8080)]);
        assert!(blocks.membership(&host, None).is_empty());
        assert!(
            blocks
                .membership(&host, Some(&NamedPorts::default()))
                .is_empty()
        );
    }

    #[test]
    fn what_finds_no_room_is_refused_and_comes_back() {
        let mut blocks = Blocks::default();
        let first = blocks.hold(key("10.0.0.0/8", &[]));
        let second = blocks.hold(key("11.0.0.0/8", &["11.1.0.0/16"]));
        for id in [first, second] {
            blocks.set_user(id, USER, true);
        }
        assert_eq!(blocks.settle(2, |_| false).ranges, [net("10.0.0.0/8")]);
        assert_eq!(blocks.refused(), &BTreeSet::from([second]));
        // A prefix that has a row anyway takes no room.
        let known = prefix_key(net("11.0.0.0/8"));
        let settled = blocks.settle(2, |key| *key == known);
        assert_eq!(settled.ranges, [net("11.0.0.0/8")]);
        assert_eq!(settled.added.len(), 2);
        assert!(blocks.refused().is_empty());
    }
}
