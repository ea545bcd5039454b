// SPDX-License-Identifier: Apache-2.0
//! What the programs count, how full their maps are, and what collecting flows takes.

use std::sync::atomic::Ordering;

use weir_abi::counter::{Counter, METRICS};
use weir_datapath::Maps;

use super::page::{Labels, Page, labels, number};
use crate::api::map_text::{direction_name, reason_name};
use crate::shared::Shared;

pub(super) fn datapath(page: &mut Page, maps: &Maps, shared: &Shared) -> weir_datapath::Result<()> {
    let sums = maps.metrics.sums()?;
    let rows = |dropped: bool, bytes: bool| {
        let sums = sums
            .iter()
            .filter(move |(index, _)| *index < METRICS && (*index >> 2 != 0) == dropped);
        sums.map(move |(index, metric)| {
            let mut row = labels([("direction", direction_name(index & 3).to_owned())]);
            if dropped {
                let code = u8::try_from(index >> 2).unwrap_or(u8::MAX);
                row.push(("reason".to_owned(), reason_name(code)));
            }
            (row, if bytes { metric.bytes } else { metric.packets })
        })
    };
    page.count("drop_count", "Packets dropped", rows(true, false));
    page.count("drop_bytes", "Bytes dropped", rows(true, true));
    page.count("forward_count", "Packets forwarded", rows(false, false));
    page.count("forward_bytes", "Bytes forwarded", rows(false, true));
    let mut counters = Vec::new();
    for counter in Counter::ALL {
        counters.push((
            labels([("counter", counter.name().to_owned())]),
            maps.counter(*counter)?,
        ));
    }
    page.count(
        "datapath_events",
        "Things that the programs count beside packets",
        counters,
    );
    let usage = match shared.usage.get() {
        Some(known) => known,
        None => shared.usage.count(maps)?,
    };
    let name = |usage: &weir_datapath::MapUsage| labels([("map_name", usage.map.name.to_owned())]);
    let pressure = usage
        .iter()
        .filter_map(|one| Some((name(one), one.percent()? / 100.0)));
    page.level(
        "bpf_map_pressure",
        "How full a map is, from 0 to 1",
        pressure,
    );
    let capacity = usage.iter().map(|one| (name(one), f64::from(one.size)));
    page.level(
        "bpf_map_capacity",
        "Entries (bytes for rings) that fit a map",
        capacity,
    );
    let errors = usage.iter().map(|one| (name(one), one.failed_writes));
    page.count("bpf_map_errors", "Writes that the kernel refused", errors);
    Ok(())
}

pub(super) fn collections(page: &mut Page, shared: &Shared) {
    let all = shared.collections();
    let status = |status: &str| labels([("status", status.to_owned())]);
    let runs = [
        (status("completed"), all.runs - all.failed),
        (status("uncompleted"), all.failed),
    ];
    page.count(
        "datapath_conntrack_gc_runs",
        "Collections of the flow table",
        runs,
    );
    page.count(
        "datapath_conntrack_gc_deleted",
        "Flow entries that were collected",
        [(Labels::new(), all.deleted)],
    );
    page.level(
        "datapath_conntrack_gc_duration_seconds",
        "Time spent collecting",
        [(Labels::new(), all.seconds)],
    );
    if let Some(last) = all.last {
        let entries = [
            (status("alive"), number(last.used())),
            (status("deleted"), number(last.deleted)),
        ];
        page.level(
            "datapath_conntrack_gc_entries",
            "What the last collection found",
            entries,
        );
    }
    let signals = shared.counts.signals.load(Ordering::Relaxed);
    page.count(
        "datapath_signals_handled",
        "Calls of the programs for a collection",
        [(Labels::new(), signals)],
    );
}
