// SPDX-License-Identifier: Apache-2.0
//! Addresses out of ranges.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use weir_net::Family;

/// Looks for addresses that nobody has; what was passed over is not looked at again.
#[derive(Debug)]
pub(super) struct Search {
    ranges: Vec<(IpNet, u128)>,
    taken: BTreeSet<IpAddr>,
}

impl Search {
    /// Begins so many addresses after the start of each range.
    pub(super) fn new(cidrs: &[IpNet], first: u128, taken: BTreeSet<IpAddr>) -> Self {
        Self {
            ranges: cidrs.iter().map(|cidr| (*cidr, first)).collect(),
            taken,
        }
    }

    /// Takes a certain address out of the search.
    pub(super) fn reserve(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    /// The next free address of a family.
    pub(super) fn take(&mut self, family: Family) -> Option<IpAddr> {
        for (cidr, next) in &mut self.ranges {
            while let Some(address) = nth(*cidr, *next).filter(|ip| Family::of(*ip) == family) {
                *next += 1;
                if self.taken.insert(address) {
                    return Some(address);
                }
            }
        }
        None
    }
}

/// An address by its place in a range.
pub(crate) fn nth(cidr: IpNet, offset: u128) -> Option<IpAddr> {
    let address = match cidr.network() {
        IpAddr::V4(base) => IpAddr::V4(
            u32::from(base)
                .checked_add(u32::try_from(offset).ok()?)?
                .into(),
        ),
        IpAddr::V6(base) => IpAddr::V6(u128::from(base).checked_add(offset)?.into()),
    };
    cidr.contains(&address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_given_once_and_ranges_end() {
        let cidrs = ["10.0.0.0/30", "fd00::/126"].map(|text| text.parse().unwrap());
        let taken = ["10.0.0.2".parse().unwrap()].into();
        let mut search = Search::new(&cidrs, 1, taken);
        let mut take = |family| search.take(family).map(|address| address.to_string());
        assert_eq!(take(Family::V4).as_deref(), Some("10.0.0.1"));
        assert_eq!(take(Family::V6).as_deref(), Some("fd00::1"));
        assert_eq!(take(Family::V4).as_deref(), Some("10.0.0.3"));
        assert_eq!(take(Family::V4), None);
    }
}
