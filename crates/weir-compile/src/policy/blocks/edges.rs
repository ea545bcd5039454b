// SPDX-License-Identifier: Apache-2.0
//! Where blocks begin and end, and which edge is around a prefix.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::BlockId;

/// Blocks that begin and end at a prefix.
#[derive(Clone, Debug, Default)]
struct Edge {
    begin: BTreeSet<BlockId>,
    end: BTreeSet<BlockId>,
}

impl Edge {
    const fn list(&mut self, begins: bool) -> &mut BTreeSet<BlockId> {
        if begins {
            &mut self.begin
        } else {
            &mut self.end
        }
    }
}

/// All edges.
#[derive(Clone, Debug)]
pub(crate) struct Edges {
    known: BTreeMap<IpNet, Edge>,
    /// How many of each length, so that a walk asks for no others.
    v4_lengths: [u32; 33],
    v6_lengths: [u32; 129],
    /// IPv6 edges that hold the mapped IPv4 addresses.
    over_v4: u32,
}

impl Default for Edges {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            v4_lengths: [0; 33],
            v6_lengths: [0; 129],
            over_v4: 0,
        }
    }
}

/// In the longest-prefix maps IPv4 addresses are a part of `::/0`, to which they do not belong.
pub(super) fn holds_v4(net: &IpNet) -> bool {
    let mapped = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    matches!(net, IpNet::V6(v6) if v6.prefix_len() <= 96 && v6.contains(&mapped))
}

pub(super) fn every_v4() -> IpNet {
    Ipv4Net::default().into()
}

/// The range of everything in a family.
pub(crate) fn root(net: &IpNet) -> IpNet {
    match net {
        IpNet::V4(_) => Ipv4Net::default().into(),
        IpNet::V6(_) => Ipv6Net::default().into(),
    }
}

impl Edges {
    /// Whether `ipcache` needs a row for a prefix because of an edge.
    pub(crate) fn contains(&self, net: &IpNet) -> bool {
        self.known.contains_key(net) || (self.over_v4 > 0 && *net == every_v4())
    }

    /// Every prefix for which [`Self::contains`].
    pub(crate) fn all(&self) -> impl Iterator<Item = IpNet> + '_ {
        let guard = (self.over_v4 > 0 && !self.known.contains_key(&every_v4())).then(every_v4);
        self.known.keys().copied().chain(guard)
    }

    /// Edges that are single addresses.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = IpNet> + '_ {
        let any = self.v4_lengths[32] + self.v6_lengths[128] > 0;
        let edges = self.known.keys().filter(move |_| any).copied();
        edges.filter(|net| net.prefix_len() == net.max_prefix_len())
    }

    /// The narrowest edge that holds a prefix; the range of everything where none does.
    pub(crate) fn innermost(&self, net: &IpNet) -> IpNet {
        let lengths = (0..=net.prefix_len()).zip(self.lengths(net)).rev();
        let mut lengths = lengths.filter(|(_, count)| **count > 0);
        let found = lengths.find_map(|(length, _)| {
            let outer = IpNet::new(net.addr(), length).ok()?.trunc();
            self.known.contains_key(&outer).then_some(outer)
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
    pub(super) fn inside(&self, zone: &IpNet) -> Vec<BlockId> {
        let mut inside: Vec<BlockId> = Vec::new();
        for (length, count) in (0..=zone.prefix_len()).zip(self.lengths(zone)) {
            if *count == 0 {
                continue;
            }
            let outer = IpNet::new(zone.addr(), length).map(|outer| outer.trunc());
            let Some(edge) = outer.ok().and_then(|outer| self.known.get(&outer)) else {
                continue;
            };
            inside.extend(&edge.begin);
            inside.retain(|id| !edge.end.contains(id));
        }
        inside
    }

    /// How many prefixes are edges by themselves.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Has a block begin or end at a prefix; tells whether that became an edge.
    pub(super) fn put(&mut self, net: IpNet, id: BlockId, begins: bool) -> bool {
        let new = !self.known.contains_key(&net);
        if new {
            self.count(&net, true);
        }
        self.known.entry(net).or_default().list(begins).insert(id);
        new
    }

    /// Has a block no longer begin or end at a prefix; tells whether that is no edge any more.
    pub(super) fn take(&mut self, net: IpNet, id: BlockId, begins: bool) -> bool {
        let Some(edge) = self.known.get_mut(&net) else {
            return false;
        };
        edge.list(begins).remove(&id);
        let gone = edge.begin.is_empty() && edge.end.is_empty();
        if gone {
            self.known.remove(&net);
            self.count(&net, false);
        }
        gone
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
