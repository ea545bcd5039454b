// SPDX-License-Identifier: Apache-2.0
//! `netpol`: cases of `tests/netpol` with real containers, and policies that go through the API server.
//!
//! A state of a case holds when all its cells are right at two looks in a row: what the API server was told counts
//! within milliseconds, but nobody says when.

mod objects;
mod stage;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::place::Place;
use super::{select, up};
use crate::netpol::{Case, Cell, Expectation, ensure_right, load};
use crate::output;
use stage::{Probe, Stage};

/// So often a state is looked at until it is right twice in a row. A look at which something is denied takes some
/// seconds.
const LOOKS: usize = 6;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only cases whose id or name contains this
    filter: Option<String>,
    /// So many, drawn from those that can be replayed
    #[arg(long, value_name = "N", default_value_t = 40)]
    sample: usize,
    /// Repeats a drawing
    #[arg(long)]
    seed: Option<u64>,
}

/// Replays the cases; fails when one does.
pub(super) fn run(place: &Place, args: &Args) -> Result<()> {
    let start = Instant::now();
    let nodes = up::nodes_of(place)?;
    let cases = load(args.filter.as_deref())?;
    let mut fine = BTreeMap::new();
    let mut left_out: BTreeMap<&str, usize> = BTreeMap::new();
    for case in &cases {
        match objects::obstacle(case, nodes.into()) {
            None => drop(fine.insert(case.id.clone(), case)),
            Some(obstacle) => *left_out.entry(obstacle).or_default() += 1,
        }
    }
    output::say(format_args!(
        "{} of {} cases can be replayed on this cluster",
        fine.len(),
        cases.len()
    ));
    for (obstacle, count) in left_out {
        output::say(format_args!("    left out: {count} with {obstacle}"));
    }
    let seed = select::seed(args.seed)?;
    let mut drawn = select::draw(fine.keys().cloned().collect(), args.sample, seed);
    ensure!(!drawn.is_empty(), "no case matches");
    // Neighbours have most of their pods in common.
    drawn.sort();
    let drawn: Vec<&Case> = drawn.iter().map(|id| fine[id]).collect();
    output::step(format_args!(
        "{} of them; --seed {seed} draws the same ones",
        drawn.len()
    ));

    let (mut probes, mut failed) = (0, 0);
    let mut stage = Stage::new(place, nodes)?;
    let mut known = false;
    for case in &drawn {
        // What is there after a failure, or after a run that was cut off, is nobody's guess.
        if !known {
            stage.clear(&drawn)?;
        }
        let begin = Instant::now();
        let replayed = replay(&mut stage, case);
        known = replayed.is_ok();
        let (word, count) = match replayed {
            Ok(count) => ("passed", count),
            Err(error) => {
                output::error(&error);
                failed += 1;
                ("FAILED", 0)
            }
        };
        probes += count;
        let seconds = begin.elapsed().as_secs();
        output::data(format_args!(
            "{word:<8}{seconds:>4} s  {} {} ({count} connections, twice)",
            case.id, case.name
        ));
    }
    // After a failure of the last case it stays, to be looked at.
    if known {
        stage.clear(&drawn)?;
    }
    let cells: Vec<Cell> = drawn.iter().flat_map(|case| all_cells(case)).collect();
    let count = |is: fn(&Cell) -> bool| cells.iter().filter(|cell| is(cell)).count();
    output::say(format_args!(
        "{probes} connections in {} s; left out: {} cells over SCTP, {} from or to hosts that are no pods",
        start.elapsed().as_secs(),
        count(|cell| !is_spoken(cell)),
        count(|cell| is_spoken(cell) && !is_between_pods(cell)),
    ));
    output::data(format_args!(
        "{} passed, {failed} failed, 0 skipped",
        drawn.len() - failed
    ));
    if failed > 0 {
        bail!("{failed} cases failed");
    }
    Ok(())
}

/// Goes through the states of a case; the answer is the number of connections at each look.
fn replay(stage: &mut Stage<'_>, case: &Case) -> Result<usize> {
    let ports: Vec<u16> = all_cells(case)
        .iter()
        .filter(|cell| is_asked(cell))
        .map(|cell| cell.port)
        .collect();
    stage.become_like(case, &case.objects, &ports)?;
    let mut count = check(stage, case, "at first", &case.expect)?;
    for step in &case.steps {
        stage.become_like(case, &step.objects, &ports)?;
        count += check(stage, case, &step.name, &step.expect)?;
    }
    Ok(count)
}

fn check(stage: &Stage<'_>, case: &Case, state: &str, expect: &[Expectation]) -> Result<usize> {
    let cells: Vec<Cell> = expect.iter().flat_map(Expectation::cells).collect();
    let probes: Vec<Probe<'_>> = cells
        .iter()
        .filter(|cell| is_asked(cell))
        .flat_map(|cell| cell.families().map(move |family| Probe { cell, family }))
        .collect();
    let mut wrong = Vec::new();
    let mut right = 0;
    for _ in 0..LOOKS {
        let answers = stage.look(&probes)?;
        let complaints: Vec<String> = probes
            .iter()
            .zip(&answers)
            .filter_map(|(probe, answer)| probe.cell.complaint(probe, answer))
            .collect();
        right = if complaints.is_empty() { right + 1 } else { 0 };
        if right == 2 {
            return Ok(probes.len());
        }
        if !complaints.is_empty() {
            wrong = complaints;
        }
    }
    let what = format!("connections of {} `{}` {state}", case.id, case.name);
    ensure_right(&wrong, probes.len(), &what)?;
    Ok(probes.len())
}

fn all_cells(case: &Case) -> Vec<Cell> {
    let steps = case.steps.iter().flat_map(|step| &step.expect);
    let tables = case.expect.iter().chain(steps);
    tables.flat_map(Expectation::cells).collect()
}

fn is_asked(cell: &Cell) -> bool {
    is_spoken(cell) && is_between_pods(cell)
}

/// Kernels have no SCTP sockets as a rule.
fn is_spoken(cell: &Cell) -> bool {
    matches!(cell.protocol.as_str(), "tcp" | "udp")
}

/// Hosts outside have no route to pods; `ip:` and `node:` name who is none.
fn is_between_pods(cell: &Cell) -> bool {
    !cell.from.contains(':') && !cell.to.contains(':')
}
