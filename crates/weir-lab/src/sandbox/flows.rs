// SPDX-License-Identifier: Apache-2.0
//! Large transfers, and many small flows kept up for a while.

use std::{
    cell::RefCell,
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

use super::{bulk, socket};
use crate::protocol::{Flows, Path, Protocol, Transfer};

/// How long a TCP flow may stand still before it counts as broken.
const TCP_PATIENCE: Duration = Duration::from_secs(15);
/// How long a datagram may take before it counts as lost.
const UDP_PATIENCE: Duration = Duration::from_secs(1);

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
    let stream = socket::connected(socket::open_client(Protocol::Tcp, path)?).await?;
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
    let connect = async { socket::connected(socket::open_client(Protocol::Tcp, &path)?).await };
    let stream = within(TCP_PATIENCE, connect).await?;
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
    let mut buffer = vec![0; 65536];
    let mut number = 0_u64;
    let mut answered = 0_u64;
    while Instant::now() < deadline {
        let begin = Instant::now();
        number += 1;
        let mut request = format!("{number:020}").into_bytes();
        request.resize(usize::try_from(flows.size).unwrap_or(64).max(20), b'x');
        count.borrow_mut().requests += 1;
        let exchange = within(UDP_PATIENCE, async {
            socket.send(&request).await?;
            // Answers to requests that were given up may still come in.
            loop {
                let length = socket.recv(&mut buffer).await?;
                if buffer.get(..length).unwrap_or_default().ends_with(&request) {
                    return Ok(());
                }
            }
        });
        if exchange.await.is_ok() {
            answered += 1;
            count.borrow_mut().answered(begin);
        } else {
            count.borrow_mut().lost += 1;
        }
        tokio::time::sleep(Duration::from_micros(flows.pause_us)).await;
    }
    if answered == 0 {
        Err(io::Error::other("no answer at all"))
    } else {
        Ok(())
    }
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, work)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
