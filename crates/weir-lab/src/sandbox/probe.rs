// SPDX-License-Identifier: Apache-2.0
//! One exchange with a server, or a series of them, and how they ended.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::Result;
use tokio::time::timeout;

use super::{
    exchange::{self, Connection, Datagrams, RESEND, Reply, payload},
    icmp, sctp, series, socket,
};
use crate::protocol::{Exchange, Outcome, Path, ProbeAnswer, Protocol};

/// Bytes of a request that asks for no certain number.
pub(crate) const SIZE: u32 = 16;
const PING_SIZE: u32 = 56;

/// Sends what a protocol needs for an answer and judges what comes back.
pub(crate) async fn probe(path: Path, exchange: Exchange) -> ProbeAnswer {
    match &exchange.series {
        None => once(path, &exchange).await,
        Some(series) => series::run(path, &exchange, series).await,
    }
}

/// One exchange.
pub(crate) async fn once(path: Path, exchange: &Exchange) -> ProbeAnswer {
    judge(&path, exchange.protocol, ask(&path, exchange)).await
}

/// Gives an exchange its time, and puts what came of it into words.
pub(crate) async fn judge(
    path: &Path,
    protocol: Protocol,
    exchange: impl Future<Output = io::Result<Reply>>,
) -> ProbeAnswer {
    let begin = Instant::now();
    let limit = Duration::from_millis(path.timeout_ms);
    let mut answer = match timeout(limit, exchange).await {
        Err(_) => ProbeAnswer::failed(Outcome::Timeout, format!("no answer within {limit:?}")),
        Ok(Err(error)) => ProbeAnswer::failed(socket::outcome_of(&error), error.to_string()),
        Ok(Ok(reply)) => answered(reply),
    };
    answer.latency_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
    answer.address = Some(match protocol {
        Protocol::Icmp => path.destination.ip().to_string(),
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => path.destination.to_string(),
    });
    answer
}

/// An answer in words.
pub(crate) fn answered(reply: Reply) -> ProbeAnswer {
    let greeting = reply.greeting;
    let (peer, source) = greeting.map(|one| (one.name, one.source)).unzip();
    ProbeAnswer {
        peer,
        source_seen: source,
        remote: reply.remote.map(|remote| remote.to_string()),
        status: reply.status,
        body: reply.body,
        ..ProbeAnswer::answered()
    }
}

async fn ask(path: &Path, exchange: &Exchange) -> io::Result<Reply> {
    if let Some(page) = &exchange.http {
        return exchange::fetch(path, page, &path.destination.ip().to_string()).await;
    }
    let size = exchange.size.unwrap_or(SIZE);
    match exchange.protocol {
        Protocol::Sctp if !sctp::is_in_kernel() => sctp::ask(path).await,
        Protocol::Tcp | Protocol::Sctp => {
            let mut connection = Connection::open(path, exchange.protocol).await?;
            connection.ask(size).await
        }
        Protocol::Udp => {
            let connected = !exchange.unconnected;
            Datagrams::open(path, connected)?.ask(size).await
        }
        Protocol::Icmp => {
            let payload = payload(exchange.size.unwrap_or(PING_SIZE));
            // A lost request is repeated like any other datagram.
            loop {
                if let Ok(result) = timeout(RESEND, icmp::ping(path, &payload)).await {
                    return result.map(|()| Reply::default());
                }
            }
        }
    }
}

/// Makes a TCP connection and lets it go.
pub(crate) async fn connect(path: &Path) -> io::Result<()> {
    Connection::open(path, Protocol::Tcp).await.map(drop)
}

/// Asks an HTTP server for a page and returns the status, which has to be a good one.
pub(crate) async fn fetch(path: Path, page: &str, host: &str) -> Result<u16> {
    let status = exchange::fetch(&path, page, host).await?.status;
    let status = status.unwrap_or_default();
    anyhow::ensure!((200..400).contains(&status), "HTTP status {status}");
    Ok(status)
}
