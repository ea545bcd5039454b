// SPDX-License-Identifier: Apache-2.0
//! Costs that only mean something beside others, measured in turns, so that a machine that slows down slows both: what
//! policy adds to a packet, and what changes elsewhere do to flows that have nothing to do with them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use weir_abi::counter::Counter;
use weir_abi::{PolicySet, Slot};
use weir_datapath::Maps;

use super::features::{ALLOWED, put_rule};
use super::{Bench, REDIRECT, flows, shuffled};

/// Turns of each side.
const TURNS: usize = 15;
/// New flows of each side in one turn.
const FLOWS: u16 = 400;
const FIRST_PORT: u16 = 10_000;
/// Live flows while others change.
const LIVE: usize = 100_000;
const CHANGES_PER_SECOND: u64 = 10;

/// What policy that allows adds to a packet of an established flow, and to the first one of a flow. A pod that is
/// isolated and one that is not ask the same server.
pub(crate) fn policy(bench: &Bench) -> Result<()> {
    let family = bench.family;
    let frame = |client, port, syn| family.frame_to(client, port, family.pod(0), 80, syn);
    let pods = [1, ALLOWED];
    for pod in pods {
        bench.expect(&frame(pod, 50_000, true), REDIRECT)?;
    }
    let mut established = [Vec::new(), Vec::new()];
    let mut new = [Vec::new(), Vec::new()];
    for (_, first) in (0..TURNS).zip((FIRST_PORT..).step_by(FLOWS.into())) {
        for (side, pod) in pods.into_iter().enumerate() {
            established[side].push(bench.in_a_row(&frame(pod, 50_000, false))?);
            let frames: Vec<_> = (first..first + FLOWS)
                .map(|port| frame(pod, port, true))
                .collect();
            new[side].push(bench.alone(&frames)?);
        }
    }
    let [plain, isolated] = established.map(median);
    bench.report_ratio("policy-established", [isolated, plain]);
    let [plain, isolated] = new.map(median);
    bench.report("policy-new-more", isolated - plain, isolated);
    Ok(())
}

/// Many flows while the sets of other pods change, and while nothing does.
pub(crate) fn changes(bench: &Bench) -> Result<()> {
    let family = bench.family;
    let live: Vec<_> = shuffled(flows()).into_iter().take(LIVE).collect();
    let frames: Vec<_> = live
        .iter()
        .map(|&(client, port)| family.frame(client, port, false))
        .collect();
    // Pods that take no part, so that their slots in the table of generations are others but by chance.
    let others: Vec<Slot> = (20_000..20_100)
        .map(|pod| Slot::of_address(&family.pod(pod)))
        .collect();
    let maps = &bench.datapath.maps;
    let (mut quiet, mut busy, mut again) = (Vec::new(), Vec::new(), 0);
    for _ in 0..TURNS.div_ceil(3) {
        quiet.push(bench.alone(&frames)?);
        let before = maps.counter(Counter::SlowPath)?;
        let over = AtomicBool::new(false);
        busy.push(thread::scope(|scope| {
            scope.spawn(|| keep_changing(maps, &others, &over));
            let measured = bench.alone(&frames);
            over.store(true, Ordering::Relaxed);
            measured
        })?);
        again += maps.counter(Counter::SlowPath)? - before;
    }
    bench.report_ratio(
        "established-100k-under-changes",
        [median(busy), median(quiet)],
    );
    let sent = LIVE * TURNS.div_ceil(3);
    anstream::eprintln!("    {again} of {sent} packets were decided again under changes of others");
    Ok(())
}

/// Changes a set that no flow depends on, as the executor does: its rows, then the generations of its pods.
fn keep_changing(maps: &Maps, others: &[Slot], over: &AtomicBool) -> Result<()> {
    for (slot, number) in others.iter().cycle().zip(0..) {
        if over.load(Ordering::Relaxed) {
            break;
        }
        put_rule(
            maps,
            PolicySet(9),
            weir_abi::Identity(30_000 + number % 1_000),
        )?;
        maps.bump(*slot)?;
        thread::park_timeout(Duration::from_millis(1_000 / CHANGES_PER_SECOND));
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
