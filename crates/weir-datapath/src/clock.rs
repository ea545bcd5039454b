// SPDX-License-Identifier: Apache-2.0
//! The clock that the programs stamp flows and events with.

use std::time::Duration;

use weir_abi::Seconds;

/// Time since boot without the time spent suspended: `CLOCK_MONOTONIC`, which `bpf_ktime_get_ns` reads too.
pub fn monotonic() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for one timespec. The call cannot fail for this clock (man 2 clock_gettime).
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Now, as flow entries write it.
pub fn now() -> Seconds {
    Seconds(u32::try_from(monotonic().as_secs()).unwrap_or(u32::MAX))
}

/// Now, as events write it.
pub fn nanoseconds() -> u64 {
    u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX)
}
