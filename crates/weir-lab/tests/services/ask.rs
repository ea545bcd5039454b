// SPDX-License-Identifier: Apache-2.0
//! Probes in the words of the rows.

use serde_json::{Value, json};

/// A probe to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Ask(pub(crate) Value);

/// A probe over TCP, port 80 unless another is said. An answer that is owed may be late on a busy machine; what must not
/// be answered has a time of its own.
pub(crate) fn ask(from: &str, to: &str) -> Ask {
    Ask(json!({"from": from, "to": to, "port": 80, "family": 4, "timeout_ms": 10000}))
}

impl Ask {
    pub(crate) fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0[field] = value.into();
        self
    }

    pub(crate) fn port(self, port: impl Into<Value>) -> Self {
        self.set("port", port)
    }

    pub(crate) fn udp(self) -> Self {
        self.set("protocol", "udp")
    }

    pub(crate) fn family(self, family: u8) -> Self {
        self.set("family", family)
    }

    pub(crate) fn times(self, count: u32) -> Self {
        self.set("count", count)
    }

    /// How long a denial takes to show.
    pub(crate) fn within(self, milliseconds: u32) -> Self {
        self.set("timeout_ms", milliseconds)
    }
}

/// Every probe over both families.
pub(crate) fn both_families(asks: impl IntoIterator<Item = Ask>) -> Vec<Ask> {
    asks.into_iter()
        .flat_map(|ask| [ask.clone(), ask.family(6)])
        .collect()
}

/// Every probe over TCP and UDP.
pub(crate) fn both_protocols(asks: impl IntoIterator<Item = Ask>) -> Vec<Ask> {
    asks.into_iter()
        .flat_map(|ask| [ask.clone(), ask.udp()])
        .collect()
}

/// Over TCP and UDP and both families.
pub(crate) fn all_ways(asks: impl IntoIterator<Item = Ask>) -> Vec<Ask> {
    both_protocols(both_families(asks))
}
