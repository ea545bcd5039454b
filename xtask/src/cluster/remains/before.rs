// SPDX-License-Identifier: Apache-2.0
//! How many there were of everything, and how many there are now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, ensure};
use weir_abi::map;

use super::{agent, names_in, root, rows, strays};
use crate::cluster::checks::until_none;
use crate::cluster::network::inside;
use crate::cluster::place::{Node, Place};
use crate::cluster::up::nodes_of;
use crate::process::stdout_of;

/// What there was of everything, in numbers, on each node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::cluster) struct Before(BTreeMap<String, Counts>);

type Counts = BTreeMap<String, usize>;

impl Before {
    /// Counts what there is now.
    fn take(place: &Place) -> Result<Self> {
        let nodes = Node::all(nodes_of(place)?);
        nodes
            .map(|node| Ok((node.to_string(), count(place, node)?)))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Waits until every node holds what it should, and counts then.
    pub(in crate::cluster) fn at_rest(place: &Place, seconds: u64) -> Result<Self> {
        let found = until_none("the cluster to be at rest", seconds, || strays(place))?;
        ensure!(
            found.is_empty(),
            "the cluster is not at rest: {}",
            found.join("; ")
        );
        Self::take(place)
    }

    /// What is not as it was; with everything of [`strays`].
    pub(in crate::cluster) fn differences(&self, place: &Place) -> Result<Vec<String>> {
        let mut found = strays(place)?;
        if found.is_empty() {
            found = self.compare(&Self::take(place)?);
        }
        Ok(found)
    }

    fn compare(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (node, before) in &self.0 {
            let none = Counts::new();
            let now = now.0.get(node).unwrap_or(&none);
            let kinds: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
            for kind in kinds {
                let number = |counts: &Counts| counts.get(kind).copied().unwrap_or_default();
                let (before, now) = (number(before), number(now));
                if before != now {
                    found.push(format!("{node}: {now} {kind}, and {before} before"));
                }
            }
        }
        found
    }
}

/// Numbers that pods must not leave greater than they were.
fn count(place: &Place, node: Node) -> Result<Counts> {
    let root = root(place, node)?;
    let agent = agent(place, node)?;
    let mut counts = Counts::new();
    for map in map::ALL.iter().filter(|map| map.pinned) {
        let rows = rows(&agent, map.name)?;
        let owned = rows.iter().filter(|row| row.state != "dynamic").count();
        counts.insert(format!("rows of map {}", map.name), owned);
    }
    for (kind, arguments) in [
        ("links", "-oneline link"),
        ("addresses of links", "-oneline address"),
        ("routes", "-4 route show table all"),
        ("routes over IPv6", "-6 route show table all"),
        ("neighbours that stay", "neighbour show nud permanent"),
    ] {
        let lines = stdout_of(inside(place, node, "ip").args(arguments.split(' ')))?;
        counts.insert(kind.to_owned(), lines.lines().count());
    }
    for (kind, folder) in [
        ("network namespaces", "run/netns"),
        ("pinned objects", "sys/fs/bpf"),
    ] {
        counts.insert(kind.to_owned(), count_files(&root.join(folder))?);
    }
    // Some of the agent's own files come with the node's first pod, and hold what is counted above; what else is there was
    // to become one of them.
    let files = names_in(&root.join("var/lib/weir"))?;
    let torn = files
        .iter()
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "new"));
    counts.insert("torn files of the agent".to_owned(), torn.count());
    Ok(counts)
}

fn count_files(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for name in names_in(folder)? {
        let entry = folder.join(name);
        if entry.is_dir() {
            count += count_files(&entry)?;
        } else {
            count += 1;
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_must_be_the_same_again() {
        let of = |links| {
            let counts = Counts::from([("links".to_owned(), links), ("routes".to_owned(), 5)]);
            Before(BTreeMap::from([("node1".to_owned(), counts)]))
        };
        assert_eq!(of(2).compare(&of(2)), Vec::<String>::new());
        assert_eq!(of(2).compare(&of(3)), ["node1: 3 links, and 2 before"]);
    }
}
