// SPDX-License-Identifier: Apache-2.0
//! Not every attempt is worth a line: denials of the same connection are gathered, and a second has room for so many
//! lines. Time is an argument.

use std::collections::{HashMap, VecDeque};

use super::entry::{Connection, Disposition, Entry};
use super::limits::Limits;

const SECOND: u64 = 1_000_000_000;

/// Why a record is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dropped {
    /// More different denials within a few seconds than are remembered.
    Aggregation,
    /// More lines within a second than are written.
    RateLimit,
    /// The file is slower than that.
    Queue,
}

impl Dropped {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Aggregation, Self::RateLimit, Self::Queue];

    /// As metrics say it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Aggregation => "aggregation",
            Self::RateLimit => "rate_limit",
            Self::Queue => "queue",
        }
    }
}

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// To be written now.
    Write(Box<Entry>),
    /// Counted for the line that comes later.
    Gathered,
    Dropped(Dropped),
}

/// The denials of the last few seconds, and how many lines this second has had.
#[derive(Debug)]
pub(crate) struct Gather {
    limits: Limits,
    denials: HashMap<Connection, Entry>,
    /// Which of them began when; the oldest first.
    began: VecDeque<(u64, Connection)>,
    second: u64,
    written: u32,
}

impl Gather {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            denials: HashMap::new(),
            began: VecDeque::new(),
            second: 0,
            written: 0,
        }
    }

    /// Takes a record in.
    pub(crate) fn take(&mut self, entry: Entry, now: u64) -> Fate {
        let gathers = self.limits.deny_aggregation_seconds > 0;
        if entry.disposition == Disposition::Allow || !gathers {
            return self.admit(entry, now);
        }
        let key = Connection {
            // Every new attempt has another one.
            src_port: None,
            ..entry.connection.clone()
        };
        if let Some(known) = self.denials.get_mut(&key) {
            known.count += entry.count;
        } else if self.denials.len() >= self.limits.deny_aggregation_map_size {
            return Fate::Dropped(Dropped::Aggregation);
        } else {
            self.began.push_back((entry.seen, key.clone()));
            self.denials.insert(key, entry);
        }
        Fate::Gathered
    }

    /// The denials whose time is over.
    pub(crate) fn due(&mut self, now: u64) -> Vec<Fate> {
        let wait = u64::from(self.limits.deny_aggregation_seconds) * SECOND;
        let mut due = Vec::new();
        while let Some((_, key)) = self
            .began
            .pop_front_if(|(began, _)| now.saturating_sub(*began) >= wait)
        {
            if let Some(entry) = self.denials.remove(&key) {
                due.push(self.admit(entry, now));
            }
        }
        due
    }

    /// All denials, before their time.
    pub(crate) fn rest(&mut self, now: u64) -> Vec<Fate> {
        let began = std::mem::take(&mut self.began);
        let mut rest = Vec::new();
        for (_, key) in began {
            if let Some(entry) = self.denials.remove(&key) {
                rest.push(self.admit(entry, now));
            }
        }
        rest
    }

    /// What a second does not use up is not kept for the next one.
    fn admit(&mut self, entry: Entry, now: u64) -> Fate {
        let second = now / SECOND;
        if second != self.second {
            self.second = second;
            self.written = 0;
        }
        if self.written >= self.limits.max_log_rate {
            return Fate::Dropped(Dropped::RateLimit);
        }
        self.written += 1;
        Fate::Write(Box::new(entry))
    }
}

#[cfg(test)]
mod tests;
