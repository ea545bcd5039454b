// SPDX-License-Identifier: Apache-2.0
//! The traffic of the benchmark: a server and three kinds of client, without any tool from outside.
//!
//! The same binary runs inside the pods of every lab that is compared, so what it costs is equal on both sides.

pub(super) mod short;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::process::{cargo, run_step};
use crate::{output, workspace};

/// What a connection is for; the client's first byte says so.
const STREAM: u8 = b's';
const ECHO: u8 = b'e';
const ONCE: u8 = b'o';

/// Large enough that the cost of a call does not count, small enough for the cache.
const CHUNK: usize = 128 * 1024;

/// Builds this program as it is measured with.
pub(super) fn build() -> Result<PathBuf> {
    let mut build = cargo();
    build
        .args(["build", "--release", "--package", "xtask"])
        .current_dir(workspace::root());
    run_step("building the traffic program", &mut build)?;
    Ok(built())
}

/// Where it was built.
pub(super) fn built() -> PathBuf {
    workspace::target_dir().join("release/xtask")
}

/// Sends or answers the traffic of the benchmark (runs inside pods)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Answer every kind of client
    Serve { address: SocketAddr },
    /// One connection, as many bytes as fit: bits per second
    Stream(Client),
    /// One connection, one byte there and back: round trips per second
    Request(Client),
    /// A connection for each round trip: connections per second
    Connect(Client),
    /// Answer every connection with a name and close it
    Name { address: SocketAddr, name: String },
    /// Short connections to who answers with a name: how many per second, and nanoseconds that each took to be open
    Open(Client),
    /// A short connection every millisecond: whenever another name answers, that name
    Watch { server: SocketAddr },
}

#[derive(Debug, clap::Args)]
struct Client {
    server: SocketAddr,
    /// Milliseconds to run
    #[arg(long, default_value_t = 1000)]
    for_ms: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let rate = match &args.role {
        Role::Serve { address } => return serve(&listen(*address)?),
        Role::Name { address, name } => return short::answer(&listen(*address)?, name),
        Role::Watch { server } => return short::watch(*server),
        Role::Open(client) => {
            output::data(short::open(client)?);
            return Ok(());
        }
        Role::Stream(client) => stream(client)?,
        Role::Request(client) => request(client)?,
        Role::Connect(client) => connect(client)?,
    };
    output::data(format_args!("{rate:.0}"));
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))
}

fn serve(listener: &TcpListener) -> Result<()> {
    accept(listener, |connection| {
        thread::spawn(move || answer(connection));
    })
}

fn accept(listener: &TcpListener, mut take: impl FnMut(TcpStream)) -> Result<()> {
    loop {
        match listener.accept() {
            Ok((connection, _)) => take(connection),
            // A client that went away before it was accepted.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error).context("cannot accept"),
        }
    }
}

/// A client that goes away ends its own connection, nothing else.
fn answer(mut connection: TcpStream) {
    let _ = connection.set_nodelay(true);
    let mut kind = [0];
    if connection.read_exact(&mut kind).is_err() {
        return;
    }
    match kind[0] {
        STREAM => {
            let mut buffer = vec![0; CHUNK];
            let mut total = 0_u64;
            while let Ok(read) = connection.read(&mut buffer) {
                if read == 0 {
                    break;
                }
                total += read as u64;
            }
            // The client counts what arrived, not what it gave to its own kernel.
            let _ = connection.write_all(&total.to_be_bytes());
        }
        ECHO => {
            let mut byte = [0];
            while connection.read_exact(&mut byte).is_ok() && connection.write_all(&byte).is_ok() {}
        }
        // Closed by the server: so it is the server that keeps the closed connection's port, and the client's ports
        // are free again at once.
        _ => {
            let _ = connection.write_all(&kind);
        }
    }
}

fn open(server: SocketAddr, kind: u8) -> Result<TcpStream> {
    let mut connection = TcpStream::connect_timeout(&server, Duration::from_secs(5))
        .with_context(|| format!("cannot connect to {server}"))?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    connection.set_write_timeout(Some(Duration::from_secs(10)))?;
    connection.write_all(&[kind])?;
    Ok(connection)
}

impl Client {
    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.for_ms)
    }
}

/// Bits per second that arrived.
fn stream(client: &Client) -> Result<f64> {
    let mut connection = open(client.server, STREAM)?;
    let chunk = vec![0x5a; CHUNK];
    let start = Instant::now();
    let deadline = client.deadline();
    while Instant::now() < deadline {
        connection.write_all(&chunk)?;
    }
    connection.shutdown(std::net::Shutdown::Write)?;
    let mut total = [0; 8];
    connection.read_exact(&mut total)?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate needs no more than 52 bits"
    )]
    let bits = (u64::from_be_bytes(total) * 8) as f64;
    Ok(bits / start.elapsed().as_secs_f64())
}

/// Round trips per second on one connection.
fn request(client: &Client) -> Result<f64> {
    let mut connection = open(client.server, ECHO)?;
    per_second(client, || {
        let mut byte = [0x5a];
        connection.write_all(&byte)?;
        connection.read_exact(&mut byte)?;
        Ok(())
    })
}

/// Connections per second, one after the other.
fn connect(client: &Client) -> Result<f64> {
    per_second(client, || {
        let mut connection = open(client.server, ONCE)?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer)?;
        ensure!(answer == [ONCE], "the server answered {answer:?}");
        Ok(())
    })
}

fn per_second(client: &Client, mut once: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    let deadline = client.deadline();
    let mut count = 0_u32;
    while Instant::now() < deadline {
        once()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = listener.local_addr().expect("bound");
        thread::spawn(move || serve(&listener));
        Client { server, for_ms: 20 }
    }

    #[test]
    fn every_kind_of_client_gets_its_answers() {
        let client = client();
        assert!(stream(&client).expect("a stream") > 0.0);
        assert!(request(&client).expect("round trips") > 0.0);
        assert!(connect(&client).expect("connections") > 0.0);
    }

    #[test]
    fn a_server_that_is_not_there_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = listener.local_addr().expect("bound");
        drop(listener);
        assert!(request(&Client { server, for_ms: 20 }).is_err());
    }
}
