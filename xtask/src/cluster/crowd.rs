// SPDX-License-Identifier: Apache-2.0
//! `crowd`: as many pods on one node as Kubernetes promises, created at once and deleted at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;
use weir_api::path;

use super::checks::{Checks, until_none};
use super::control_plane::kubectl;
use super::place::{Node, Place};
use super::pods::{self, NAME_SERVER, Pod};
use super::processes::{run as run_command, wait_for};
use super::remains::{self, Before};
use super::up::nodes_of;
use crate::output;

const NAMESPACE: &str = "crowd";
const READY_SECONDS: u64 = 600;
const GONE_SECONDS: u64 = 180;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many pods
    #[arg(long, default_value_t = 110, value_parser = clap::value_parser!(u16).range(1..=110))]
    pods: u16,
}

pub(super) fn run(place: &Place, args: &Args) -> Result<()> {
    let nodes: Vec<Node> = Node::all(nodes_of(place)?).collect();
    let [node, other, ..] = *nodes.as_slice() else {
        anyhow::bail!("the pods are asked from another node, and there is one alone");
    };
    let mut checks = Checks::of("crowd");
    pods::make_namespace(place, NAMESPACE)?;
    let before = Before::at_rest(place, GONE_SECONDS)?;
    let asker = json!(["sleep", "infinity"]);
    let asker = pods::pod(NAMESPACE, "asker", "asker", &other.to_string(), &asker);
    pods::create(place, &[asker])?;
    pods::wait_ready(place, NAMESPACE, READY_SECONDS)?;

    let added = Added::read(place, node)?;
    output::step(format_args!("{} pods on {node}", args.pods));
    let start = Instant::now();
    let command = json!(["bash", "-c", NAME_SERVER]);
    let crowd: Vec<_> = (1..=args.pods)
        .map(|number| {
            let name = format!("crowd-{number}");
            pods::pod(NAMESPACE, &name, "crowd", &node.to_string(), &command)
        })
        .collect();
    pods::create(place, &crowd)?;
    let created = start.elapsed();
    let ready = pods::wait_ready(place, NAMESPACE, READY_SECONDS);
    output::data(format_args!(
        "created in {:.1} s, all ready after {:.1} s; ADD at the agent: {}",
        created.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        Added::read(place, node)?.since(&added)
    ));
    checks.check(
        format_args!("{} pods are ready", args.pods),
        ready.map(|()| Vec::new()),
    );

    let all = pods::pods(place, None)?;
    checks.check(
        "each pod has an address of each family that nobody else has",
        Ok(wrong_addresses(&all)),
    );
    let seen = until_none("the node to know its pods", 60, || remains::strays(place));
    checks.check(
        "endpoints, links, rows, files and addresses are exactly those of the pods",
        seen,
    );
    let asker = all
        .iter()
        .find(|pod| pod.namespace == NAMESPACE && pod.node == other.to_string())
        .context("the pod that asks is gone")?;
    let crowd: Vec<Pod> = all
        .iter()
        .filter(|pod| pod.namespace == NAMESPACE && pod.node == node.to_string())
        .cloned()
        .collect();
    checks.check(
        "each pod answers a pod of another node at both addresses",
        pods::ask_names(place, asker, &crowd),
    );

    output::step("deleting them");
    let start = Instant::now();
    run_command(
        kubectl(place)
            .args([
                "delete",
                "pods",
                "--all",
                "--wait=false",
                "--request-timeout=60s",
            ])
            .args(["--namespace", NAMESPACE]),
    )?;
    let gone = wait_for("the pods to be gone", GONE_SECONDS, || {
        pods::pods(place, Some(NAMESPACE)).is_ok_and(|left| left.is_empty())
    });
    output::data(format_args!(
        "deleted after {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    let left = gone.and_then(|()| {
        until_none("the last traces of the pods to go", GONE_SECONDS, || {
            before.differences(place)
        })
    });
    output::data(format_args!(
        "nothing left after {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    checks.check("nothing is left of them", left);
    pods::remove_namespace(place, NAMESPACE)?;
    checks.close()
}

/// Pods without an address of each family, and addresses that two have.
fn wrong_addresses(pods: &[Pod]) -> Vec<String> {
    let mut owners: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    let mut found = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.host_network) {
        let v4 = pod.addresses.iter().filter(|one| one.is_ipv4()).count();
        if v4 != 1 || pod.addresses.len() != 2 {
            found.push(format!("{} has {:?}", pod.full_name(), pod.addresses));
        }
        for address in &pod.addresses {
            owners.entry(*address).or_default().push(pod.full_name());
        }
    }
    let shared = owners.into_iter().filter(|(_, owners)| owners.len() > 1);
    found.extend(shared.map(|(address, owners)| format!("{address} is of {}", owners.join(", "))));
    found
}

/// How often the agent took at most so long for an endpoint, by the bound as the metric writes it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Added(Vec<(String, u64)>);

impl Added {
    fn read(place: &Place, node: Node) -> Result<Self> {
        let metrics = remains::agent(place, node)?.text(path::METRICS)?;
        Ok(Self::parse(&metrics))
    }

    fn parse(metrics: &str) -> Self {
        let buckets = metrics.lines().filter_map(|line| {
            let (bound, count) = line
                .strip_prefix("weir_endpoint_create_seconds_bucket{le=\"")?
                .split_once("\"} ")?;
            Some((bound.to_owned(), count.trim().parse().ok()?))
        });
        Self(buckets.collect())
    }

    fn since(&self, before: &Self) -> String {
        let earlier: BTreeMap<&str, u64> = before
            .0
            .iter()
            .map(|(bound, count)| (bound.as_str(), *count))
            .collect();
        let now: Vec<(&str, u64)> = self
            .0
            .iter()
            .map(|(bound, count)| {
                let earlier = earlier.get(bound.as_str()).copied().unwrap_or_default();
                (bound.as_str(), count.saturating_sub(earlier))
            })
            .collect();
        let total = now.last().map_or(0, |(_, count)| *count);
        let within = |percent: u64| {
            let enough = now.iter().find(|(_, count)| count * 100 >= total * percent);
            enough.map_or("+Inf", |(bound, _)| *bound)
        };
        format!(
            "{total} calls, half of them within {} s, 99 of 100 within {} s, all within {} s",
            within(50),
            within(99),
            within(100)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_one_pod_each() {
        let pod = |name: &str, addresses: &[&str]| Pod {
            namespace: "a".to_owned(),
            name: name.to_owned(),
            uid: name.to_owned(),
            node: "node1".to_owned(),
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            host_network: false,
            running: true,
            ready: true,
            restarts: 0,
        };
        let (b, c) = (
            pod("b", &["10.0.0.1", "fd00::1"]),
            pod("c", &["10.0.0.2", "fd00::1"]),
        );
        assert_eq!(
            wrong_addresses(std::slice::from_ref(&b)),
            Vec::<String>::new()
        );
        assert_eq!(wrong_addresses(&[b, c]), ["fd00::1 is of a/b, a/c"]);
        assert_eq!(wrong_addresses(&[pod("d", &["10.0.0.4"])]).len(), 1);
    }

    #[test]
    fn the_time_of_calls_is_read_from_the_difference() {
        let metrics = |counts: [u64; 3]| {
            let bounds = ["0.01", "0.1", "+Inf"];
            let lines = bounds.iter().zip(counts).map(|(bound, count)| {
                format!("weir_endpoint_create_seconds_bucket{{le=\"{bound}\"}} {count}\n")
            });
            Added::parse(&lines.collect::<String>())
        };
        assert_eq!(
            metrics([12, 14, 14]).since(&metrics([2, 2, 4])),
            "10 calls, half of them within 0.01 s, 99 of 100 within 0.01 s, all within 0.01 s"
        );
        assert_eq!(
            metrics([2, 14, 14]).since(&metrics([2, 4, 4])),
            "10 calls, half of them within 0.1 s, 99 of 100 within 0.1 s, all within 0.1 s"
        );
    }
}
