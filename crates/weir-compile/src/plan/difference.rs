// SPDX-License-Identifier: Apache-2.0
//! What differs between realized and desired rows, and what is around a row.

use std::collections::{BTreeMap, BTreeSet};

use weir_abi::Identity;
use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::policy::{PolicyKey, PolicyRow, PortRule};

use crate::Rows;

/// The rows of a peer, from the first one on.
pub(super) fn parts<'a>(rows: &'a Rows, first: &PolicyKey) -> impl Iterator<Item = &'a PolicyRow> {
    let first = *first;
    (0..).map_while(move |part| rows.policy.get(&PolicyKey { part, ..first }))
}

/// Rows that no other one leads to.
pub(super) fn strays(rows: &Rows) -> impl Iterator<Item = PolicyKey> {
    let led_to = |key: &PolicyKey| {
        (0..key.part).all(|part| rows.policy.contains_key(&PolicyKey { part, ..*key }))
    };
    rows.policy.keys().filter(move |key| !led_to(key)).copied()
}

/// The port rules of a peer.
pub(super) fn rules(rows: &Rows, first: &PolicyKey) -> Vec<PortRule> {
    let used = |row: &PolicyRow| row.rules.into_iter().take(usize::from(row.count));
    parts(rows, first).flat_map(used).collect()
}

/// What addresses of a prefix are without it.
pub(super) fn around(rows: &Rows, key: &PrefixKey) -> IpcacheRow {
    let found = (0..key.length).rev().find_map(|length| {
        let mut address = key.address;
        for (place, byte) in (0_u32..).zip(&mut address.0) {
            let kept = length.saturating_sub(place * 8).min(8);
            *byte &= u8::try_from((0xff00_u32 >> kept) & 0xff).unwrap_or(0);
        }
        rows.ipcache.get(&PrefixKey { length, address })
    });
    let identity = if key.address.is_v4() && key.length >= 96 {
        Identity::WORLD_IPV4
    } else {
        Identity::WORLD_IPV6
    };
    found.copied().unwrap_or(IpcacheRow {
        identity,
        ..IpcacheRow::default()
    })
}

pub(super) struct Difference<K, V> {
    pub(super) upserts: Vec<(K, V)>,
    pub(super) deletes: Vec<K>,
    /// One of the upserts takes the place of another value.
    pub(super) replaced: bool,
}

impl<K: Copy + Ord, V: Copy + Eq> Difference<K, V> {
    pub(super) fn of(realized: &BTreeMap<K, V>, desired: &BTreeMap<K, V>) -> Self {
        let gone = realized.keys().filter(|key| !desired.contains_key(key));
        Self::by_keys(desired.keys().chain(gone), realized, desired)
    }

    pub(super) fn among(
        keys: &BTreeSet<K>,
        realized: &BTreeMap<K, V>,
        desired: &BTreeMap<K, V>,
    ) -> Self {
        Self::by_keys(keys.iter(), realized, desired)
    }

    fn by_keys<'k>(
        keys: impl Iterator<Item = &'k K>,
        realized: &BTreeMap<K, V>,
        desired: &BTreeMap<K, V>,
    ) -> Self
    where
        K: 'k,
    {
        let mut difference = Self {
            upserts: Vec::new(),
            deletes: Vec::new(),
            replaced: false,
        };
        for key in keys {
            match (realized.get(key), desired.get(key)) {
                (old, Some(new)) if old != Some(new) => {
                    difference.replaced |= old.is_some();
                    difference.upserts.push((*key, *new));
                }
                (Some(_), None) => difference.deletes.push(*key),
                (Some(_) | None, Some(_) | None) => {}
            }
        }
        difference
    }
}
