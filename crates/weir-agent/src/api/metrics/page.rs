// SPDX-License-Identifier: Apache-2.0
//! The page that metrics are written to: filled once, and printed.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

pub(super) type Labels = Vec<(String, String)>;
type Count = Counter<u64>;
type Level = Gauge<f64, AtomicU64>;

/// A registry that is filled once and printed.
pub(super) struct Page(pub(super) Registry);

impl Page {
    pub(super) fn count(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let family = Family::<Labels, Count>::default();
        for (labels, value) in rows {
            let count = family.get_or_create(&labels).clone();
            count.inc_by(value);
            if labels.is_empty() {
                // One number for the whole node: no braces.
                self.0.register(name, help, count);
                return;
            }
        }
        self.0.register(name, help, family);
    }

    pub(super) fn level(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Family::<Labels, Level>::default();
        for (labels, value) in rows {
            let level = family.get_or_create(&labels).clone();
            level.set(value);
            if labels.is_empty() {
                self.0.register(name, help, level);
                return;
            }
        }
        self.0.register(name, help, family);
    }
}

pub(super) fn labels<const N: usize>(pairs: [(&str, String); N]) -> Labels {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no count on a node comes near 2^52"
)]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}
