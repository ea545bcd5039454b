// SPDX-License-Identifier: Apache-2.0
//! How long an endpoint's addresses have to be announced.

use std::time::{Duration, Instant};

/// So long after this agent has read a pod's address in its status, every other one has read it too.
const READ_EVERYWHERE: Duration = Duration::from_mins(1);

/// Whether an endpoint's addresses have to be announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Announced {
    /// Nobody else says them.
    #[default]
    Needed,
    /// The pod's status says them, too, since then.
    Confirmed(Instant),
    /// The pod's status says them for long enough.
    Over,
}

impl Announced {
    /// What follows: whether the pod's status says the addresses, and whether this agent has announced them.
    pub(crate) fn next(self, confirmed: bool, said: bool, now: Instant) -> Self {
        if !confirmed {
            return Self::Needed;
        }
        match self {
            // After a restart: whoever was to be told has been told by the agent before this one.
            Self::Needed if !said => Self::Over,
            Self::Needed => Self::Confirmed(now),
            Self::Confirmed(since) if now.saturating_duration_since(since) < READ_EVERYWHERE => {
                self
            }
            Self::Confirmed(_) | Self::Over => Self::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_ends_after_its_confirmation() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let new = Announced::default();
        assert_eq!(new.next(false, true, at(1)), Announced::Needed);
        let confirmed = new.next(true, true, at(2));
        assert_eq!(confirmed, Announced::Confirmed(at(2)));
        assert_eq!(confirmed.next(true, true, at(61)), confirmed);
        assert_eq!(confirmed.next(false, true, at(61)), Announced::Needed);
        let over = confirmed.next(true, true, at(62));
        assert_eq!(over, Announced::Over);
        assert_eq!(over.next(true, false, at(63)), Announced::Over);
        // A status that names something else again: a new sandbox of the same pod.
        assert_eq!(over.next(false, false, at(63)), Announced::Needed);
        // Restored, and known by everybody.
        assert_eq!(new.next(true, false, at(1)), Announced::Over);
    }
}
