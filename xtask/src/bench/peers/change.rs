// SPDX-License-Identifier: Apache-2.0
//! How long a change of a service takes from the API server to the first connection that it decides.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::feed;
use super::objects::Half;
use super::pods::Pod;
use super::side::{Kind, Side, Still};
use super::source::Source;
use crate::process::display;

/// Longer than kube-proxy waits after it has written rules, before it writes some again.
const REST: Duration = Duration::from_millis(1500);

/// Ticks, of which there are a hundred in a second, that a program at rest may take in that time.
const IDLE: u64 = 6;

/// The longest that a side may take to come to rest, or to do what the objects say. The rules of ten thousand services take
/// minutes to be written for the first time.
const PATIENCE: Duration = Duration::from_mins(15);

/// What changes took, in seconds.
#[derive(Debug)]
pub(super) struct Changes {
    /// For each kind of side, from the request to the first connection that reaches another backend.
    pub(super) took: Vec<(Kind, Vec<f64>)>,
    /// Until the API server had answered, or the rules or the folder were written.
    pub(super) written: Vec<f64>,
}

/// Replaces the backends of a service, again and again; each change is one side's, in turns.
pub(super) fn measure(
    source: &Source,
    sides: &[Side],
    service: u32,
    rounds: u32,
) -> Result<Changes> {
    let mut changes = Changes {
        took: sides.iter().map(|side| (side.kind, Vec::new())).collect(),
        written: Vec::new(),
    };
    // From all the backends to half of them: this one is not counted.
    let mut half = Half::First;
    let first = sides.first().context("there is no side")?;
    feed::change(source, first, service, half)?;
    feed::follow(source, first.kind, sides, service, half)?;
    // The first round is one of getting used to it.
    for round in 0..=rounds {
        for (side, (_, took)) in sides.iter().zip(&mut changes.took) {
            for one in sides {
                Watch::start(one, service)?.wait_for(half, PATIENCE)?;
            }
            rest(sides)?;
            let _still = Still::but(side.kind, sides)?;
            let watch = Watch::start(side, service)?;
            watch.wait_for(half, PATIENCE)?;
            half = half.other();
            let begun = Instant::now();
            feed::change(source, side, service, half)?;
            let written = begun.elapsed();
            let effect = watch.wait_for(half, PATIENCE)?;
            feed::follow(source, side.kind, sides, service, half)?;
            if round > 0 {
                changes.written.push(written.as_secs_f64());
                took.push(effect.duration_since(begun).as_secs_f64());
            }
        }
    }
    Ok(changes)
}

/// Waits until every side leads the connections of a service to its backends.
pub(super) fn reached(sides: &[Side], service: u32) -> Result<()> {
    sides
        .iter()
        .try_for_each(|side| Watch::start(side, service)?.next(PATIENCE).map(drop))
}

/// Waits until no side has anything left to do.
pub(super) fn rest(sides: &[Side]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let work = || sides.iter().map(Side::work).collect::<Result<Vec<_>>>();
    let mut before = work()?;
    while Instant::now() < deadline {
        pause(REST);
        let now = work()?;
        let at_rest = before
            .iter()
            .zip(&now)
            .all(|((before, helped), (now, helped_now))| {
                !helped && !helped_now && now - before <= IDLE
            });
        if at_rest {
            return Ok(());
        }
        before = now;
    }
    bail!("the programs of the sides did not come to rest")
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing having happened for that long is the condition"
)]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// A client that says who answers, from now until this is dropped.
#[derive(Debug)]
struct Watch {
    child: Child,
    said: Receiver<(Instant, String)>,
    side: Kind,
}

impl Watch {
    fn start(side: &Side, service: u32) -> Result<Self> {
        let mut client = side.ask(Pod::Watcher, "watch", service)?;
        client.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = client
            .spawn()
            .with_context(|| format!("cannot start `{}`", display(&client)))?;
        let output = child.stdout.take().context("the client has no output")?;
        let (tell, said) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if tell.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            said,
            side: side.kind,
        })
    }

    /// When another name was said.
    fn next(&self, patience: Duration) -> Result<(Instant, String)> {
        self.said.recv_timeout(patience).with_context(|| {
            format!(
                "{:?}: nobody answers at the address of the service",
                self.side
            )
        })
    }

    /// When one of that half answered first.
    fn wait_for(&self, half: Half, patience: Duration) -> Result<Instant> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (when, name) = self.next(left)?;
            if name == half.name() {
                return Ok(when);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
