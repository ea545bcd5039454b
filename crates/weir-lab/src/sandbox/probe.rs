// SPDX-License-Identifier: Apache-2.0
//! One exchange with a server, and how it ended.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};

use super::{icmp, socket};
use crate::protocol::{Greeting, Outcome, Path, ProbeAnswer, Protocol};

/// A datagram that got no answer is sent again, so that a full neighbour queue does not look like a verdict.
const RESEND: Duration = Duration::from_millis(300);

/// Sends what a protocol needs for an answer and judges what comes back.
pub(crate) async fn probe(path: Path, protocol: Protocol, size: Option<u32>) -> ProbeAnswer {
    let begin = Instant::now();
    let limit = Duration::from_millis(path.timeout_ms);
    let exchange = timeout(limit, exchange(&path, protocol, size));
    let latency = |begin: Instant| u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut answer = match exchange.await {
        Err(_) => ProbeAnswer::failed(Outcome::Timeout, format!("no answer within {limit:?}")),
        Ok(Err(error)) => ProbeAnswer::failed(socket::outcome_of(&error), error.to_string()),
        Ok(Ok(greeting)) => ProbeAnswer {
            allowed: true,
            error: None,
            peer: greeting.as_ref().map(|greeting| greeting.name.clone()),
            source_seen: greeting.map(|greeting| greeting.source),
            ..ProbeAnswer::failed(Outcome::Connected, "")
        },
    };
    answer.latency_us = latency(begin);
    answer.address = Some(match protocol {
        Protocol::Icmp => path.destination.ip().to_string(),
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp => path.destination.to_string(),
    });
    answer
}

async fn exchange(
    path: &Path,
    protocol: Protocol,
    size: Option<u32>,
) -> io::Result<Option<Greeting>> {
    match protocol {
        Protocol::Tcp | Protocol::Sctp => stream(path, protocol, size).await.map(Some),
        Protocol::Udp => datagram(path, size).await.map(Some),
        Protocol::Icmp => {
            let payload = payload(size.unwrap_or(56));
            // A lost request is repeated like any other datagram.
            loop {
                if let Ok(result) = timeout(RESEND, icmp::ping(path, &payload)).await {
                    return result.map(|()| None);
                }
            }
        }
    }
}

async fn stream(path: &Path, protocol: Protocol, size: Option<u32>) -> io::Result<Greeting> {
    let stream = socket::connected(socket::open_client(protocol, path)?).await?;
    let (read, mut write) = stream.into_split();
    let mut request = payload(size.unwrap_or(16));
    request.push(b'\n');
    write.write_all(&request).await?;
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    read.read_until(b'\n', &mut line).await?;
    let greeting = parse(&line)?;
    let mut echo = vec![0; request.len()];
    read.read_exact(&mut echo).await?;
    compare(&request, &echo)?;
    Ok(greeting)
}

async fn datagram(path: &Path, size: Option<u32>) -> io::Result<Greeting> {
    let socket = socket::datagram(socket::open_client(Protocol::Udp, path)?)?;
    let request = payload(size.unwrap_or(16));
    let mut buffer = vec![0; 65536];
    let length = loop {
        send(&socket, &request).await?;
        if let Ok(length) = timeout(RESEND, socket.recv(&mut buffer)).await {
            break length?;
        }
    };
    let answer = buffer.get(..length).unwrap_or_default();
    let end = answer
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(answer.len());
    let greeting = parse(answer.get(..end).unwrap_or_default())?;
    compare(&request, answer.get(end + 1..).unwrap_or_default())?;
    Ok(greeting)
}

/// A path MTU learned on the way makes the first attempt fail; the second is cut to it.
async fn send(socket: &tokio::net::UdpSocket, bytes: &[u8]) -> io::Result<()> {
    match socket.send(bytes).await {
        Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && bytes.len() < 65000 => {
            socket.send(bytes).await.map(|_| ())
        }
        result => result.map(|_| ()),
    }
}

/// Makes a TCP connection and lets it go.
pub(crate) async fn connect(path: &Path) -> io::Result<()> {
    socket::connected(socket::open_client(Protocol::Tcp, path)?)
        .await
        .map(drop)
}

/// Asks an HTTP server for a page and returns the status.
pub(crate) async fn fetch(path: Path, page: &str, host: &str) -> Result<u16> {
    let stream = socket::connected(socket::open_client(Protocol::Tcp, &path)?).await?;
    let (read, mut write) = stream.into_split();
    let request = format!("GET {page} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    write.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    BufReader::new(read).take(1024).read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status: u16 = status.with_context(|| format!("not an HTTP answer: {line:?}"))?;
    anyhow::ensure!((200..400).contains(&status), "HTTP status {status}");
    Ok(status)
}

fn parse(line: &[u8]) -> io::Result<Greeting> {
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(line).map_err(|_| {
        let text = String::from_utf8_lossy(line)
            .chars()
            .take(80)
            .collect::<String>();
        io::Error::other(format!("not the answer of an echo server: {text:?}"))
    })
}

fn compare(sent: &[u8], received: &[u8]) -> io::Result<()> {
    if sent == received {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the answer differs from the request ({} bytes sent, {} received)",
        sent.len(),
        received.len()
    )))
}

/// Bytes that hold no line break.
fn payload(size: u32) -> Vec<u8> {
    (0..size)
        .map(|place| b'a' + u8::try_from(place % 25).unwrap_or(0))
        .collect()
}
