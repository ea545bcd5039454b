// SPDX-License-Identifier: Apache-2.0
//! Which crate may depend on which. The purity line of ARCHITECTURE.md, checked over the whole dependency tree.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::{cargo, stdout_of};
use crate::workspace;

/// Crates that compute and nothing else: no I/O, no clock, no randomness, no kernel.
pub(super) const PURE: [&str; 6] = [
    "weir-abi",
    "weir-packet",
    "weir-verdict",
    "weir-model",
    "weir-compile",
    "weir-diagnose",
];

/// What a pure crate must not reach, not even through another crate.
const IMPURE: [&str; 16] = [
    "aya",
    "axum",
    "getrandom",
    "hyper",
    "k8s-openapi",
    "kube",
    "libc",
    "mio",
    "netlink-sys",
    "nix",
    "notify",
    "rand",
    "rtnetlink",
    "socket2",
    "tokio",
    "tracing-subscriber",
];

/// Crates that only these may name themselves: a change of their interface must stay in one place.
const OWNED: [(&str, &[&str]); 5] = [
    ("aya", &["weir-datapath"]),
    ("rtnetlink", &["weir-net"]),
    ("netlink-packet-route", &["weir-net"]),
    ("k8s-openapi", &["weir-cluster"]),
    ("kube", &["weir-cluster"]),
];

/// Package -> the packages it is built with (not those of its tests).
type Graph = BTreeMap<String, BTreeSet<String>>;

pub(super) fn check() -> Result<Vec<String>> {
    let metadata = stdout_of(
        cargo()
            .args(["metadata", "--format-version=1", "--locked"])
            .current_dir(workspace::root()),
    )?;
    let metadata: Value =
        serde_json::from_str(&metadata).context("`cargo metadata` is not JSON")?;
    Ok(problems(&graph(&metadata)))
}

fn problems(graph: &Graph) -> Vec<String> {
    let mut problems = Vec::new();
    for pure in PURE {
        let Some(direct) = graph.get(pure) else {
            continue;
        };
        for own in direct
            .iter()
            .filter(|name| name.starts_with("weir-") && !PURE.contains(&name.as_str()))
        {
            problems.push(format!(
                "{pure} is pure and must not depend on {own}, which is not"
            ));
        }
        for (impure, via) in reached(graph, pure) {
            if IMPURE.contains(&impure) {
                problems.push(format!(
                    "{pure} is pure and must not reach {impure} (through {via})"
                ));
            }
        }
    }
    for (dependency, owners) in OWNED {
        for (package, direct) in graph
            .iter()
            .filter(|(package, _)| package.starts_with("weir-"))
        {
            if direct.contains(dependency) && !owners.contains(&package.as_str()) {
                problems.push(format!(
                    "{package} must not name {dependency}: only {} does",
                    owners.join(", ")
                ));
            }
        }
    }
    problems
}

/// Everything below a package, each with the direct dependency that leads there.
fn reached<'a>(graph: &'a Graph, from: &str) -> BTreeMap<&'a str, &'a str> {
    let mut reached = BTreeMap::new();
    let mut next: Vec<(&str, &str)> = graph
        .get(from)
        .into_iter()
        .flatten()
        .map(|name| (name.as_str(), name.as_str()))
        .collect();
    while let Some((name, via)) = next.pop() {
        if reached.insert(name, via).is_none() {
            next.extend(
                graph
                    .get(name)
                    .into_iter()
                    .flatten()
                    .map(|below| (below.as_str(), via)),
            );
        }
    }
    reached
}

fn graph(metadata: &Value) -> Graph {
    let names: BTreeMap<&str, &str> = array(&metadata["packages"])
        .filter_map(|package| Some((package["id"].as_str()?, package["name"].as_str()?)))
        .collect();
    let mut graph = Graph::new();
    for node in array(&metadata["resolve"]["nodes"]) {
        let Some(name) = node["id"].as_str().and_then(|id| names.get(id)) else {
            continue;
        };
        let below = array(&node["deps"])
            .filter(|dependency| array(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null()))
            .filter_map(|dependency| names.get(dependency["pkg"].as_str()?))
            .map(|name| (*name).to_owned());
        graph.entry((*name).to_owned()).or_default().extend(below);
    }
    graph
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph_of(edges: &[(&str, &[&str])]) -> Graph {
        edges
            .iter()
            .map(|(from, to)| {
                (
                    (*from).to_owned(),
                    to.iter().map(|name| (*name).to_owned()).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn a_pure_crate_on_pure_crates_is_fine() {
        let graph = graph_of(&[
            ("weir-verdict", &["weir-abi", "zerocopy"]),
            ("weir-abi", &["zerocopy"]),
        ]);
        assert!(problems(&graph).is_empty());
    }

    #[test]
    fn an_impure_crate_is_found_through_others() {
        let graph = graph_of(&[
            ("weir-model", &["harmless"]),
            ("harmless", &["mio"]),
            ("mio", &["libc"]),
        ]);
        let found = problems(&graph);
        assert_eq!(found.len(), 2);
        assert!(
            found[0].contains("must not reach libc (through harmless)"),
            "{found:?}"
        );
    }

    #[test]
    fn a_pure_crate_does_not_know_the_agent() {
        let graph = graph_of(&[("weir-compile", &["weir-datapath"])]);
        assert_eq!(problems(&graph).len(), 1);
    }

    #[test]
    fn the_loader_belongs_to_the_datapath() {
        assert!(problems(&graph_of(&[("weir-datapath", &["aya"])])).is_empty());
        assert_eq!(problems(&graph_of(&[("weir-agent", &["aya"])])).len(), 1);
    }
}
