// SPDX-License-Identifier: Apache-2.0
//! Whom a kill hits: the process is one of this cluster, found below process 1 of its node, or recorded by `up`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::Result;

use crate::cluster::control_plane;
use crate::cluster::network::inside;
use crate::cluster::place::{Node, Place};
use crate::cluster::processes::{Process, run, wait_for};
use crate::process::{command, stdout_of};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Victim {
    Agent(Node),
    Kubelet(Node),
    Containerd(Node),
    ApiServer,
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(node) => write!(f, "the agent of {node}"),
            Self::Kubelet(node) => write!(f, "the kubelet of {node}"),
            Self::Containerd(node) => write!(f, "containerd of {node}"),
            Self::ApiServer => f.write_str("the API server"),
        }
    }
}

/// A process of the machine, as the kernel lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Listed {
    name: String,
    parent: u32,
}

impl Victim {
    /// Of ten kills, four hit an agent and two each of the others.
    pub(super) fn draw(nodes: &[Node], random: u64) -> Self {
        let part = |of: u64| usize::try_from(of).unwrap_or_default();
        // From other digits than the kind.
        let node = nodes[part(random / 10) % nodes.len()];
        match random % 10 {
            0..=3 => Self::Agent(node),
            4 | 5 => Self::Kubelet(node),
            6 | 7 => Self::Containerd(node),
            _ => Self::ApiServer,
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::Kubelet(_) => "kubelet",
            Self::Containerd(_) => "containerd",
            Self::ApiServer => "API server",
        }
    }

    /// The process, when it runs.
    pub(super) fn find(self, place: &Place) -> Option<Process> {
        let (node, name) = match self {
            Self::Agent(node) => (node, "weir"),
            Self::Kubelet(node) => (node, "kubelet"),
            Self::Containerd(node) => (node, "containerd"),
            Self::ApiServer => {
                let process = Process::recorded(place, control_plane::API_SERVER_NAME).ok()?;
                return process.lives().then_some(process);
            }
        };
        let first = Process::recorded(place, &node.to_string()).ok()?;
        let all = list();
        let found = below(&all, first.id, name)
            .into_iter()
            .find(|id| self != Self::Agent(node) || is_agent(*id))?;
        Process::of(found).ok()
    }

    /// Ends it; starts again who is not started by anybody else.
    pub(super) fn kill(self, place: &Place, process: Process) -> Result<()> {
        if process.lives() {
            // Whoever ended by itself meanwhile is as good as killed.
            let _ = run(command("kill").args(["-KILL", "--", &process.id.to_string()]));
        }
        match self {
            Self::ApiServer => {
                // Its threads end one after the other, and hold its port until the last has.
                wait_for("the API server's port to be free", 30, || {
                    let mut listeners = inside(place, "control", "ss");
                    listeners.args(["-Hltn", "sport = :6443"]);
                    stdout_of(&mut listeners).is_ok_and(|found| found.is_empty())
                })?;
                control_plane::launch_api_server(place)
            }
            Self::Agent(_) | Self::Kubelet(_) | Self::Containerd(_) => Ok(()),
        }
    }
}

/// The agent is not the only one whose program is `weir`.
fn is_agent(id: u32) -> bool {
    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"agent")
}

/// Every process of the machine.
fn list() -> BTreeMap<u32, Listed> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((id, parse(&stat)?))
        })
        .collect()
}

/// `7 (name) S 1 ...`; none for one that has ended.
fn parse(stat: &str) -> Option<Listed> {
    let (start, rest) = stat.rsplit_once(") ")?;
    let (_, name) = start.split_once(" (")?;
    let mut fields = rest.split(' ');
    let alive = fields.next()? != "Z";
    alive.then_some(Listed {
        name: name.to_owned(),
        parent: fields.next()?.parse().ok()?,
    })
}

/// Those of that name that descend from a process; the nearest first. What one of them forks has its name until it has
/// become something else.
fn below(all: &BTreeMap<u32, Listed>, first: u32, name: &str) -> Vec<u32> {
    let depth = |id: u32| {
        let (mut at, mut depth) = (id, 0);
        while at != first {
            at = all.get(&at).filter(|_| at > 1)?.parent;
            depth += 1;
        }
        Some(depth)
    };
    let named = all.iter().filter(|(_, one)| one.name == name);
    let mut found: Vec<(u32, u32)> = named
        .filter_map(|(id, _)| Some((depth(*id)?, *id)))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descendants_of_that_name_are_found() {
        let process = |name: &str, parent| Listed {
            name: name.to_owned(),
            parent,
        };
        let all = BTreeMap::from([
            (1, process("init", 0)),
            (5, process("bash", 1)),
            (6, process("bash", 5)),
            (9, process("kubelet", 6)),
            (7, process("kubelet", 9)),
            (10, process("kubelet", 1)),
            (11, process("containerd", 6)),
        ]);
        assert_eq!(below(&all, 5, "kubelet"), [9, 7]);
        assert_eq!(below(&all, 6, "containerd"), [11]);
        assert_eq!(below(&all, 9, "containerd"), Vec::<u32>::new());
    }

    #[test]
    fn names_with_brackets_are_read() {
        let found = parse("12 (a (b) c) S 3 4").unwrap();
        assert_eq!((found.name.as_str(), found.parent), ("a (b) c", 3));
        assert_eq!(parse("12 (a) Z 3 4"), None);
    }

    #[test]
    fn every_kind_is_drawn() {
        let nodes: Vec<Node> = Node::all(2).collect();
        let kinds: Vec<_> = [0, 4, 6, 8]
            .map(|random| Victim::draw(&nodes, random).kind())
            .to_vec();
        assert_eq!(kinds, ["agent", "kubelet", "containerd", "API server"]);
        assert_eq!(Victim::draw(&nodes, 10), Victim::Agent(nodes[1]));
    }
}
