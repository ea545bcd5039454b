// SPDX-License-Identifier: Apache-2.0
//! What has become of a series: each exchange as it ended, and all of them in one answer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::protocol::{Outcome, ProbeAnswer, Series, Span};

/// What has become of a series so far.
#[derive(Debug)]
pub(super) struct History {
    begin: Instant,
    left: u32,
    until: Option<String>,
    /// When each exchange ended, in milliseconds since the beginning, and how.
    ends: Vec<(u64, ProbeAnswer)>,
}

impl History {
    pub(super) fn new(series: &Series) -> Self {
        Self {
            begin: Instant::now(),
            left: series.count,
            until: series.until.clone(),
            ends: Vec::new(),
        }
    }

    /// Whether there is to be another exchange, which is then counted as begun.
    pub(super) fn begin(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }

    /// How an exchange ended; tells its place.
    pub(super) fn note(&mut self, answer: ProbeAnswer) -> usize {
        self.look_for_the_last(&answer);
        let at_ms = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.ends.push((at_ms, answer));
        self.ends.len() - 1
    }

    /// The exchange of that place was answered after all.
    pub(super) fn amend(&mut self, place: usize, answer: ProbeAnswer, latency: Duration) {
        self.look_for_the_last(&answer);
        if let Some((_, end)) = self.ends.get_mut(place) {
            *end = ProbeAnswer {
                address: end.address.take(),
                latency_us: u64::try_from(latency.as_micros()).unwrap_or(u64::MAX),
                ..answer
            };
        }
    }

    fn look_for_the_last(&mut self, answer: &ProbeAnswer) {
        if self.until.is_some() && self.until == answer.peer {
            self.left = 0;
        }
    }

    pub(super) fn close(&mut self) -> ProbeAnswer {
        let ends = std::mem::take(&mut self.ends);
        let (mut outcomes, mut peers, mut sources) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut timeline: Vec<Span> = Vec::new();
        for (at_ms, end) in &ends {
            *outcomes.entry(end.outcome).or_default() += 1;
            if let Some(peer) = &end.peer {
                *peers.entry(peer.clone()).or_default() += 1;
            }
            let source = end.source_seen.as_deref();
            if let Some((address, _)) = source.and_then(|source| source.rsplit_once(':')) {
                let address = address.trim_matches(['[', ']']).to_owned();
                *sources.entry(address).or_default() += 1;
            }
            match timeline.last_mut() {
                Some(last) if last.outcome == end.outcome && last.peer == end.peer => {
                    last.count += 1;
                }
                _ => timeline.push(Span {
                    at_ms: *at_ms,
                    count: 1,
                    outcome: end.outcome,
                    peer: end.peer.clone(),
                }),
            }
        }
        let slowest = ends.iter().map(|(_, end)| end.latency_us).max();
        // The first failure says more than any later success.
        let failed = ends.iter().position(|(_, end)| !end.allowed);
        let told = failed.unwrap_or(ends.len().saturating_sub(1));
        let answer = ends.into_iter().nth(told).map_or_else(
            || ProbeAnswer::failed(Outcome::Error, "nothing was sent"),
            |(_, end)| end,
        );
        let some = |map: BTreeMap<String, u32>| (!map.is_empty()).then_some(map);
        ProbeAnswer {
            latency_us: slowest.unwrap_or(answer.latency_us),
            outcomes: (!outcomes.is_empty()).then_some(outcomes),
            peers: some(peers),
            sources: some(sources),
            timeline: Some(timeline),
            ..answer
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_counts_and_keeps_the_first_failure() {
        let mut history = History::new(&Series {
            count: 9,
            interval_ms: None,
            keep: false,
            until: Some("c".to_owned()),
        });
        let answered = |peer: &str| ProbeAnswer {
            peer: Some(peer.to_owned()),
            source_seen: Some("[fd00::1]:700".to_owned()),
            ..ProbeAnswer::answered()
        };
        for answer in [
            answered("a"),
            answered("a"),
            ProbeAnswer::failed(Outcome::Refused, "first"),
            ProbeAnswer::failed(Outcome::Timeout, "second"),
            answered("c"),
        ] {
            assert!(history.begin());
            history.note(answer);
        }
        assert!(!history.begin());
        let answer = serde_json::to_value(history.close()).unwrap();
        assert_eq!(answer["error"], "first");
        assert_eq!(answer["peers"], serde_json::json!({"a": 2, "c": 1}));
        assert_eq!(answer["sources"], serde_json::json!({"fd00::1": 3}));
        assert_eq!(
            answer["outcomes"],
            serde_json::json!({"connected": 3, "refused": 1, "timeout": 1})
        );
        assert_eq!(answer["timeline"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn what_is_late_is_not_lost() {
        let mut history = History::new(&Series {
            count: 3,
            interval_ms: Some(1),
            keep: true,
            until: None,
        });
        let lost = ProbeAnswer {
            address: Some("[fd00::1]:80".to_owned()),
            ..ProbeAnswer::failed(Outcome::Error, "timed out")
        };
        history.note(ProbeAnswer::answered());
        let place = history.note(lost);
        history.note(ProbeAnswer::answered());
        history.amend(place, ProbeAnswer::answered(), Duration::from_millis(300));
        let answer = history.close();
        assert!(answer.allowed && answer.error.is_none(), "{answer:?}");
        assert_eq!(answer.latency_us, 300_000);
        assert_eq!(answer.timeline.unwrap_or_default().len(), 1);
    }
}
