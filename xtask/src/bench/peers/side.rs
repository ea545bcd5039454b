// SPDX-License-Identifier: Apache-2.0
//! One side of the comparison: a node, what translates services on it, and its client.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::kube_proxy::Ranked;
use super::objects::{self, PORT, address};
use super::pods::{self, Pod};
use super::rules::Script;
use super::source::{Objects, Source};
use super::{kube_proxy, weir};
use crate::bench::Family;
use crate::bench::node::resident_mib;
use crate::cluster::network::inside;
use crate::cluster::place::{Node, Place};
use crate::cluster::processes::{Process, run};
use crate::process::{self, command};

/// What translates services.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Iptables,
    Nftables,
    Weir,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Iptables, Self::Nftables, Self::Weir];
}

/// A node that is measured.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) kind: Kind,
    place: Place,
    node: Node,
    family: Family,
    /// Where Weir translates sockets.
    group: Option<PathBuf>,
    /// kube-proxy, or Weir's agent; none where the rules are written by this program.
    program: Option<Process>,
    traffic: PathBuf,
}

impl Side {
    /// Builds a node; `number` is its place among the nodes from 1 on.
    pub(super) fn up(
        kind: Kind,
        (node, number): (Node, usize),
        place: &Place,
        source: &Source,
        (traffic, weir): (&Path, &Path),
    ) -> Result<Self> {
        source.add_node(&objects::node(node, number))?;
        pods::make(place, node)?;
        let proxy = |mode: &str| {
            pods::link(place, node, source.family)?;
            Ok::<_, anyhow::Error>(match source.objects {
                Objects::Server(_) => Some(kube_proxy::start_proxy(place, node, mode)?),
                Objects::Folder(_) => None,
            })
        };
        let (group, program) = match kind {
            Kind::Iptables => (None, proxy("iptables")?),
            Kind::Nftables => (None, proxy("nftables")?),
            Kind::Weir => {
                let group = weir::make_group(place, node)?;
                let agent = weir::start_agent(place, source, node, &group, weir)?;
                (Some(group), Some(agent))
            }
        };
        pods::serve(place, node, source.family, group.as_deref(), traffic)?;
        Ok(Self {
            kind,
            place: place.clone(),
            node,
            family: source.family,
            group,
            program,
            traffic: traffic.to_owned(),
        })
    }

    /// One of the node's clients, about to do something with a service.
    pub(super) fn ask(&self, client: Pod, what: &str, service: u32) -> Result<Command> {
        let mut command =
            client.run(&self.place, self.node, self.group.as_deref(), &self.traffic)?;
        let service = SocketAddr::new(address(self.family, service), PORT);
        command.args(["traffic", what, &service.to_string()]);
        Ok(command)
    }

    /// Where the services are in the rules of iptables, on the node that has such.
    pub(super) fn last_service(&self, last: u32) -> Result<Ranked> {
        kube_proxy::last_service(&self.place, self.node, self.family, last)
    }

    /// Loads rules of its kind; a node with Weir has none.
    pub(super) fn write_rules(&self, rules: impl FnOnce(Kind) -> Vec<Script>) -> Result<()> {
        rules(self.kind).into_iter().try_for_each(|script| {
            let mut load = inside(&self.place, self.node, script.program);
            process::feed(load.args(script.arguments), &script.text).map(drop)
        })
    }

    /// MiB of memory that its program holds; none without a program.
    pub(super) fn memory(&self) -> Result<Option<f64>> {
        self.program
            .map(|program| resident_mib(&folder(program)))
            .transpose()
    }

    /// How much its program has done so far, in ticks, and whether a program that it has started is at work.
    pub(super) fn work(&self) -> Result<(u64, bool)> {
        let Some(program) = self.program else {
            return Ok((0, false));
        };
        let folder = folder(program);
        let stat = fs::read_to_string(folder.join("stat"))
            .with_context(|| format!("{:?}: its program has ended", self.kind))?;
        let ticks = ticks(&stat).context("no times in /proc/PID/stat")?;
        let threads = fs::read_dir(folder.join("task")).context("no threads in /proc/PID/task")?;
        let helped = threads.flatten().any(|thread| {
            fs::read_to_string(thread.path().join("children"))
                .is_ok_and(|children| !children.trim().is_empty())
        });
        Ok((ticks, helped))
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let Some(program) = self.program else {
            return Ok(());
        };
        run(command("kill").args([signal, &program.id.to_string()]))
    }
}

fn folder(program: Process) -> PathBuf {
    PathBuf::from(format!("/proc/{}", program.id))
}

/// Ticks that a process and the children that it has buried have run.
fn ticks(stat: &str) -> Option<u64> {
    // The name, in brackets, may hold anything.
    let fields = stat.rsplit_once(") ")?.1.split(' ');
    fields
        .skip(11)
        .take(4)
        .map(|one| one.parse::<u64>().ok())
        .sum()
}

/// While this lives, the programs of some sides stand still and take nothing from whatever else is at work.
#[derive(Debug)]
pub(super) struct Still<'a>(Vec<&'a Side>);

impl<'a> Still<'a> {
    /// It is the turn of that kind of side.
    pub(super) fn but(kind: Kind, sides: &'a [Side]) -> Result<Self> {
        let still = Self(sides.iter().filter(|side| side.kind != kind).collect());
        still.0.iter().try_for_each(|side| side.signal("-STOP"))?;
        Ok(still)
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        for side in &self.0 {
            // Who has ended meanwhile needs no signal, and is told of where it is missed.
            let _ = side.signal("-CONT");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_of_children_counts() {
        let stat = "42 (kube proxy) x) S 1 2 3 4 5 6 7 8 9 10 30 12 100 8 20 0 1";
        assert_eq!(ticks(stat), Some(150));
    }
}
