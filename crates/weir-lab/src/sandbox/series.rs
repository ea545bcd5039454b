// SPDX-License-Identifier: Apache-2.0
//! Many exchanges in one probe, and the history that they make.

mod history;

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::{
    exchange::{Connection, Datagrams, Reply},
    probe::{SIZE, answered, judge, once},
};
use crate::protocol::{Exchange, Path, ProbeAnswer, Protocol, Series};
use history::History;

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
    let mut awaited = Awaited::default();
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
        let lost = !answer.allowed;
        let end = history.borrow_mut().note(answer);
        match &mut kept {
            Some(socket) => {
                if lost {
                    awaited.0.push((socket.number(), end, started));
                }
                awaited.settle(path, socket, &mut history.borrow_mut());
            }
            // Its numbers begin anew.
            None => awaited.0.clear(),
        }
        pause(started, interval).await;
    }
    let deadline = Instant::now() + LAST_WAIT;
    while let Some(socket) = kept.as_mut().filter(|_| !awaited.0.is_empty()) {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(Ok(())) = timeout(left, socket.receive_late(size)).await else {
            return;
        };
        awaited.settle(path, socket, &mut history.borrow_mut());
    }
}

/// What was lost at the end may still be on its way for so long.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// Datagrams that had no answer when the next one was due, with their place in the history: on a busy machine an answer may
/// be late, and is not lost then.
#[derive(Default)]
struct Awaited(Vec<(u64, usize, Instant)>);

impl Awaited {
    /// Answers that came late, but in the time that a probe has, count.
    fn settle(&mut self, path: &Path, socket: &mut Datagrams, history: &mut History) {
        let limit = Duration::from_millis(path.timeout_ms);
        for (number, reply) in socket.take_late() {
            let of_number = |(awaited, ..): &(u64, usize, Instant)| *awaited == number;
            let Some(place) = self.0.iter().position(of_number) else {
                continue;
            };
            let (_, end, sent) = self.0.swap_remove(place);
            if sent.elapsed() < limit {
                history.amend(end, answered(reply), sent.elapsed());
            }
        }
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
