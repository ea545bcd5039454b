// SPDX-License-Identifier: Apache-2.0
//! Clients of the built-in server: a request goes out, and what comes back is checked byte by byte.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UdpSocket,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{
    connect::connect,
    socket::{self, plain},
};
use crate::protocol::{Greeting, Path, Protocol};

/// A datagram that got no answer is sent again, so that a full neighbour queue does not look like a verdict.
pub(crate) const RESEND: Duration = Duration::from_millis(300);
/// What a page may have.
const PAGE_LIMIT: u64 = 64 * 1024;

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) greeting: Option<Greeting>,
    /// The other end as the own socket names it.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) status: Option<u16>,
    pub(crate) body: Option<String>,
}

/// A connection to an echo server.
#[derive(Debug)]
pub(crate) struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    remote: Option<SocketAddr>,
    greeting: Option<Greeting>,
}

impl Connection {
    pub(crate) async fn open(path: &Path, protocol: Protocol) -> io::Result<Self> {
        let stream = connect(path, protocol).await?;
        stream.set_nodelay(true).ok();
        let remote = stream.peer_addr().ok().map(plain);
        let (read, write) = stream.into_split();
        Ok(Self {
            read: BufReader::new(read),
            write,
            remote,
            greeting: None,
        })
    }

    /// Sends so many bytes and gets them back.
    pub(crate) async fn ask(&mut self, size: u32) -> io::Result<Reply> {
        let mut request = payload(size);
        request.push(b'\n');
        self.write.write_all(&request).await?;
        if self.greeting.is_none() {
            let mut line = Vec::new();
            self.read.read_until(b'\n', &mut line).await?;
            self.greeting = Some(parse(&line)?);
        }
        let mut echo = vec![0; request.len()];
        self.read.read_exact(&mut echo).await?;
        compare(&request, &echo)?;
        Ok(Reply {
            greeting: self.greeting.clone(),
            remote: self.remote,
            ..Reply::default()
        })
    }
}

/// A datagram socket that asks echo servers.
#[derive(Debug)]
pub(crate) struct Datagrams {
    socket: UdpSocket,
    destination: SocketAddr,
    connected: bool,
    number: u64,
    /// Answers to datagrams before the last one, by their numbers.
    late: Vec<(u64, Reply)>,
}

impl Datagrams {
    pub(crate) fn open(path: &Path, connected: bool) -> io::Result<Self> {
        let socket = if connected {
            socket::open_client(Protocol::Udp, path)?
        } else {
            socket::open_bound(Protocol::Udp, path)?
        };
        Ok(Self {
            socket: socket::datagram(socket)?,
            destination: path.destination,
            connected,
            number: 0,
            late: Vec::new(),
        })
    }

    /// Sends a datagram, again and again if need be, until its answer is there.
    pub(crate) async fn ask(&mut self, size: u32) -> io::Result<Reply> {
        loop {
            self.send(size).await?;
            match timeout(RESEND, self.receive(size)).await {
                // Somebody on the way says that it was too large: the next one will be cut to what fits.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EMSGSIZE) => {}
                Ok(reply) => return reply,
                Err(_) => {}
            }
        }
    }

    /// Sends the next datagram; no two are alike.
    pub(crate) async fn send(&mut self, size: u32) -> io::Result<()> {
        self.number += 1;
        let bytes = request(self.number, size);
        match self.send_bytes(&bytes).await {
            // A path MTU learned on the way makes the first attempt fail; the second is cut to it.
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) && bytes.len() < 65000 => {
                self.send_bytes(&bytes).await
            }
            result => result,
        }
    }

    async fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = if self.connected {
            self.socket.send(bytes).await
        } else {
            self.socket.send_to(bytes, self.destination).await
        };
        sent.map(drop)
    }

    /// The number of the last datagram.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Waits for the answer to the last datagram; those that are late are kept.
    pub(crate) async fn receive(&mut self, size: u32) -> io::Result<Reply> {
        loop {
            let (number, reply) = self.next(size).await?;
            if number == self.number {
                return Ok(reply);
            }
            self.late.push((number, reply));
        }
    }

    /// Waits for an answer to any datagram, which counts as late.
    pub(crate) async fn receive_late(&mut self, size: u32) -> io::Result<()> {
        let answer = self.next(size).await?;
        self.late.push(answer);
        Ok(())
    }

    /// Takes what came late since this was last asked.
    pub(crate) fn take_late(&mut self) -> Vec<(u64, Reply)> {
        std::mem::take(&mut self.late)
    }

    /// The next answer, with the number of its datagram.
    async fn next(&self, size: u32) -> io::Result<(u64, Reply)> {
        let mut buffer = vec![0; 65536];
        let (length, from) = if self.connected {
            (
                self.socket.recv(&mut buffer).await?,
                self.socket.peer_addr()?,
            )
        } else {
            self.socket.recv_from(&mut buffer).await?
        };
        let answer = buffer.get(..length).unwrap_or_default();
        let end = answer.iter().position(|byte| *byte == b'\n');
        let (line, echo) = answer.split_at(end.map_or(length, |end| end + 1));
        let digits = echo.get(..NUMBER).and_then(|all| str::from_utf8(all).ok());
        // One without a number is no echo: it is compared with the last one, and differs.
        let number = digits.and_then(|digits| digits.parse().ok());
        let number = number.unwrap_or(self.number);
        let greeting = parse(line)?;
        compare(&request(number, size), echo)?;
        // A resolver would throw away what comes from anywhere else.
        if plain(from) != self.destination {
            return Err(io::Error::other(format!(
                "the answer came from {from} instead of {}",
                self.destination
            )));
        }
        let reply = Reply {
            greeting: Some(greeting),
            remote: Some(plain(from)),
            ..Reply::default()
        };
        Ok((number, reply))
    }
}

/// The datagram of a number.
fn request(number: u64, size: u32) -> Vec<u8> {
    let mut request = format!("{number:0NUMBER$}").into_bytes();
    let size = usize::try_from(size).unwrap_or(NUMBER).max(NUMBER);
    request.extend(payload(u32::try_from(size - NUMBER).unwrap_or(0)));
    request
}

/// The digits that a datagram begins with.
const NUMBER: usize = 8;

/// Asks an HTTP server for a page.
pub(crate) async fn fetch(path: &Path, page: &str, host: &str) -> io::Result<Reply> {
    let stream = connect(path, Protocol::Tcp).await?;
    let remote = stream.peer_addr().ok().map(plain);
    let (read, mut write) = stream.into_split();
    let request = format!("GET {page} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    write.write_all(request.as_bytes()).await?;
    let mut text = Vec::new();
    read.take(PAGE_LIMIT).read_to_end(&mut text).await?;
    let text = String::from_utf8_lossy(&text);
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let Some(status) = status else {
        return Err(io::Error::other(format!("not an HTTP answer: {head:?}")));
    };
    Ok(Reply {
        greeting: serde_json::from_str(body).ok(),
        remote,
        status: Some(status),
        body: Some(body.trim_end().to_owned()),
    })
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
pub(crate) fn payload(size: u32) -> Vec<u8> {
    (0..size)
        .map(|place| b'a' + u8::try_from(place % 25).unwrap_or(0))
        .collect()
}
