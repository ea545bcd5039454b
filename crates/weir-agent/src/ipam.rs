// SPDX-License-Identifier: Apache-2.0
//! Addresses for pods, out of the node's ranges. Pure: the time is an argument.
//!
//! Addresses are given out in a circle and rest for a while after use, so that a late packet for a
//! pod that is gone does not reach another one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weir_model::{PodCidr, PodRef};

/// How long an address is not given out again, where there are others.
const REST: Duration = Duration::from_mins(1);

/// Why a pod gets no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IpamError {
    #[error("this node has no pod ranges (yet)")]
    NoRanges,
    #[error("every address of {} is in use", ranges.join(" and "))]
    Full { ranges: Vec<String> },
    #[error("address {address} is in use by pod {owner}")]
    InUse { address: IpAddr, owner: PodRef },
    #[error("address {address} is in none of this node's pod ranges ({})", ranges.join(", "))]
    OutOfRange {
        address: IpAddr,
        ranges: Vec<String>,
    },
    #[error("address {address} of {range} cannot be given to a pod: it names the range itself")]
    Reserved { address: IpAddr, range: String },
}

/// What one agent tells the next, so that no address is given again at once because of a restart.
/// Which addresses are in use is said by the endpoints themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Remembered {
    /// The address given last in each range.
    last: Vec<(String, IpAddr)>,
    /// Addresses that rest, with the milliseconds of the monotonic clock when they were given back.
    released: Vec<(IpAddr, u64)>,
}

/// All ranges of a node with what is in use.
#[derive(Clone, Debug, Default)]
pub struct Ipam {
    ranges: Vec<PodCidr>,
    used: BTreeMap<IpAddr, PodRef>,
    /// When an address was given back.
    released: BTreeMap<IpAddr, Duration>,
    /// The address given last in each range.
    last: BTreeMap<PodCidr, u128>,
}

impl Ipam {
    /// Takes over the node's ranges; addresses in use stay so even outside of them.
    pub fn set_ranges(&mut self, ranges: Vec<PodCidr>) -> bool {
        let changed = self.ranges != ranges;
        self.ranges = ranges;
        changed
    }

    /// The ranges with used and usable addresses.
    pub fn pools(&self) -> impl Iterator<Item = (PodCidr, u64, u64)> {
        self.ranges.iter().map(|range| {
            let used = self
                .used
                .keys()
                .filter(|address| range.contains(**address))
                .count();
            let (first, last) = usable(*range);
            let capacity = u64::try_from(last - first + 1).unwrap_or(u64::MAX);
            (*range, used as u64, capacity)
        })
    }

    /// Marks an address that a pod has already, whatever the ranges say (after a restart).
    pub fn restore(&mut self, address: IpAddr, owner: PodRef) {
        self.used.insert(address, owner);
    }

    /// What the next agent has to know.
    pub fn remembered(&self) -> Remembered {
        let last = self.last.iter();
        let released = self.released.iter();
        Remembered {
            last: last
                .map(|(range, last)| (range.to_string(), address(range.net(), *last)))
                .collect(),
            released: released
                .map(|(address, since)| {
                    (
                        *address,
                        u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
                    )
                })
                .collect(),
        }
    }

    /// Takes over what an agent before this one has said. Files can be edited: what makes no sense
    /// is passed over.
    pub fn remember(&mut self, before: Remembered, now: Duration) {
        let last = before.last.into_iter().filter_map(|(range, address)| {
            let range = PodCidr::parse(&range).ok()?;
            range.contains(address).then(|| (range, number(address)))
        });
        self.last.extend(last);
        let released = before.released.into_iter();
        let released = released.map(|(address, since)| (address, Duration::from_millis(since)));
        // A time to come is of a clock that has started anew with the machine.
        self.released.extend(
            released
                .filter(|(_, since)| now.checked_sub(*since).is_some_and(|rested| rested < REST)),
        );
    }

    /// Gives exactly the addresses that are asked for, or one of each family. `claimed` says that
    /// somebody else will come for an address.
    pub fn allocate(
        &mut self,
        requested: &[IpAddr],
        owner: &PodRef,
        claimed: impl Fn(IpAddr) -> bool,
        now: Duration,
    ) -> Result<Vec<IpAddr>, IpamError> {
        if self.ranges.is_empty() {
            return Err(IpamError::NoRanges);
        }
        let addresses = if requested.is_empty() {
            self.choose(&claimed, now)?
        } else {
            for address in requested {
                self.check(*address)?;
            }
            requested.to_vec()
        };
        for address in &addresses {
            self.used.insert(*address, owner.clone());
            self.released.remove(address);
        }
        Ok(addresses)
    }

    /// Takes an address back.
    pub fn release(&mut self, address: IpAddr, now: Duration) {
        if self.used.remove(&address).is_some() {
            self.released
                .retain(|_, since| now.saturating_sub(*since) < REST);
            self.released.insert(address, now);
        }
    }

    fn names(&self) -> Vec<String> {
        self.ranges.iter().map(ToString::to_string).collect()
    }

    fn check(&self, address: IpAddr) -> Result<(), IpamError> {
        if let Some(owner) = self.used.get(&address) {
            return Err(IpamError::InUse {
                address,
                owner: owner.clone(),
            });
        }
        let Some(range) = self.ranges.iter().find(|range| range.contains(address)) else {
            return Err(IpamError::OutOfRange {
                address,
                ranges: self.names(),
            });
        };
        let (first, last) = usable(*range);
        if (first..=last).contains(&number(address)) {
            Ok(())
        } else {
            Err(IpamError::Reserved {
                address,
                range: range.to_string(),
            })
        }
    }

    fn choose(
        &mut self,
        claimed: &impl Fn(IpAddr) -> bool,
        now: Duration,
    ) -> Result<Vec<IpAddr>, IpamError> {
        let mut chosen = Vec::new();
        for v4 in [true, false] {
            let ranges: Vec<_> = self
                .ranges
                .iter()
                .copied()
                .filter(|range| range.net().addr().is_ipv4() == v4)
                .collect();
            if ranges.is_empty() {
                continue;
            }
            let fresh = |address| {
                let since = self.released.get(&address);
                !claimed(address) && since.is_none_or(|since| now.saturating_sub(*since) >= REST)
            };
            // Rather a rested address, then any other that nobody waits for, then whatever is free.
            let found = ranges
                .iter()
                .find_map(|range| self.next(*range, fresh))
                .or_else(|| {
                    ranges
                        .iter()
                        .find_map(|range| self.next(*range, |a| !claimed(a)))
                })
                .or_else(|| ranges.iter().find_map(|range| self.next(*range, |_| true)));
            let Some((range, address)) = found else {
                let ranges = ranges.iter().map(ToString::to_string).collect();
                return Err(IpamError::Full { ranges });
            };
            chosen.push((range, address));
        }
        for (range, address) in &chosen {
            self.last.insert(*range, number(*address));
        }
        Ok(chosen.into_iter().map(|(_, address)| address).collect())
    }

    /// The next free address of a range after the one given last.
    fn next(&self, range: PodCidr, good: impl Fn(IpAddr) -> bool) -> Option<(PodCidr, IpAddr)> {
        let (first, last) = usable(range);
        let start = self.last.get(&range).map_or(first, |last| last + 1);
        // Among one more candidate than there are reasons to refuse one, one is free: a /64 must
        // not be searched through.
        let refusals = self.used.len() + self.released.len() + 1;
        let tries = usize::try_from(last - first + 1).unwrap_or(usize::MAX);
        let candidates = (start..=last).chain(first..start.min(last + 1)).take(tries);
        let mut refused_by_caller = 0;
        for candidate in candidates {
            let address = address(range.net(), candidate);
            if self.used.contains_key(&address) {
                continue;
            }
            if good(address) {
                return Some((range, address));
            }
            refused_by_caller += 1;
            if refused_by_caller > refusals + MOST_CLAIMED {
                return None;
            }
        }
        None
    }
}

/// Pods that can be waiting for an address of this node (Kubernetes supports 110 on one).
const MOST_CLAIMED: usize = 65_536;

/// The first and last address that a pod can have: not the one of the range itself, not the IPv4
/// broadcast address.
fn usable(range: PodCidr) -> (u128, u128) {
    let net = range.net();
    let first = number(net.network()) + 1;
    let last = match net {
        IpNet::V4(v4) => u128::from(u32::from(v4.broadcast())) - 1,
        IpNet::V6(v6) => u128::from(v6.broadcast()),
    };
    (first, last)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(like: IpNet, number: u128) -> IpAddr {
    match like {
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or_default()).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

#[cfg(test)]
mod tests;
