// SPDX-License-Identifier: Apache-2.0
//! The built-in server of pods: says who it is and whom it sees, then echoes.
//!
//! TCP: the first line decides. An HTTP request gets an HTTP answer, `weir-transfer SEND RECEIVE SEED` moves bytes
//! both ways and ends with a line of checksums, and to anything else the server writes one line of JSON
//! (`{"name", "source"}`) and sends back everything that it has received and will receive.
//! UDP: the same line, followed by the datagram's own bytes.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use super::{bulk, dns, sctp, socket, udp};
use crate::protocol::{Greeting, Protocol};

/// What answers on a port.
#[derive(Clone, Debug)]
pub(crate) enum Service {
    /// The server that says the given name.
    Echo(String),
    Names(dns::Table),
}

/// The ports that the sandbox answers on, each with the number of those who want it.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    ports: BTreeMap<(Protocol, u16), (usize, Option<AbortHandle>)>,
}

impl Listeners {
    /// Answers on a port from now on. A port that some other program answers on is left to it.
    pub(crate) fn acquire(
        &mut self,
        protocol: Protocol,
        port: u16,
        service: &Service,
    ) -> Result<()> {
        match self.ports.entry((protocol, port)) {
            Entry::Occupied(mut entry) => entry.get_mut().0 += 1,
            Entry::Vacant(entry) => {
                let handle = match start(service.clone(), protocol, port) {
                    Ok(handle) => Some(handle),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("cannot listen on {protocol:?} port {port}"));
                    }
                };
                entry.insert((1, handle));
            }
        }
        Ok(())
    }

    /// Undoes one `acquire`.
    pub(crate) fn release(&mut self, protocol: Protocol, port: u16) {
        if let Entry::Occupied(mut entry) = self.ports.entry((protocol, port)) {
            entry.get_mut().0 -= 1;
            if entry.get().0 == 0
                && let (_, Some(handle)) = entry.remove()
            {
                handle.abort();
            }
        }
    }
}

fn start(service: Service, protocol: Protocol, port: u16) -> io::Result<AbortHandle> {
    let task = match protocol {
        Protocol::Sctp if !sctp::is_in_kernel() => {
            let Service::Echo(name) = service else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            let port = sctp::Port::open(name, port)?;
            tokio::task::spawn_local(async move {
                // The port is open for as long as this task is there.
                let _port = port;
                std::future::pending::<()>().await;
            })
        }
        Protocol::Tcp | Protocol::Sctp => {
            let listener = TcpListener::from_std(socket::open_server(protocol, port)?.into())?;
            tokio::task::spawn_local(accept(service, listener))
        }
        Protocol::Udp => {
            let socket = udp::Server::open(port)?;
            tokio::task::spawn_local(udp::answer(service, socket))
        }
        // The kernel answers pings itself.
        Protocol::Icmp => tokio::task::spawn_local(async {}),
    };
    Ok(task.abort_handle())
}

async fn accept(service: Service, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let service = service.clone();
                tokio::task::spawn_local(async move {
                    let conversation = match service {
                        Service::Echo(name) => {
                            let source = socket::plain(peer).to_string();
                            converse(stream, &Greeting { name, source }).await
                        }
                        Service::Names(table) => dns::converse(stream, &table).await,
                    };
                    // The client's trouble is the client's to report.
                    drop(conversation);
                });
            }
            // Out of descriptors or a connection that died early: the next one may be better.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn converse(stream: TcpStream, greeting: &Greeting) -> Result<()> {
    stream.set_nodelay(true).ok();
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::with_capacity(64 * 1024, read);
    // What does not end in a line is echoed as it comes.
    let start = read.fill_buf().await?;
    let line_length = start
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(start.len(), |at| at + 1);
    let line = start[..line_length].to_vec();
    read.consume(line_length);
    let text = String::from_utf8_lossy(&line);
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    match words.as_slice() {
        [method @ ("GET" | "HEAD" | "POST" | "PUT"), page, ..] => {
            serve_page(*method == "HEAD", page, greeting, &mut read, &mut write).await
        }
        ["weir-transfer", send, receive, seed] => {
            let (send, receive, seed) = (send.parse()?, receive.parse()?, seed.parse::<u64>()?);
            // Named from the client's side: it sends `send` bytes.
            let (received, sent) = tokio::try_join!(
                bulk::receive(&mut read, send),
                bulk::send(&mut write, receive, seed ^ u64::MAX)
            )?;
            let mut trailer =
                serde_json::to_vec(&serde_json::json!({"received": received, "sent": sent}))?;
            trailer.push(b'\n');
            Ok(write.write_all(&trailer).await?)
        }
        _ => {
            let mut reply = serde_json::to_vec(greeting)?;
            reply.push(b'\n');
            reply.extend_from_slice(&line);
            write.write_all(&reply).await?;
            tokio::io::copy_buf(&mut read, &mut write).await?;
            Ok(())
        }
    }
}

async fn serve_page(
    head_only: bool,
    page: &str,
    greeting: &Greeting,
    read: &mut (impl AsyncBufReadExt + Unpin),
    write: &mut (impl AsyncWriteExt + Unpin),
) -> Result<()> {
    let mut headers = read.take(64 * 1024);
    let mut line = String::new();
    loop {
        line.clear();
        if headers.read_line(&mut line).await? == 0 {
            bail!("the request ends in its headers");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let body = match page {
        "/hostname" => greeting.name.clone(),
        "/clientip" => greeting.source.clone(),
        _ => serde_json::to_string(greeting)?,
    };
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len() + 1
    );
    if !head_only {
        answer.push_str(&body);
        answer.push('\n');
    }
    write.write_all(answer.as_bytes()).await?;
    write.shutdown().await?;
    Ok(())
}
