// SPDX-License-Identifier: Apache-2.0
//! From the clock of the kernel's records to the time of day.

use jiff::Timestamp;

/// How far the time of day is ahead of the kernel's monotonic clock.
///
/// The time of day is set now and then, so make a new one from time to time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootClock {
    offset: i128,
}

impl BootClock {
    /// From a reading of both clocks (`CLOCK_REALTIME`, `CLOCK_MONOTONIC`) at the same moment.
    pub const fn new(realtime_nanoseconds: i128, monotonic_nanoseconds: u64) -> Self {
        Self {
            offset: realtime_nanoseconds - monotonic_nanoseconds as i128,
        }
    }

    /// The time of day of a record, RFC 3339 with nanoseconds.
    pub fn rfc3339(&self, monotonic_nanoseconds: u64) -> String {
        rfc3339(self.offset.saturating_add(monotonic_nanoseconds.into()))
    }
}

/// Nanoseconds since 1970 as RFC 3339 with nanoseconds, in UTC; what lies outside of the years that
/// RFC 3339 can say becomes the last moment that it can.
pub fn rfc3339(unix_nanoseconds: i128) -> String {
    let time = Timestamp::from_nanosecond(unix_nanoseconds).unwrap_or(Timestamp::MAX);
    format!("{time:.9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_get_the_time_of_day() {
        let clock = BootClock::new(1_772_359_200_000_000_000, 5_000_000_000);
        assert_eq!(
            clock.rfc3339(6_000_000_042),
            "2026-03-01T10:00:01.000000042Z"
        );
    }

    #[test]
    fn no_number_is_too_large() {
        for nanoseconds in [i128::MIN, -1, 0, i128::MAX] {
            assert!(rfc3339(nanoseconds).ends_with('Z'));
        }
        assert!(
            BootClock::new(i128::MAX, 0)
                .rfc3339(u64::MAX)
                .ends_with('Z')
        );
    }
}
