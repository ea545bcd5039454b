// SPDX-License-Identifier: Apache-2.0
//! What probes are asked and what they answer; users write and read this too.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Protocol;

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Connected,
    Refused,
    Timeout,
    Unreachable,
    Reset,
    Error,
}

/// A probe as users write it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProbeRequest {
    #[serde(default)]
    pub(crate) id: Value,
    pub(crate) from: String,
    pub(crate) to: String,
    #[serde(default)]
    pub(crate) port: Option<u16>,
    #[serde(default)]
    pub(crate) family: Option<u8>,
    #[serde(default = "one_second")]
    pub(crate) timeout_ms: u64,
    #[serde(default)]
    pub(crate) source_port: Option<u16>,
    #[serde(default)]
    pub(crate) serve: bool,
    #[serde(default)]
    pub(crate) protocol: Protocol,
    #[serde(default)]
    pub(crate) size: Option<u32>,
    /// A page to ask for over HTTP, whatever the status of the answer.
    #[serde(default)]
    pub(crate) http: Option<String>,
    /// Send datagrams from a socket that is not connected; only an answer from the very destination counts.
    #[serde(default)]
    pub(crate) unconnected: bool,
    /// How many times. Without an interval several run at once.
    #[serde(default)]
    pub(crate) count: Option<u32>,
    /// One after the other, each so long after the start of the one before.
    #[serde(default)]
    pub(crate) interval_ms: Option<u64>,
    /// All over one connection, or from one datagram socket.
    #[serde(default)]
    pub(crate) keep: bool,
    /// Stop when this workload answers.
    #[serde(default)]
    pub(crate) until: Option<String>,
}

fn one_second() -> u64 {
    1000
}

impl ProbeRequest {
    /// One TCP connection with the times that the command line gives.
    pub(crate) fn new(from: &str, to: &str, timeout_ms: u64) -> Self {
        Self {
            id: Value::Null,
            from: from.to_owned(),
            to: to.to_owned(),
            port: None,
            family: None,
            timeout_ms,
            source_port: None,
            serve: false,
            protocol: Protocol::Tcp,
            size: None,
            http: None,
            unconnected: false,
            count: None,
            interval_ms: None,
            keep: false,
            until: None,
        }
    }

    /// The part that concerns the source alone.
    pub(crate) fn exchange(&self) -> Exchange {
        let series = self.count.is_some() || self.keep || self.interval_ms.is_some();
        Exchange {
            protocol: self.protocol,
            size: self.size,
            http: self.http.clone(),
            unconnected: self.unconnected,
            series: series.then(|| Series {
                count: self.count.unwrap_or(1),
                interval_ms: self.interval_ms,
                keep: self.keep,
                until: self.until.clone(),
            }),
        }
    }

    /// The longest that all of it may take, in milliseconds.
    pub(crate) fn time_limit(&self) -> u64 {
        let each = self.timeout_ms.max(self.interval_ms.unwrap_or(0));
        let count = self.count.unwrap_or(1).max(1);
        let workers = self
            .exchange()
            .series
            .map_or(1, |series| series.workers(self.source_port.is_some()));
        each.saturating_mul(count.div_ceil(workers).into())
    }
}

/// What is sent, and how often.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Exchange {
    pub(crate) protocol: Protocol,
    pub(crate) size: Option<u32>,
    pub(crate) http: Option<String>,
    pub(crate) unconnected: bool,
    pub(crate) series: Option<Series>,
}

/// Many exchanges in one probe.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) count: u32,
    pub(crate) interval_ms: Option<u64>,
    pub(crate) keep: bool,
    pub(crate) until: Option<String>,
}

/// Exchanges that run at once where none has to wait for another.
const PARALLEL: u32 = 16;

impl Series {
    /// How many exchanges run at once. Two sockets cannot have one port towards one destination.
    pub(crate) fn workers(&self, own_port: bool) -> u32 {
        let alone = self.keep || own_port || self.interval_ms.is_some() || self.until.is_some();
        if alone {
            1
        } else {
            PARALLEL.min(self.count).max(1)
        }
    }
}

/// What a probe found. Of a series: the first failure if there is one, else the last answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProbeAnswer {
    #[serde(skip_serializing_if = "Value::is_null", default)]
    pub(crate) id: Value,
    pub(crate) allowed: bool,
    pub(crate) outcome: Outcome,
    pub(crate) latency_us: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) source_seen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) address: Option<String>,
    /// The other end as the client's socket names it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) remote: Option<String>,
    /// The status of an HTTP answer, and its text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) error: Option<String>,
    /// How many exchanges of a series ended how.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) outcomes: Option<BTreeMap<Outcome, u32>>,
    /// Who answered how many of them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) peers: Option<BTreeMap<String, u32>>,
    /// The client addresses, without ports, that the servers saw.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) sources: Option<BTreeMap<String, u32>>,
    /// The series in the order of its ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) timeline: Option<Vec<Span>>,
}

/// Exchanges in a row that ended alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// When the first of them ended, since the start of the series.
    pub(crate) at_ms: u64,
    pub(crate) count: u32,
    pub(crate) outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) peer: Option<String>,
}

impl ProbeAnswer {
    pub(crate) fn failed(outcome: Outcome, error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::of(false, outcome)
        }
    }

    pub(crate) fn answered() -> Self {
        Self::of(true, Outcome::Connected)
    }

    fn of(allowed: bool, outcome: Outcome) -> Self {
        Self {
            id: Value::Null,
            allowed,
            outcome,
            latency_us: 0,
            peer: None,
            source_seen: None,
            address: None,
            remote: None,
            status: None,
            body: None,
            error: None,
            outcomes: None,
            peers: None,
            sources: None,
            timeline: None,
        }
    }
}

/// From where to where a sandbox sends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Path {
    pub(crate) destination: SocketAddr,
    #[serde(default)]
    pub(crate) source: Option<IpAddr>,
    #[serde(default)]
    pub(crate) source_port: Option<u16>,
    pub(crate) timeout_ms: u64,
}
