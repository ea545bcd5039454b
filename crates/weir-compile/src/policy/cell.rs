// SPDX-License-Identifier: Apache-2.0
//! What rules say about one peer: ports, and which rules are behind each of them.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::policy::{PARTS_MAX, PortRule, RULES_PER_ROW, rule_flags};
use weir_abi::{PolicyCookie, Protocol};

/// Port rules that the rows of one peer can hold.
pub const RULES_MAX: usize = PARTS_MAX as usize * RULES_PER_ROW;

/// Rank of the rules of a `NetworkPolicy`; tiers above and below find room.
const NETWORK_POLICY: u16 = 0x8000;

/// A compiled policy's number inside the compiler; 0 is nobody's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PolicyNumber(pub(crate) u32);

/// A rule of a policy; its direction is known from where it stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RuleId {
    pub(crate) policy: PolicyNumber,
    /// Its place in the policy's list.
    pub(crate) rule: u32,
}

impl RuleId {
    /// No policy's: the way to the node that the pod runs on is always free.
    pub(crate) const OWN_NODE: Self = Self {
        policy: PolicyNumber(0),
        rule: 0,
    };
}

/// Ports of a protocol, as a row can say it.
///
/// The order is that of rules in a row: what decides first comes first, and of equals the narrower
/// one, so that the cookie that is found names the rule that a person would name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PortSpec {
    /// Counted from above.
    below: u16,
    allows: bool,
    /// Every protocol is wider than one of them.
    every_protocol: bool,
    /// Number of ports less one.
    width: u16,
    protocol: Protocol,
    first: u16,
}

impl PortSpec {
    /// Everything.
    pub(crate) const EVERYTHING: Self = Self::allow(Protocol(0), 0, u16::MAX);

    /// A range of ports.
    pub(crate) const fn allow(protocol: Protocol, first: u16, last: u16) -> Self {
        Self {
            below: u16::MAX - NETWORK_POLICY,
            allows: true,
            every_protocol: protocol.0 == 0,
            width: last - first,
            protocol,
            first,
        }
    }

    /// The same for a single port.
    pub(crate) const fn at(&self, port: u16) -> Self {
        Self {
            first: port,
            width: 0,
            ..*self
        }
    }

    const fn last(&self) -> u16 {
        self.first + self.width
    }

    /// Whether the other one's packets are all of this one's.
    fn covers(&self, other: &Self) -> bool {
        (self.below, self.allows) == (other.below, other.allows)
            && (self.every_protocol || self.protocol == other.protocol)
            && self.first <= other.first
            && other.last() <= self.last()
    }

    /// As it stands in a row.
    pub(crate) const fn rule(&self, cookie: PolicyCookie) -> PortRule {
        PortRule {
            cookie,
            first_port: self.first,
            last_port: self.last(),
            precedence: u16::MAX - self.below,
            protocol: self.protocol,
            flags: if self.allows { 0 } else { rule_flags::DENY },
        }
    }

    /// Out of a row.
    pub(crate) const fn of(rule: &PortRule) -> Self {
        Self {
            below: u16::MAX - rule.precedence,
            allows: rule.flags & rule_flags::DENY == 0,
            every_protocol: rule.protocol.0 == 0,
            width: rule.last_port.saturating_sub(rule.first_port),
            protocol: rule.protocol,
            first: rule.first_port,
        }
    }
}

/// Joins ranges of one rule that touch or overlap.
pub(crate) fn join(specs: &mut Vec<PortSpec>) {
    specs.sort_by_key(|spec| (spec.protocol, spec.first, spec.width));
    let mut joined: Vec<PortSpec> = Vec::with_capacity(specs.len());
    for spec in specs.drain(..) {
        match joined.last_mut() {
            Some(last)
                if last.protocol == spec.protocol
                    && u32::from(spec.first) <= u32::from(last.last()) + 1 =>
            {
                last.width = last.last().max(spec.last()) - last.first;
            }
            Some(_) | None => joined.push(spec),
        }
    }
    *specs = joined;
}

/// What the rules of all policies say about one peer in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell(Vec<(PortSpec, RuleId, u32)>);

impl Cell {
    /// Notes that a rule allows these ports; a rule can say so several times, by several peers.
    pub(crate) fn add(&mut self, spec: PortSpec, rule: RuleId) {
        match self.place(&spec, rule) {
            Ok(place) => self.0[place].2 += 1,
            Err(place) => {
                if self.0.is_empty() {
                    // Most peers are named by one rule with one port.
                    self.0.reserve_exact(1);
                }
                self.0.insert(place, (spec, rule, 1));
            }
        }
    }

    /// Takes one such note back.
    pub(crate) fn remove(&mut self, spec: PortSpec, rule: RuleId) {
        if let Ok(place) = self.place(&spec, rule) {
            let count = &mut self.0[place].2;
            *count -= 1;
            if *count == 0 {
                self.0.remove(place);
            }
        }
    }

    fn place(&self, spec: &PortSpec, rule: RuleId) -> Result<usize, usize> {
        self.0
            .binary_search_by(|(one, by, _)| (one, by).cmp(&(spec, &rule)))
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Ports with rules.
    pub(crate) fn shares(&self) -> impl Iterator<Item = (PortSpec, RuleId)> {
        self.0.iter().map(|(spec, rule, _)| (*spec, *rule))
    }
}

/// One port rule of a row and the rules of policies behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    pub(crate) spec: PortSpec,
    pub(crate) rules: BTreeSet<RuleId>,
}

/// Why a peer cannot have rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMany(pub(crate) usize);

/// The port rules of a peer in the order of its rows. A wider rule of another policy allows the same,
/// so it stands behind the narrower one too.
pub(crate) fn rulings(
    shares: impl Iterator<Item = (PortSpec, RuleId)>,
) -> Result<Vec<Ruling>, TooMany> {
    let mut by_spec: BTreeMap<PortSpec, BTreeSet<RuleId>> = BTreeMap::new();
    for (spec, rule) in shares {
        by_spec.entry(spec).or_default().insert(rule);
    }
    if by_spec.len() > RULES_MAX {
        // Only the explanation gets poorer without what a wider rule covers.
        let wide: Vec<_> = by_spec.keys().copied().collect();
        by_spec.retain(|spec, _| !wide.iter().any(|one| one != spec && one.covers(spec)));
    }
    if by_spec.len() > RULES_MAX {
        return Err(TooMany(by_spec.len()));
    }
    let behind = |spec: &PortSpec| {
        let covering = by_spec.iter().filter(|(one, _)| one.covers(spec));
        covering.flat_map(|(_, rules)| rules).copied().collect()
    };
    let rulings = by_spec.keys().map(|spec| Ruling {
        spec: *spec,
        rules: behind(spec),
    });
    Ok(rulings.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: Protocol = Protocol::TCP;

    fn rule(policy: u32) -> RuleId {
        RuleId {
            policy: PolicyNumber(policy),
            rule: 0,
        }
    }

    #[test]
    fn the_narrower_rule_comes_first_and_names_the_wider_ones() {
        let shares = [
            (PortSpec::EVERYTHING, rule(1)),
            (PortSpec::allow(TCP, 0, u16::MAX), rule(2)),
            (PortSpec::allow(TCP, 80, 90), rule(3)),
            (PortSpec::allow(TCP, 80, 80), rule(4)),
            (PortSpec::allow(Protocol::UDP, 80, 80), rule(5)),
            (PortSpec::allow(TCP, 80, 80), rule(6)),
        ];
        let found: Vec<_> = rulings(shares.into_iter())
            .unwrap()
            .iter()
            .map(|ruling| {
                let row = ruling.spec.rule(PolicyCookie(1));
                assert_eq!(PortSpec::of(&row), ruling.spec);
                let policies: Vec<_> = ruling.rules.iter().map(|one| one.policy.0).collect();
                (row.protocol.0, row.first_port, row.last_port, policies)
            })
            .collect();
        assert_eq!(
            found,
            [
                (6, 80, 80, vec![1, 2, 3, 4, 6]),
                (17, 80, 80, vec![1, 5]),
                (6, 80, 90, vec![1, 2, 3]),
                (6, 0, u16::MAX, vec![1, 2]),
                (0, 0, u16::MAX, vec![1]),
            ]
        );
    }

    #[test]
    fn ranges_of_a_rule_are_joined() {
        let mut specs = vec![
            PortSpec::allow(TCP, 82, 90),
            PortSpec::allow(Protocol::UDP, 83, 84),
            PortSpec::allow(TCP, 80, 80),
            PortSpec::allow(TCP, 81, 85),
            PortSpec::allow(TCP, 65_535, 65_535),
            PortSpec::allow(TCP, 92, 92),
        ];
        join(&mut specs);
        assert_eq!(
            specs,
            [
                PortSpec::allow(TCP, 80, 90),
                PortSpec::allow(TCP, 92, 92),
                PortSpec::allow(TCP, 65_535, 65_535),
                PortSpec::allow(Protocol::UDP, 83, 84),
            ]
        );
    }

    #[test]
    fn more_rules_than_fit_are_thinned_out_or_refused() {
        let single = |port: u16| (PortSpec::allow(TCP, port * 2, port * 2), rule(1));
        let most = || (0..128).map(single);
        assert_eq!(rulings(most()).unwrap().len(), RULES_MAX);
        assert_eq!(rulings((0..129).map(single)), Err(TooMany(129)));
        let wide = (PortSpec::allow(TCP, 100, 400), rule(2));
        let found = rulings((0..129).map(single).chain([wide])).unwrap();
        assert_eq!(found.len(), 51);
    }

    #[test]
    fn a_rule_counts_as_often_as_it_speaks() {
        let mut cell = Cell::default();
        let spec = PortSpec::allow(TCP, 80, 80);
        for _ in 0..2 {
            cell.add(spec, rule(1));
        }
        cell.remove(spec, rule(1));
        assert!(!cell.is_empty());
        cell.remove(spec, rule(1));
        cell.remove(spec, rule(1));
        assert!(cell.is_empty());
    }
}
