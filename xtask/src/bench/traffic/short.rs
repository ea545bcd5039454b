// SPDX-License-Identifier: Apache-2.0
//! Connections that do nothing but begin: the server says its name and closes. So a connection costs as little as it can
//! beside what its first packet costs, and who was reached is known.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Client;

/// How long a connection may take that is only to tell who answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it is asked who answers, and where nobody did.
const PERIOD: Duration = Duration::from_millis(1);
const RETRY: Duration = Duration::from_millis(20);

/// What opening connections, one after the other, came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::bench) struct Opened {
    /// Connections per second.
    pub(in crate::bench) rate: f64,
    /// Nanoseconds that `connect` took, half of the times and 99 of 100.
    pub(in crate::bench) median: f64,
    pub(in crate::bench) p99: f64,
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} {:.0} {:.0}", self.rate, self.median, self.p99)
    }
}

impl FromStr for Opened {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let values = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<Vec<f64>, _>>()
            .ok();
        let Some([rate, median, p99]) = values.as_deref() else {
            anyhow::bail!("`{}` is no measurement of connections", text.trim());
        };
        Ok(Self {
            rate: *rate,
            median: *median,
            p99: *p99,
        })
    }
}

/// Closed by the server: its port is the one that stays busy for a while, the client's is free again at once.
pub(super) fn answer(listener: &TcpListener, name: &str) -> Result<()> {
    super::accept(listener, |mut connection| {
        // A client that went away ends its own connection, nothing else.
        let _ = connection.write_all(name.as_bytes());
    })
}

/// Opens connections one after the other.
pub(super) fn open(client: &Client) -> Result<Opened> {
    let mut times = Vec::new();
    let start = Instant::now();
    let deadline = client.deadline();
    while Instant::now() < deadline {
        let before = Instant::now();
        let connection = TcpStream::connect(client.server)
            .with_context(|| format!("cannot connect to {}", client.server))?;
        times.push(before.elapsed());
        name_of(connection)?;
    }
    let took = start.elapsed();
    times.sort_unstable();
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate needs no more than 52 bits"
    )]
    let (count, nanoseconds) = (times.len() as f64, |time: &Duration| time.as_nanos() as f64);
    let quantile = |hundredths: usize| {
        let place = (times.len() * hundredths / 100).min(times.len().saturating_sub(1));
        times.get(place).map(nanoseconds)
    };
    Ok(Opened {
        rate: count / took.as_secs_f64(),
        median: quantile(50).context("no connection was made in time")?,
        p99: quantile(99).context("no connection was made in time")?,
    })
}

/// Says who answers, again whenever it is somebody else and every second, until nobody reads it any more.
pub(super) fn watch(server: SocketAddr) -> Result<()> {
    let mut last = (String::new(), Instant::now());
    loop {
        let answered = TcpStream::connect_timeout(&server, PATIENCE)
            .map_err(anyhow::Error::from)
            .and_then(name_of);
        // Rules are being changed meanwhile: whoever cannot be reached is asked again.
        let Ok(name) = answered else {
            thread::park_timeout(RETRY);
            continue;
        };
        if name != last.0 || last.1.elapsed() > Duration::from_secs(1) {
            if writeln!(io::stdout(), "{name}").is_err() {
                return Ok(());
            }
            last = (name, Instant::now());
        }
        thread::park_timeout(PERIOD);
    }
}

fn name_of(mut connection: TcpStream) -> Result<String> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut name = String::new();
    connection.read_to_string(&mut name)?;
    ensure!(!name.is_empty(), "the server closed without an answer");
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_and_who_answers_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = listener.local_addr().expect("bound");
        thread::spawn(move || answer(&listener, "seven"));
        let opened = open(&Client { server, for_ms: 20 }).expect("connections");
        assert!(opened.rate > 0.0 && opened.median > 0.0 && opened.p99 >= opened.median);
        let connection = TcpStream::connect(server).expect("a connection");
        assert_eq!(name_of(connection).expect("an answer"), "seven");
    }

    #[test]
    fn what_is_printed_is_read_again() {
        let opened = Opened {
            rate: 12_000.0,
            median: 41_000.0,
            p99: 90_500.0,
        };
        let text = opened.to_string();
        assert_eq!(text.parse::<Opened>().expect("a measurement"), opened);
        assert!("12000 41000".parse::<Opened>().is_err());
        assert!("many".parse::<Opened>().is_err());
    }
}
