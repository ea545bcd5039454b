// SPDX-License-Identifier: Apache-2.0
//! The verbs that send something: probes, transfers, traffic.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

use super::parse_duration;
use crate::protocol::{Protocol, Transfer};

#[derive(Clone, Debug, Parser)]
pub(crate) struct Probe {
    /// Source: NS/POD, node:NAME, external:NAME, world, or an address of one of them.
    #[arg(long, required_unless_present = "batch")]
    pub(crate) from: Option<String>,
    /// Destination: the same, svc:NS/NAME, dns:NAME as the source resolves it, or any address.
    #[arg(long, required_unless_present = "batch")]
    pub(crate) to: Option<String>,
    /// Destination port.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Protocol.
    #[arg(long, value_enum, default_value = "tcp")]
    pub(crate) protocol: Protocol,
    /// IP family, 4 or 6; what both ends have when absent, IPv4 first.
    #[arg(long, value_parser = clap::value_parser!(u8).range(4..=6))]
    pub(crate) family: Option<u8>,
    /// Time for the whole exchange.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// Source port.
    #[arg(long)]
    pub(crate) source_port: Option<u16>,
    /// Bytes of payload to send and get back.
    #[arg(long)]
    pub(crate) size: Option<u32>,
    /// Make the destination answer for the time of the probe where nothing listens yet.
    #[arg(long)]
    pub(crate) serve: bool,
    /// Ask for this page over HTTP and show status and text, whatever they are.
    #[arg(long, value_name = "PATH")]
    pub(crate) http: Option<String>,
    /// How many exchanges; several run at once unless there is an interval.
    #[arg(long)]
    pub(crate) count: Option<u32>,
    /// Pause between the starts of two exchanges.
    #[arg(long, value_parser = parse_duration)]
    pub(crate) interval: Option<Duration>,
    /// Do all of them over one connection or from one datagram socket.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Send datagrams from a socket that is not connected.
    #[arg(long)]
    pub(crate) unconnected: bool,
    /// Stop when this workload (NS/POD) answers.
    #[arg(long, value_name = "PEER")]
    pub(crate) until: Option<String>,
    /// One JSON request per line in (`-` is standard input), one JSON answer per line out, run in parallel.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) batch: Option<PathBuf>,
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct TransferArgs {
    /// Source, as for `probe`.
    #[arg(long)]
    pub(crate) from: String,
    /// Destination, as for `probe`.
    #[arg(long)]
    pub(crate) to: String,
    /// Destination port.
    #[arg(long)]
    pub(crate) port: u16,
    /// IP family, 4 or 6.
    #[arg(long)]
    pub(crate) family: Option<u8>,
    /// Bytes towards the destination.
    #[arg(long, default_value_t = 0)]
    pub(crate) send: u64,
    /// Bytes from the destination.
    #[arg(long, default_value_t = 0)]
    pub(crate) receive: u64,
    /// Time for the whole transfer.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// Make the destination answer where nothing listens yet.
    #[arg(long)]
    pub(crate) serve: bool,
}

impl TransferArgs {
    pub(crate) fn transfer(&self) -> Transfer {
        Transfer {
            send: self.send,
            receive: self.receive,
        }
    }
}

#[derive(Clone, Debug, Parser)]
pub(crate) struct Traffic {
    /// Source, as for `probe`.
    #[arg(long)]
    pub(crate) from: String,
    /// Destination, as for `probe`.
    #[arg(long)]
    pub(crate) to: String,
    /// Destination port of all flows.
    #[arg(long)]
    pub(crate) port: u16,
    /// IP family, 4 or 6.
    #[arg(long)]
    pub(crate) family: Option<u8>,
    /// Number of TCP connections.
    #[arg(long, default_value_t = 0)]
    pub(crate) tcp: u32,
    /// Number of UDP flows.
    #[arg(long, default_value_t = 0)]
    pub(crate) udp: u32,
    /// How long.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// Pause between an answer and the next request of a flow.
    #[arg(long, default_value = "10ms", value_parser = parse_duration)]
    pub(crate) pause: Duration,
    /// Bytes of a request and of its answer.
    #[arg(long, default_value_t = 64)]
    pub(crate) size: u32,
    /// Make the destination answer where nothing listens yet.
    #[arg(long)]
    pub(crate) serve: bool,
}
