// SPDX-License-Identifier: Apache-2.0
//! Numbers that the kernel answered, in words.

/// What `bpf_fib_lookup` answered (`enum` of `BPF_FIB_LKUP_RET_*`, include/uapi/linux/bpf.h).
pub const fn fib_name(code: i32) -> Option<&'static str> {
    match code {
        1 => Some("blackhole"),
        2 => Some("unreachable"),
        3 => Some("prohibited"),
        4 => Some("not forwarded"),
        5 => Some("forwarding disabled"),
        6 => Some("light-weight tunnel not supported"),
        7 => Some("no neighbour"),
        8 => Some("fragmentation needed"),
        9 => Some("no source address"),
        _ => None,
    }
}

/// The name of an errno that map and packet helpers return.
pub const fn errno_name(number: i32) -> Option<&'static str> {
    match number {
        -1 => Some("EPERM"),
        -2 => Some("ENOENT"),
        -7 => Some("E2BIG"),
        -12 => Some("ENOMEM"),
        -14 => Some("EFAULT"),
        -16 => Some("EBUSY"),
        -17 => Some("EEXIST"),
        -22 => Some("EINVAL"),
        -28 => Some("ENOSPC"),
        -95 => Some("EOPNOTSUPP"),
        -105 => Some("ENOBUFS"),
        _ => None,
    }
}

pub(super) fn fib(code: i32) -> String {
    fib_name(code).map_or_else(String::new, |name| format!(" ({name})"))
}

pub(super) fn errno(number: i32) -> Option<String> {
    if number >= 0 {
        return None;
    }
    Some(errno_name(number).map_or_else(|| format!("errno {number}"), str::to_owned))
}

pub(super) fn insertion(number: i32) -> Option<&'static str> {
    match number {
        -16 => Some("another CPU held the same bucket (EBUSY), which passes by itself"),
        -12 => Some("the kernel is out of memory (ENOMEM): free memory on the node"),
        -7 => Some(
            "it is full (E2BIG): see `weir status --verbose` for its pressure, raise mapSizes.flows",
        ),
        _ => None,
    }
}
