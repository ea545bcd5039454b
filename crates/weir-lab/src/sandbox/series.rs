// SPDX-License-Identifier: Apache-2.0
//! Many exchanges in one probe, and the history that they make.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::{
    exchange::{Connection, Datagrams, Reply},
    probe::{SIZE, judge, once},
};
use crate::protocol::{Exchange, Outcome, Path, ProbeAnswer, Protocol, Series, Span};

/// Runs a series.
pub(crate) async fn run(path: Path, exchange: &Exchange, series: &Series) -> ProbeAnswer {
    let history = Rc::new(RefCell::new(History::new(series)));
    let interval = series.interval_ms.map(Duration::from_millis);
    match (series.keep, exchange.protocol) {
        (true, Protocol::Udp) => {
            keep_datagrams(&path, exchange, interval, &history).await;
        }
        (true, Protocol::Tcp | Protocol::Sctp) => {
            keep_connection(&path, exchange, interval, &history).await;
        }
        (true, Protocol::Icmp) | (false, _) => {
            let workers = series.workers(path.source_port.is_some());
            let workers = (0..workers).map(|_| {
                let (history, exchange) = (Rc::clone(&history), exchange.clone());
                tokio::task::spawn_local(async move {
                    while history.borrow_mut().begin() {
                        let started = Instant::now();
                        let answer = once(path, &exchange).await;
                        history.borrow_mut().note(answer);
                        pause(started, interval).await;
                    }
                })
            });
            for worker in workers.collect::<Vec<_>>() {
                // A worker that panics leaves a history that is too short.
                let _ = worker.await;
            }
        }
    }
    history.borrow_mut().close()
}

/// Sleeps for what is left of an interval.
async fn pause(started: Instant, interval: Option<Duration>) {
    if let Some(interval) = interval {
        sleep(interval.saturating_sub(started.elapsed())).await;
    }
}

/// One connection; its end is the end of the series.
async fn keep_connection(
    path: &Path,
    exchange: &Exchange,
    interval: Option<Duration>,
    history: &RefCell<History>,
) {
    let mut connection = None;
    while history.borrow_mut().begin() {
        let started = Instant::now();
        let answer = judge(path, exchange.protocol, async {
            let open = match connection.take() {
                Some(open) => open,
                None => Connection::open(path, exchange.protocol).await?,
            };
            let reply = connection.insert(open).ask(exchange.size.unwrap_or(SIZE));
            reply.await
        })
        .await;
        let lives = answer.allowed;
        history.borrow_mut().note(answer);
        if !lives {
            return;
        }
        pause(started, interval).await;
    }
}

/// One socket that sends a datagram in every interval, answered or not. When the kernel takes the socket away, the
/// next datagram leaves from a new one with the same port, as a client would do it.
async fn keep_datagrams(
    path: &Path,
    exchange: &Exchange,
    interval: Option<Duration>,
    history: &RefCell<History>,
) {
    let mut kept: Option<Datagrams> = None;
    let size = exchange.size.unwrap_or(SIZE);
    while history.borrow_mut().begin() {
        let started = Instant::now();
        let answer = judge(path, exchange.protocol, async {
            let socket = match kept.take() {
                Some(socket) => socket,
                None => Datagrams::open(path, !exchange.unconnected)?,
            };
            let reply = talk(kept.insert(socket), size, interval).await;
            if let Err(error) = &reply
                && matches!(
                    error.raw_os_error(),
                    Some(libc::ECONNABORTED | libc::ENOTCONN | libc::EDESTADDRREQ)
                )
            {
                kept = None;
            }
            reply
        })
        .await;
        history.borrow_mut().note(answer);
        pause(started, interval).await;
    }
}

async fn talk(socket: &mut Datagrams, size: u32, interval: Option<Duration>) -> io::Result<Reply> {
    socket.send(size).await?;
    match interval {
        None => socket.receive(size).await,
        Some(interval) => timeout(interval, socket.receive(size))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
    }
}

/// What has become of a series so far.
#[derive(Debug)]
struct History {
    begin: Instant,
    left: u32,
    until: Option<String>,
    timeline: Vec<Span>,
    answer: Option<ProbeAnswer>,
    slowest: u64,
    sum: ProbeAnswer,
}

impl History {
    fn new(series: &Series) -> Self {
        Self {
            begin: Instant::now(),
            left: series.count,
            until: series.until.clone(),
            timeline: Vec::new(),
            answer: None,
            slowest: 0,
            sum: ProbeAnswer::answered(),
        }
    }

    /// Whether there is to be another exchange, which is then counted as begun.
    fn begin(&mut self) -> bool {
        let more = self.left > 0;
        self.left = self.left.saturating_sub(1);
        more
    }

    fn note(&mut self, answer: ProbeAnswer) {
        let count = |map: &mut Option<std::collections::BTreeMap<String, u32>>, key: &str| {
            *map.get_or_insert_default()
                .entry(key.to_owned())
                .or_default() += 1;
        };
        let outcomes = self.sum.outcomes.get_or_insert_default();
        *outcomes.entry(answer.outcome).or_default() += 1;
        if let Some(peer) = &answer.peer {
            count(&mut self.sum.peers, peer);
        }
        if let Some((address, _)) = answer
            .source_seen
            .as_deref()
            .and_then(|s| s.rsplit_once(':'))
        {
            count(&mut self.sum.sources, address.trim_matches(['[', ']']));
        }
        match self.timeline.last_mut() {
            Some(last) if last.outcome == answer.outcome && last.peer == answer.peer => {
                last.count += 1;
            }
            _ => self.timeline.push(Span {
                at_ms: u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX),
                count: 1,
                outcome: answer.outcome,
                peer: answer.peer.clone(),
            }),
        }
        if self.until.is_some() && self.until == answer.peer {
            self.left = 0;
        }
        self.slowest = self.slowest.max(answer.latency_us);
        // The first failure says more than any later success.
        if self.answer.as_ref().is_none_or(|kept| kept.allowed) {
            self.answer = Some(answer);
        }
    }

    fn close(&mut self) -> ProbeAnswer {
        let answer = self.answer.take();
        let answer =
            answer.unwrap_or_else(|| ProbeAnswer::failed(Outcome::Error, "nothing was sent"));
        ProbeAnswer {
            latency_us: self.slowest,
            outcomes: self.sum.outcomes.take(),
            peers: self.sum.peers.take(),
            sources: self.sum.sources.take(),
            timeline: Some(std::mem::take(&mut self.timeline)),
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
}
