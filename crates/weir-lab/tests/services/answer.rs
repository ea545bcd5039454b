// SPDX-License-Identifier: Apache-2.0
//! What the answer to a probe says.

use std::collections::BTreeMap;

use serde_json::Value;

/// Who answered a probe or a series.
pub(crate) fn peers(answer: &Value) -> Vec<String> {
    match answer["peers"].as_object() {
        Some(peers) => peers.keys().cloned().collect(),
        None => answer["peer"]
            .as_str()
            .map(ToOwned::to_owned)
            .into_iter()
            .collect(),
    }
}

/// The client addresses that the servers saw, and how often.
pub(crate) fn sources(answer: &Value) -> BTreeMap<String, u64> {
    match answer["sources"].as_object() {
        Some(sources) => sources
            .iter()
            .map(|(source, count)| (source.clone(), count.as_u64().unwrap()))
            .collect(),
        None => {
            let source = answer["source_seen"].as_str().unwrap_or_default();
            let address = source.rsplit_once(':').map_or("", |(address, _)| address);
            [(address.trim_matches(['[', ']']).to_owned(), 1)].into()
        }
    }
}
