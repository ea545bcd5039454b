// SPDX-License-Identifier: Apache-2.0
//! How long to wait until the next collection: often where much expires, rarely where little does.

use std::time::Duration;

/// From the start to the first run.
pub const FIRST: Duration = Duration::from_mins(5);
/// Never more often than this.
pub const MINIMUM: Duration = Duration::from_secs(10);
/// Never more rarely than this.
pub const MAXIMUM: Duration = Duration::from_hours(12);

/// A share of deleted entries above this shortens the interval.
const HIGH: f64 = 0.25;
/// A share below this lengthens it.
const LOW: f64 = 0.05;
/// The interval is never cut by more than this at once.
const DEEPEST_CUT: f64 = 0.9;
const GROWTH: f64 = 1.5;

/// The next interval after a run that came `elapsed` after the one before and deleted `share` of the entries (0 to
/// 1).
///
/// A run that came early has had less time for entries to expire, so its share counts for more. A run that deleted
/// nothing says nothing: the table may be empty.
pub fn next_interval(interval: Duration, elapsed: Duration, share: f64) -> Duration {
    let early = interval.as_secs_f64() / elapsed.as_secs_f64().max(1.0);
    let share = (share * early.max(1.0)).clamp(0.0, 1.0);
    let factor = if share <= 0.0 {
        1.0
    } else if share > HIGH {
        1.0 - share.min(DEEPEST_CUT)
    } else if share < LOW {
        GROWTH
    } else {
        1.0
    };
    interval.mul_f64(factor).clamp(MINIMUM, MAXIMUM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(interval: u64, elapsed: u64, share: f64, expected: f64) {
        let seconds = Duration::from_secs;
        let next = next_interval(seconds(interval), seconds(elapsed), share).as_secs_f64();
        assert!((next - expected).abs() < 0.001, "{next} {expected}");
    }

    #[test]
    fn the_interval_follows_the_share() {
        check(300, 300, 0.0, 300.0);
        check(300, 300, 0.01, 450.0);
        check(300, 300, 0.1, 300.0);
        check(300, 300, 0.5, 150.0);
        check(300, 300, 1.0, 30.0);
        check(30, 30, 1.0, 10.0);
        check(12 * 3600, 12 * 3600, 0.01, 43_200.0);
    }

    #[test]
    fn the_share_of_an_early_run_counts_for_more() {
        check(300, 60, 0.1, 150.0);
        check(300, 600, 0.1, 300.0);
    }

    proptest! {
        #[test]
        fn the_interval_stays_in_bounds_and_falls_with_the_share(
            interval in 10u64..43_200, elapsed in 0u64..100_000,
            low in 0.001f64..=1.0, high in 0.001f64..=1.0,
        ) {
            let (interval, elapsed) = (Duration::from_secs(interval), Duration::from_secs(elapsed));
            let (low, high) = (low.min(high), low.max(high));
            let after_little = next_interval(interval, elapsed, low);
            let after_much = next_interval(interval, elapsed, high);
            prop_assert!(after_much <= after_little);
            for next in [after_little, after_much] {
                prop_assert!((MINIMUM..=MAXIMUM).contains(&next));
                prop_assert!(next >= interval.mul_f64(0.099).max(MINIMUM));
                prop_assert!(next <= interval.mul_f64(GROWTH).max(MINIMUM));
            }
        }
    }
}
