// SPDX-License-Identifier: Apache-2.0
//! What makes two maps interchangeable: type, key, value, flags and the size that the kernel makes of a wish.

use weir_abi::map::{MapInfo, MapShape};

use crate::sys::map;

/// `BPF_F_NO_COMMON_LRU`: a free list for each CPU.
const PER_CPU_LRU: u32 = 1 << 1;

/// The form of a map, wanted or found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// A number of `enum bpf_map_type`.
    pub kind: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Rows, or bytes of a ring.
    pub size: u32,
    /// Creation flags.
    pub flags: u32,
}

impl Shape {
    /// The number of a map type in `enum bpf_map_type`.
    pub(crate) const fn kind_of(shape: MapShape) -> u32 {
        match shape {
            MapShape::Hash => 1,
            MapShape::Array => 2,
            MapShape::PerCpuArray => 6,
            MapShape::LruHash => 9,
            MapShape::LongestPrefix => 11,
            MapShape::RingBuffer => 27,
        }
    }

    /// What the object asks for, with another size, as the kernel will report it.
    pub(crate) fn wanted(map: &MapInfo, object: &aya_obj::Map, size: u32, cpus: u32) -> Self {
        Self {
            kind: object.map_type(),
            key_size: object.key_size(),
            value_size: if map.shape == MapShape::RingBuffer {
                0
            } else {
                object.value_size()
            },
            size: settled_size(map.shape, object.map_flags(), size, cpus),
            flags: object.map_flags(),
        }
    }

    pub(crate) const fn found(info: &map::MapInfo) -> Self {
        Self {
            kind: info.kind,
            key_size: info.key_size,
            value_size: info.value_size,
            size: info.max_entries,
            flags: info.flags,
        }
    }

    /// Whether rows can be copied from one to the other as they are.
    pub(crate) const fn same_rows(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.key_size == other.key_size
            && self.value_size == other.value_size
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            key_size,
            value_size,
            size,
            flags,
        } = self;
        write!(
            f,
            "type {kind}, keys of {key_size} and values of {value_size} bytes, size {size}, flags {flags:#x}"
        )
    }
}

/// The size that the kernel (or the loader, for rings) makes of a wish. Compare after this, or a map is replaced at
/// every start: an LRU table with free lists for each CPU gets the next multiple of the number of possible CPUs
/// (`htab_map_alloc`), a ring the next power of two of pages.
fn settled_size(shape: MapShape, flags: u32, size: u32, cpus: u32) -> u32 {
    match shape {
        MapShape::LruHash if flags & PER_CPU_LRU != 0 => size
            .checked_next_multiple_of(cpus.max(1))
            .unwrap_or(size - size % cpus.max(1)),
        MapShape::RingBuffer => {
            let page = u32::try_from(page_size()).unwrap_or(4096);
            page.saturating_mul(size.div_ceil(page).next_power_of_two())
        }
        MapShape::Hash
        | MapShape::LruHash
        | MapShape::LongestPrefix
        | MapShape::Array
        | MapShape::PerCpuArray => size,
    }
}

fn page_size() -> usize {
    // SAFETY: sysconf reads a number and touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_settle_as_the_kernel_settles_them() {
        for (shape, flags, size, settled) in [
            (MapShape::LruHash, PER_CPU_LRU, 1000, 1002),
            (MapShape::LruHash, PER_CPU_LRU, 1002, 1002),
            (MapShape::LruHash, PER_CPU_LRU, u32::MAX - 1, u32::MAX - 3),
            (MapShape::LruHash, 0, 1000, 1000),
            (MapShape::Hash, PER_CPU_LRU, 1000, 1000),
            (MapShape::RingBuffer, 0, 1 << 20, 1 << 20),
            (MapShape::RingBuffer, 0, (1 << 20) + 1, 1 << 21),
        ] {
            assert_eq!(
                settled_size(shape, flags, size, 6),
                settled,
                "{shape:?} {flags} {size}"
            );
        }
    }
}
