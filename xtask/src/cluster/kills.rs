// SPDX-License-Identifier: Apache-2.0
//! `kills`: agents, kubelets, containerds and the API server end by SIGKILL, at random, while pods come and go. Pods that
//! stay must not notice; afterwards every node holds exactly what it should.

mod after;
mod churn;
mod talk;
mod victim;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use weir_api::path;
use weir_api::status::Status;

use super::checks::Checks;
use super::place::{Node, Place};
use super::pods;
use super::processes::wait_for;
use super::remains::{self, Before};
use super::select::{self, next};
use super::up::nodes_of;
use crate::output;
use after::{changed, connect_anew, recover, remove_churn};
use churn::Churn;
use talk::Finding;
use victim::Victim;

const NAMESPACE: &str = "kills";
const READY_SECONDS: u64 = 300;
/// For a process that was killed to be there again: whoever starts it may have been killed as well.
const BACK_SECONDS: u64 = 180;
const SETTLED_SECONDS: u64 = 300;
/// From one kill to the next, at most.
const LONGEST_PAUSE: u64 = 4_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many processes are killed
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// The same seed chooses the same processes and pauses [default: the time]
    #[arg(long)]
    seed: Option<u64>,
}

/// A kill that was done.
#[derive(Clone, Debug)]
struct Kill {
    /// Milliseconds since 1970, as the pods that talk write them.
    at: u64,
    number: u32,
    victim: Victim,
}

pub(super) fn run(place: &Place, args: &Args) -> Result<()> {
    let nodes: Vec<Node> = Node::all(nodes_of(place)?).collect();
    ensure!(nodes.len() > 1, "pods talk across nodes, and there is one");
    let seed = select::seed(args.seed)?;
    output::step(format_args!("{} kills; --seed {seed}", args.kills));
    pods::make_namespace(place, NAMESPACE)?;
    let talkers = talk::start(place, &nodes)?;
    let before = Before::at_rest(place, SETTLED_SECONDS)?;
    let drops = nodes
        .iter()
        .map(|node| remains::drops(place, *node))
        .collect::<Result<Vec<_>>>()?;

    let churn = Churn::start(place, &nodes);
    let start = Instant::now();
    let killed = kill_many(place, &nodes, args.kills, seed);
    let took = start.elapsed();
    let churned = churn.stop();
    let kills = killed?;
    output::data(format_args!(
        "seed {seed}: {} in {} s; {churned}",
        tally(&kills),
        took.as_secs()
    ));

    let mut checks = Checks::of("kills");
    let mut check = |what: &str, problems: Result<Vec<String>>| {
        let problems = problems.map(|found| {
            let blame = |problem| format!("{problem} (--seed {seed})");
            found.into_iter().map(blame).collect()
        });
        checks.check(what, problems);
    };
    let start = Instant::now();
    check("the cluster recovers", recover(place));
    check(
        "pods that came and went have left nothing, and rows are as desired",
        remove_churn(place, &before),
    );
    output::data(format_args!(
        "settled {:.1} s after the last kill",
        start.elapsed().as_secs_f64()
    ));
    check(
        "`weir service update` finds nothing to repair",
        remains::compare_services(place),
    );
    check(
        "pods that stayed are the same",
        pods::pods(place, Some(NAMESPACE)).map(|now| changed(&talkers, &now)),
    );
    let said = talk::read(place, &nodes, &talkers, now()?)?;
    output::data(&said.summary);
    for gap in &said.gaps {
        output::data(format_args!("    longest gap of {}", blame(gap, &kills)));
    }
    check(
        "their connections lived on, and new ones were made at any time",
        Ok(said
            .findings
            .iter()
            .map(|found| blame(found, &kills))
            .collect()),
    );
    check(
        "new pods of both nodes reach each other",
        connect_anew(place, &nodes),
    );
    check("nothing is left of them", remove_churn(place, &before));
    for (node, before) in nodes.into_iter().zip(drops) {
        let status: Status = remains::agent(place, node)?.get(path::STATUS)?;
        let dropped = new_drops(&before, &remains::drops(place, node)?);
        output::data(format_args!(
            "{node}: the agent that runs now has repaired {} rows, links and routes; dropped packets: {dropped}",
            status.repairs
        ));
    }
    pods::remove_namespace(place, NAMESPACE)?;
    checks.close()
}

/// `2 No route, 1 Unknown source`
fn new_drops(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> String {
    let more = now.iter().filter_map(|(reason, packets)| {
        let earlier = before.get(reason).copied().unwrap_or_default();
        let more = packets.saturating_sub(earlier);
        (more > 0).then(|| format!("{more} {reason}"))
    });
    let more: Vec<String> = more.collect();
    if more.is_empty() {
        "none".to_owned()
    } else {
        more.join(", ")
    }
}

/// Milliseconds since 1970.
fn now() -> Result<u64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock stands before 1970")?;
    u64::try_from(now.as_millis()).context("the clock stands too late")
}

fn kill_many(place: &Place, nodes: &[Node], count: u32, seed: u64) -> Result<Vec<Kill>> {
    let mut state = seed;
    let mut kills = Vec::new();
    for number in 1..=count {
        let victim = Victim::draw(nodes, next(&mut state));
        let pause = Duration::from_millis(next(&mut state) % LONGEST_PAUSE);
        let start = Instant::now();
        wait_for("the next kill", 60, || start.elapsed() >= pause)?;
        let mut process = None;
        wait_for(
            &format!("{victim} to run, before kill {number} of --seed {seed}"),
            BACK_SECONDS,
            || {
                process = victim.find(place);
                process.is_some()
            },
        )?;
        let process = process.context("no process was found")?;
        kills.push(Kill {
            at: now()?,
            number,
            victim,
        });
        victim.kill(place, process)?;
        output::say(format_args!("    {number}: {victim}"));
    }
    Ok(kills)
}

/// `40 agents, 20 kubelets, ...`
fn tally(kills: &[Kill]) -> String {
    let mut counts = BTreeMap::<&str, u32>::new();
    for kill in kills {
        *counts.entry(kill.victim.kind()).or_default() += 1;
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    format!("killed {} times ({})", kills.len(), parts.join(", "))
}

/// The finding with the kill that came before it.
fn blame(finding: &Finding, kills: &[Kill]) -> String {
    let last = kills.iter().rev().find(|kill| kill.at <= finding.at);
    let after = last.map_or("before the first kill".to_owned(), |kill| {
        let later = finding.at - kill.at;
        format!("{later} ms after kill {}, {}", kill.number, kill.victim)
    });
    format!("{}: {after}", finding.what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_drops_are_told() {
        let counts = |unknown| BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), unknown)]);
        assert_eq!(new_drops(&counts(1), &counts(1)), "none");
        assert_eq!(new_drops(&counts(1), &counts(4)), "3 b");
    }

    #[test]
    fn a_finding_names_the_kill_before_it() {
        let kill = |at, number| Kill {
            at,
            number,
            victim: Victim::ApiServer,
        };
        let kills = [kill(100, 1), kill(200, 2)];
        let finding = |at| Finding {
            at,
            what: "lost".to_owned(),
        };
        assert_eq!(
            blame(&finding(150), &kills),
            "lost: 50 ms after kill 1, the API server"
        );
        assert_eq!(blame(&finding(50), &kills), "lost: before the first kill");
    }
}
