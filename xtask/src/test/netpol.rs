// SPDX-License-Identifier: Apache-2.0
//! Every case of `tests/netpol` with real packets: a lab takes the case's objects, and each cell of its table is a new
//! connection.
//!
//! Pods have two addresses, so that each state is probed over both families. The usual run goes through every case
//! once, half of them in a lab with tunnels and half in one with native routing, asking pods by their own addresses and
//! by a service in turn; `--full` goes through all cases in all ways. Cases of many steps run a second time with the
//! agents started anew between the steps.

mod lab;
mod twin;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::runner::Tally;
use crate::netpol::{Case, Cell, Expectation, ensure_right, load};
use crate::output;
use lab::{Lab, Probe};

/// A cell that shall not be answered is given up after so long; the echo server answers within a few milliseconds.
const DENIED_MS: u32 = 450;
/// One that shall be answered may take this long on a busy machine.
const ALLOWED_MS: u32 = 5000;

/// How the destination of a cell is named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// By the pod's own address.
    Address,
    /// By the cluster IP of a service that has this pod alone.
    Service,
}

/// Of so many cases one is traced; odd, because even and odd cases run in different variants.
const TRACED: usize = 3;

/// How a case is run.
#[derive(Clone, Debug)]
struct Variant {
    routing: &'static str,
    ways: Vec<Way>,
    restart: bool,
    /// `weir trace` must say what the packets do.
    traced: bool,
}

impl Variant {
    fn words(&self) -> String {
        let ways: Vec<&str> = self
            .ways
            .iter()
            .map(|way| match way {
                Way::Address => "by address",
                Way::Service => "by service",
            })
            .collect();
        let restart = if self.restart { ", restarts" } else { "" };
        format!("{}, {}{restart}", self.routing, ways.join(" and "))
    }
}

/// Runs the cases whose id or name contains the filter.
pub(super) fn run(
    weir: &Path,
    full: bool,
    trace: bool,
    filter: Option<&str>,
    tally: &mut Tally,
) -> Result<()> {
    let cases = load(filter)?;
    output::step(format_args!("{} policy cases (as root)", cases.len()));
    for routing in ["tunnel", "native"] {
        let runs: Vec<(&Case, Variant)> = cases
            .iter()
            .enumerate()
            .flat_map(|(number, case)| {
                variants(number, case, routing, full)
                    .into_iter()
                    .map(move |variant| (number, variant))
                    .map(move |(number, variant)| {
                        let traced = trace && number.is_multiple_of(TRACED);
                        (case, Variant { traced, ..variant })
                    })
            })
            .collect();
        let Some((first, _)) = runs.first() else {
            continue;
        };
        let mut lab = Lab::up(weir, routing, first)?;
        for (case, variant) in &runs {
            let begin = Instant::now();
            let result = replay(&mut lab, case, variant);
            let name = format!("{} ({})", case.id, variant.words());
            match &result {
                Ok(cells) => output::data(format_args!(
                    "ok {name}: {cells} cells in {} ms",
                    begin.elapsed().as_millis()
                )),
                Err(_) => output::data(format_args!("FAILED {name}")),
            }
            tally.check(&name, result.map(drop));
        }
    }
    Ok(())
}

/// The ways in which a case is run in the lab of a routing mode.
fn variants(number: usize, case: &Case, routing: &'static str, full: bool) -> Vec<Variant> {
    let turn = if number.is_multiple_of(2) {
        "tunnel"
    } else {
        "native"
    };
    if !full && turn != routing {
        return Vec::new();
    }
    let ways = match (full, (number / 2).is_multiple_of(2)) {
        (true, _) => vec![Way::Address, Way::Service],
        (false, true) => vec![Way::Address],
        (false, false) => vec![Way::Service],
    };
    let plain = Variant {
        routing,
        ways,
        restart: false,
        traced: false,
    };
    let mut variants = vec![plain.clone()];
    if !case.steps.is_empty() {
        variants.push(Variant {
            restart: true,
            ..plain
        });
    }
    variants
}

/// Goes through the states of a case; the answer is the number of cells.
fn replay(lab: &mut Lab, case: &Case, variant: &Variant) -> Result<usize> {
    lab.become_like(&case.objects)?;
    let mut cells = check(lab, case, variant, "at first", &case.expect)?;
    for step in &case.steps {
        if variant.restart {
            lab.restart_agents()?;
        }
        lab.become_like(&step.objects)?;
        cells += check(lab, case, variant, &step.name, &step.expect)?;
    }
    Ok(cells)
}

fn check(
    lab: &Lab,
    case: &Case,
    variant: &Variant,
    state: &str,
    expect: &[Expectation],
) -> Result<usize> {
    let cells: Vec<Cell> = expect.iter().flat_map(Expectation::cells).collect();
    let mut asked: Vec<&Cell> = Vec::new();
    let mut probes: Vec<Probe> = Vec::new();
    for cell in &cells {
        if !lab.speaks(&cell.protocol) {
            continue;
        }
        for family in cell.families() {
            let mut ways = variant.ways.clone();
            // A service is for pods, and none of them stands outside.
            if cell.from.contains(':') || cell.to.contains(':') {
                ways = vec![Way::Address];
            }
            for way in ways {
                let limit = if cell.allowed { ALLOWED_MS } else { DENIED_MS };
                asked.push(cell);
                probes.push(Probe::new(cell, family, way == Way::Service, limit));
            }
        }
    }
    let answers = lab
        .probe(&probes)
        .with_context(|| format!("{} {state}", case.id))?;
    let wrong: Vec<String> = asked
        .iter()
        .zip(probes.iter().zip(&answers))
        .filter_map(|(cell, (probe, answer))| cell.complaint(probe, answer))
        .collect();
    let what = || format!("{} `{}` {state}", case.id, case.name);
    ensure_right(&wrong, probes.len(), "cells").with_context(what)?;
    if variant.traced {
        compare_traces(lab, &asked, &probes).with_context(what)?;
    }
    Ok(probes.len())
}

/// What is said without a packet must be what became of the packets.
fn compare_traces(lab: &Lab, asked: &[&Cell], probes: &[Probe]) -> Result<()> {
    let mut wrong = Vec::new();
    for family in [4, 6] {
        let cells = asked.iter().zip(probes);
        let cells: Vec<_> = cells
            .filter(|(_, probe)| probe.family() == family)
            .collect();
        let questions: Vec<String> = cells.iter().map(|(_, probe)| probe.question()).collect();
        let said = lab.trace(family, &questions)?;
        for ((cell, probe), said) in cells.iter().zip(said) {
            if said["verdict"] != if cell.allowed { "allowed" } else { "denied" } {
                wrong.push(format!("  {probe}: the trace says {said}"));
            }
        }
    }
    ensure_right(&wrong, probes.len(), "traces")
}
