// SPDX-License-Identifier: Apache-2.0
//! Large transfers, and many small flows kept up for a while.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};

use super::{bulk, connect::connect, socket};
use crate::protocol::{Flows, Path, Protocol, Transfer};

/// How long a TCP flow may stand still before it counts as broken.
const TCP_PATIENCE: Duration = Duration::from_secs(15);
/// How long the answer to a datagram is waited for before the next one is sent.
const UDP_PATIENCE: Duration = Duration::from_secs(1);
/// What is missing at the end may still be on its way for so long: a busy machine lets processes wait, and what is late then
/// is not lost.
const UDP_LATENESS: Duration = Duration::from_secs(10);

/// Moves bytes over one connection, both ways at once; fails when a checksum differs.
pub(crate) async fn transfer(path: Path, transfer: Transfer) -> Result<Value> {
    let begin = Instant::now();
    let limit = Duration::from_millis(path.timeout_ms);
    let Transfer { send, receive } = transfer;
    timeout(limit, move_bytes(&path, transfer))
        .await
        .context("the transfer takes too long")??;
    let seconds = begin.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = (send + receive) as f64 * 8.0 / seconds / 1e6;
    Ok(json!({
        "sent": send,
        "received": receive,
        "checksums": "equal",
        "seconds": seconds,
        "megabits_per_second": rate,
    }))
}

async fn move_bytes(path: &Path, Transfer { send, receive }: Transfer) -> Result<()> {
    let stream = connect(path, Protocol::Tcp).await?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::with_capacity(64 * 1024, read);
    let seed = send.rotate_left(17) ^ receive ^ 0x9e37_79b9_7f4a_7c15;
    write
        .write_all(format!("weir-transfer {send} {receive} {seed}\n").as_bytes())
        .await?;
    let (sent, received) = tokio::try_join!(
        bulk::send(&mut write, send, seed),
        bulk::receive(&mut read, receive)
    )?;
    let mut line = String::new();
    read.read_line(&mut line).await?;
    let other: Value = serde_json::from_str(&line).context("the other side gave no checksums")?;
    ensure!(
        other["received"] == sent,
        "bytes changed on the way to the destination"
    );
    ensure!(
        other["sent"] == received,
        "bytes changed on the way from the destination"
    );
    Ok(())
}

/// What became of the flows of one protocol.
#[derive(Debug, Default, Serialize)]
struct Count {
    flows: u32,
    /// Flows that could not be set up or did not live to the end.
    broken: u32,
    requests: u64,
    /// Requests without an answer.
    lost: u64,
    /// The longest time between a request and its answer.
    longest_wait_ms: u64,
    errors: Vec<String>,
}

impl Count {
    fn answered(&mut self, since: Instant) {
        let waited = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.longest_wait_ms = self.longest_wait_ms.max(waited);
    }

    fn broke(&mut self, error: &io::Error) {
        self.broken += 1;
        if self.errors.len() < 10 {
            self.errors.push(error.to_string());
        }
    }
}

/// Keeps flows of requests and answers running and counts.
pub(crate) async fn traffic(path: Path, flows: Flows) -> Result<Value> {
    let deadline = Instant::now() + Duration::from_millis(flows.duration_ms);
    let tcp = Rc::new(RefCell::new(Count {
        flows: flows.tcp,
        ..Count::default()
    }));
    let udp = Rc::new(RefCell::new(Count {
        flows: flows.udp,
        ..Count::default()
    }));
    let mut tasks = Vec::new();
    for _ in 0..flows.tcp {
        let count = Rc::clone(&tcp);
        tasks.push(tokio::task::spawn_local(async move {
            if let Err(error) = tcp_flow(path, flows, deadline, &count).await {
                count.borrow_mut().broke(&error);
            }
        }));
    }
    for _ in 0..flows.udp {
        let count = Rc::clone(&udp);
        tasks.push(tokio::task::spawn_local(async move {
            if let Err(error) = udp_flow(path, flows, deadline, &count).await {
                count.borrow_mut().broke(&error);
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    Ok(json!({"tcp": &*tcp.borrow(), "udp": &*udp.borrow()}))
}

async fn tcp_flow(
    path: Path,
    flows: Flows,
    deadline: Instant,
    count: &RefCell<Count>,
) -> io::Result<()> {
    let stream = within(TCP_PATIENCE, connect(&path, Protocol::Tcp)).await?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut request = vec![b'x'; usize::try_from(flows.size).unwrap_or(64).max(2)];
    let mut answer = request.clone();
    if let Some(last) = request.last_mut() {
        *last = b'\n';
    }
    let mut first = true;
    while Instant::now() < deadline {
        let begin = Instant::now();
        count.borrow_mut().requests += 1;
        within(TCP_PATIENCE, async {
            write.write_all(&request).await?;
            if std::mem::take(&mut first) {
                read.read_line(&mut String::new()).await?;
            }
            read.read_exact(&mut answer).await.map(|_| ())
        })
        .await
        .inspect_err(|_| count.borrow_mut().lost += 1)?;
        count.borrow_mut().answered(begin);
        tokio::time::sleep(Duration::from_micros(flows.pause_us)).await;
    }
    Ok(())
}

async fn udp_flow(
    path: Path,
    flows: Flows,
    deadline: Instant,
    count: &RefCell<Count>,
) -> io::Result<()> {
    let socket = socket::datagram(socket::open_client(Protocol::Udp, &path)?)?;
    let size = usize::try_from(flows.size).unwrap_or(64).max(NUMBER);
    let mut waiting = Waiting {
        size,
        since: BTreeMap::new(),
    };
    let mut buffer = vec![0; 65536];
    let mut number = 0_u64;
    while Instant::now() < deadline {
        number += 1;
        let mut request = format!("{number:0NUMBER$}").into_bytes();
        request.resize(size, b'x');
        count.borrow_mut().requests += 1;
        waiting.since.insert(number, Instant::now());
        let exchange = within(UDP_PATIENCE, async {
            socket.send(&request).await?;
            while waiting.since.contains_key(&number) {
                let length = socket.recv(&mut buffer).await?;
                waiting.hear(buffer.get(..length).unwrap_or_default(), count);
            }
            Ok(())
        });
        // What went wrong is told by what stays without an answer.
        exchange.await.ok();
        tokio::time::sleep(Duration::from_micros(flows.pause_us)).await;
    }
    let end = Instant::now() + UDP_LATENESS;
    while !waiting.since.is_empty() && Instant::now() < end {
        let heard = within(end - Instant::now(), socket.recv(&mut buffer)).await;
        if let Ok(length) = heard {
            waiting.hear(buffer.get(..length).unwrap_or_default(), count);
        }
    }
    let lost = u64::try_from(waiting.since.len()).unwrap_or(u64::MAX);
    count.borrow_mut().lost += lost;
    if lost == number {
        Err(io::Error::other("no answer at all"))
    } else {
        Ok(())
    }
}

/// Digits at the beginning of a datagram.
const NUMBER: usize = 20;

/// Requests of a flow that have no answer yet, and since when.
#[derive(Debug)]
struct Waiting {
    /// Of a request, which is the end of its answer.
    size: usize,
    since: BTreeMap<u64, Instant>,
}

impl Waiting {
    /// Notes an answer, also one to a request of before.
    fn hear(&mut self, answer: &[u8], count: &RefCell<Count>) {
        let number = answer
            .len()
            .checked_sub(self.size)
            .and_then(|begin| answer.get(begin..begin + NUMBER))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok());
        if let Some(since) = number.and_then(|number: u64| self.since.remove(&number)) {
            count.borrow_mut().answered(since);
        }
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_known_by_number_and_may_be_late() {
        let count = RefCell::new(Count::default());
        let now = Instant::now();
        let mut waiting = Waiting {
            size: 24,
            since: BTreeMap::from([(7, now), (8, now)]),
        };
        let answer = |number: u64| format!("shop/web-2 {number:0NUMBER$}xxxx");
        waiting.hear(answer(8).as_bytes(), &count);
        waiting.hear(answer(9).as_bytes(), &count);
        waiting.hear(b"short", &count);
        waiting.hear(b"", &count);
        assert!(waiting.since.keys().eq([&7]));
        waiting.hear(answer(7).as_bytes(), &count);
        assert!(waiting.since.is_empty());
    }
}
