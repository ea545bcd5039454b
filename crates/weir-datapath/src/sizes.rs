// SPDX-License-Identifier: Apache-2.0
//! `mapSizes` of the agent's configuration, proven.

use std::collections::BTreeMap;

use weir_abi::map::{self, MapInfo, MapShape};

use crate::{Error, Result};

const MINIMUM: u32 = 16;
const MAXIMUM: u32 = 16_777_216;
/// Bytes of a ring: at least a page, and what one process may map.
const RING: (u32, u32) = (4096, 1 << 30);

/// The size of every map.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct MapSizes(BTreeMap<&'static str, u32>);

impl MapSizes {
    /// The defaults with the given changes.
    pub fn from_config(config: &BTreeMap<String, u32>) -> Result<Self> {
        let mut sizes = BTreeMap::new();
        for (name, &size) in config {
            let Some(map) = map::ALL.iter().find(|map| map.name == name) else {
                return Err(Error::UnknownMap(name.clone()));
            };
            if !map.resizable {
                return Err(Error::FixedMap(map.name));
            }
            let (minimum, maximum) = match map.shape {
                MapShape::RingBuffer => RING,
                MapShape::Hash
                | MapShape::LruHash
                | MapShape::LongestPrefix
                | MapShape::Array
                | MapShape::PerCpuArray => (MINIMUM, MAXIMUM),
            };
            if !(minimum..=maximum).contains(&size) {
                return Err(Error::MapSize {
                    map: map.name,
                    size,
                    minimum,
                    maximum,
                });
            }
            sizes.insert(map.name, size);
        }
        Ok(Self(sizes))
    }

    /// Another default, where the configuration does not name the map.
    #[must_use]
    pub fn or(mut self, map: &MapInfo, size: u32) -> Self {
        self.0.entry(map.name).or_insert(size);
        self
    }

    /// The size of a map.
    pub fn of(&self, map: &MapInfo) -> u32 {
        self.0.get(map.name).copied().unwrap_or(map.default_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, size: u32, expected: &str) {
        let answer = MapSizes::from_config(&BTreeMap::from([(name.to_owned(), size)]));
        let text = answer.map_or_else(|error| error.to_string(), |_| String::new());
        assert!(
            text.starts_with(expected) && text.is_empty() == expected.is_empty(),
            "{text}"
        );
    }

    #[test]
    fn sizes_are_taken_or_refused_with_the_name() {
        check("flows", 1_000_000, "");
        check("events", 65_536, "");
        check(
            "flow",
            1_000_000,
            "mapSizes: there is no map `flow`, only flows, fragments",
        );
        check("nodes", 5, "mapSizes: the size of `nodes` is fixed");
        check("flows", 0, "mapSizes: 0 is no size for `flows`");
    }

    #[test]
    fn what_is_not_named_keeps_its_default() {
        let sizes = MapSizes::from_config(&BTreeMap::from([("flows".to_owned(), 4096)])).unwrap();
        assert_eq!(sizes.of(&map::FLOWS), 4096);
        assert_eq!(sizes.of(&map::IPCACHE), 512_000);
    }
}
