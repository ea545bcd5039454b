// SPDX-License-Identifier: Apache-2.0
//! What must hold in every cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use weir_abi::Address;
use weir_abi::policy::PolicyDirection;
use weir_compile::policy::{Peer, Question, explain};
use weir_compile::{Rows, plan};
use weir_model::{Change, LabelSet, NodeName, Touched, World};

use super::evaluator::{End, Probe, enters, leaves};
use super::kernel::{Cluster, Kernel, Node};
use super::random::{change, cluster, others, probes};

/// Cases of a property: some in every run, more where they are asked for.
fn run<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let factor: u32 = match std::env::var("WEIR_POLICY_FACTOR") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => 1,
    };
    let config = Config {
        cases: cases * factor,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    TestRunner::new(config).run(&strategy, test).unwrap();
}

/// Everybody who can be at an end of a connection.
fn ends(world: &World) -> Vec<End> {
    let mut addresses: BTreeSet<IpAddr> = others().into_iter().collect();
    addresses.extend(world.pods().flat_map(|pod| pod.addresses.clone()));
    addresses.extend(world.nodes().flat_map(|node| node.addresses.clone()));
    addresses
        .into_iter()
        .map(|address| End::of(world, address))
        .collect()
}

/// Connections that can be: of one family, not to oneself.
fn pairs(ends: &[End]) -> impl Iterator<Item = (&End, &End)> {
    let pairs = ends
        .iter()
        .flat_map(|from| ends.iter().map(move |to| (from, to)));
    pairs.filter(|(from, to)| {
        let (a, b) = (from.address(), to.address());
        a != b && a.is_ipv4() == b.is_ipv4() && !same_pod(from, to)
    })
}

fn same_pod(from: &End, to: &End) -> bool {
    matches!((from, to), (End::Pod(a, _), End::Pod(b, _)) if a.reference == b.reference)
}

/// Each side of each connection as the rows and as the definition have it.
fn compare(cluster: &Cluster, probes: &[Probe]) -> Result<usize, TestCaseError> {
    let world = &cluster.world;
    let ends = ends(world);
    let mut asked = 0;
    let nodes = cluster.nodes.iter();
    let kernels: BTreeMap<_, _> = nodes
        .map(|(name, node)| (name, Kernel::new(&node.realized)))
        .collect();
    for (from, to) in pairs(&ends) {
        let (source, destination) = (Address::from(from.address()), Address::from(to.address()));
        for probe in probes {
            if let End::Pod(pod, _) = from {
                let kernel = &kernels[pod.node.as_ref().unwrap()];
                let peer = kernel.party(destination);
                let (found, cookie) = kernel.side(PolicyDirection::Egress, source, peer, *probe);
                let right = leaves(world, from, to, *probe);
                prop_assert_eq!(found, right, "out {:?} -> {:?} {:?}", from, to, probe);
                check_cookie(cluster, pod.node.as_ref(), cookie)?;
                asked += 1;
            }
            if let End::Pod(pod, _) = to {
                let kernel = &kernels[pod.node.as_ref().unwrap()];
                let peer = kernel.party(source);
                let (found, cookie) =
                    kernel.side(PolicyDirection::Ingress, destination, peer, *probe);
                let right = enters(world, from, to, *probe);
                prop_assert_eq!(found, right, "in {:?} -> {:?} {:?}", from, to, probe);
                check_cookie(cluster, pod.node.as_ref(), cookie)?;
                asked += 1;
            }
        }
    }
    Ok(asked)
}

/// A rule that decides can be named.
fn check_cookie(
    cluster: &Cluster,
    node: Option<&NodeName>,
    cookie: weir_abi::PolicyCookie,
) -> Result<(), TestCaseError> {
    if cookie.0 != 0 {
        let policy = &cluster.nodes[node.unwrap()].policy;
        let origins = policy.origins(cookie).map_or(0, |origins| origins.len());
        prop_assert!(origins > 0, "cookie {cookie} has no origin");
    }
    Ok(())
}

#[test]
fn rows_decide_as_the_definition_says() {
    let asked = std::cell::Cell::new(0);
    run(
        24,
        (cluster(), proptest::collection::vec(change(), 1..8)),
        |(start, changes)| {
            let mut cluster = Cluster::new(start);
            asked.set(asked.get() + compare(&cluster, &probes())?);
            for change in changes {
                cluster.apply([change]);
            }
            asked.set(asked.get() + compare(&cluster, &probes())?);
            Ok(())
        },
    );
    assert!(asked.get() > 50_000, "only {} questions", asked.get());
}

/// The peer of a side, as explanations want it.
fn peer_of<'a>(own: &NodeName, end: &End, set: Option<&'a LabelSet>) -> Peer<'a> {
    match (end, set) {
        (End::Pod(..), Some(set)) => Peer::Pod(set),
        (End::Node(name, _), _) => Peer::Node {
            own: name == own,
            pod: None,
        },
        (End::Pod(..) | End::Other(_), _) => Peer::Outside,
    }
}

#[test]
fn explanations_say_what_is_so_and_denials_have_a_nearest_rule() {
    run(24, cluster(), |start| {
        let cluster = Cluster::new(start);
        let world = &cluster.world;
        let ends = ends(world);
        let few: Vec<_> = probes().into_iter().step_by(3).collect();
        for (from, to) in pairs(&ends) {
            for (direction, subject, other) in [
                (PolicyDirection::Egress, from, to),
                (PolicyDirection::Ingress, to, from),
            ] {
                let End::Pod(pod, _) = subject else { continue };
                let subject = LabelSet::of(pod);
                let set = match other {
                    End::Pod(pod, _) => Some(LabelSet::of(pod)),
                    End::Node(..) | End::Other(_) => None,
                };
                for probe in &few {
                    let question = Question {
                        subject: &subject,
                        direction,
                        peer: peer_of(pod.node.as_ref().unwrap(), other, set.as_ref()),
                        peer_address: Some(other.address()),
                        protocol: probe.protocol,
                        port: probe.port,
                    };
                    let explanation = explain(world, &question);
                    let right = match direction {
                        PolicyDirection::Egress => leaves(world, from, to, *probe),
                        PolicyDirection::Ingress => enters(world, from, to, *probe),
                    };
                    prop_assert_eq!(explanation.allowed(), right, "{:?}", question);
                    prop_assert_eq!(explanation.nearest.is_some(), !right);
                    if let Some(miss) = explanation.nearest {
                        prop_assert!(miss.distance() > 0, "{miss}");
                    }
                }
            }
        }
        Ok(())
    });
}

/// Rows of one node in words that do not depend on how things are numbered.
fn verdicts(rows: &Rows, ends: &[End], probes: &[Probe]) -> Vec<bool> {
    let mut found = Vec::new();
    let kernel = Kernel::new(rows);
    for own in rows.endpoints.keys() {
        for peer in ends {
            let peer = Address::from(peer.address());
            if peer.is_v4() != own.is_v4() || peer == *own {
                continue;
            }
            let peer = kernel.party(peer);
            for direction in [PolicyDirection::Ingress, PolicyDirection::Egress] {
                let ask = |probe: &Probe| kernel.side(direction, *own, peer, *probe).0;
                found.extend(probes.iter().map(ask));
            }
        }
    }
    found
}

#[test]
fn one_change_after_the_other_leads_where_a_new_start_does() {
    run(
        48,
        (cluster(), proptest::collection::vec(change(), 1..30)),
        |(start, changes)| {
            let mut cluster = Cluster::new(start);
            for change in changes {
                cluster.apply([change]);
                for node in cluster.nodes.values() {
                    prop_assert_eq!(&node.realized, node.policy.rows());
                    prop_assert!(plan(&node.realized, node.policy.rows()).is_empty());
                }
            }
            let ends = ends(&cluster.world);
            for (name, node) in &cluster.nodes {
                let mut fresh = Node::new(name);
                let (_, plan) = fresh.update(&cluster.world, &Touched::everything());
                fresh.execute(&plan);
                let few: Vec<_> = probes().into_iter().step_by(3).collect();
                let found = verdicts(&node.realized, &ends, &few);
                prop_assert_eq!(found, verdicts(&fresh.realized, &ends, &few));
                // Nothing is left over either.
                prop_assert_eq!(node.realized.ipcache.len(), fresh.realized.ipcache.len());
                prop_assert_eq!(node.realized.policy.len(), fresh.realized.policy.len());
                prop_assert_eq!(node.policy.cookies().len(), fresh.policy.cookies().len());
            }
            Ok(())
        },
    );
}

#[test]
fn a_restart_changes_nothing() {
    run(
        48,
        (cluster(), proptest::collection::vec(change(), 1..20)),
        |(start, changes)| {
            let mut cluster = Cluster::new(start);
            for change in changes {
                cluster.apply([change]);
            }
            cluster.restart();
            for (name, _, _, plan) in cluster.apply([]) {
                prop_assert!(plan.is_empty(), "{name}: {}", listing(&plan));
            }
            Ok(())
        },
    );
}

#[test]
fn whatever_happens_during_a_restart_is_caught_up_with() {
    run(
        24,
        (cluster(), proptest::collection::vec(change(), 1..9)),
        |(start, changes)| {
            let mut cluster = Cluster::new(start);
            cluster.restart();
            cluster.apply(changes);
            compare(&cluster, &probes())?;
            for node in cluster.nodes.values() {
                prop_assert_eq!(&node.realized, node.policy.rows());
            }
            Ok(())
        },
    );
}

#[test]
fn no_step_opens_what_neither_before_nor_after_is_open() {
    run(48, (cluster(), change()), |(start, change)| {
        check_steps(start, change, false)
    });
}

#[test]
fn what_a_policy_leaves_open_stays_open_at_each_step() {
    let policies = change().prop_filter("a policy that comes or goes", |change| {
        matches!(
            change,
            Change::NetworkPolicy(_) | Change::NetworkPolicyGone(_)
        )
    });
    run(48, (cluster(), policies), |(start, change)| {
        check_steps(start, change, true)
    });
}

/// Executes the plans of one change step by step. `gapless`: also what is open before and after must
/// be so at each step; the policy is new then.
fn check_steps(start: Vec<Change>, change: Change, gapless: bool) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::new(start);
    if let (true, Change::NetworkPolicy(policy)) = (gapless, &change) {
        cluster.apply([Change::NetworkPolicyGone(policy.reference.clone())]);
    }
    let old_world = cluster.world.clone();
    let done = cluster.apply([change]);
    let mut ends = ends(&old_world);
    ends.extend(self::ends(&cluster.world));
    ends.sort_by_key(End::address);
    ends.dedup_by_key(|end| end.address());
    let probes: Vec<_> = probes().into_iter().step_by(2).collect();
    for (name, before, _, plan) in done {
        let mut rows = before.clone();
        let after = &cluster.nodes[&name].realized;
        let then = sides(&name, &before, &ends, &probes);
        let now = sides(&name, after, &ends, &probes);
        for operation in &plan.operations {
            rows.apply(operation);
            let found = sides(&name, &rows, &ends, &probes);
            for place in 0..found.len() {
                let (was, is, will) = (&then[place], &found[place], &now[place]);
                let both = |one: &(bool, bool)| one.0 && one.1;
                prop_assert!(
                    !is.0 || was.0 || will.0,
                    "way out opened by {operation} in {}",
                    listing(&plan)
                );
                prop_assert!(
                    !is.1 || was.1 || will.1,
                    "way in opened by {operation} in {}",
                    listing(&plan)
                );
                prop_assert!(
                    !both(is) || both(was) || both(will),
                    "both sides opened by {operation} in {}",
                    listing(&plan)
                );
                if gapless {
                    prop_assert!(
                        both(is) || !(both(was) && both(will)),
                        "closed by {operation} in {}",
                        listing(&plan)
                    );
                }
            }
        }
        prop_assert_eq!(&rows, after);
    }
    Ok(())
}

fn listing(plan: &weir_compile::Plan) -> String {
    let lines = plan.operations.iter().map(|one| format!("\n  {one}"));
    lines.collect()
}

/// For each connection with an end on the node: what its rows say of the way out and of the way in;
/// a side that is not here lets everything pass.
fn sides(name: &NodeName, rows: &Rows, ends: &[End], probes: &[Probe]) -> Vec<(bool, bool)> {
    let kernel = Kernel::new(rows);
    let parties: BTreeMap<_, _> = ends
        .iter()
        .map(|end| (end.address(), kernel.party(end.address().into())))
        .collect();
    let here = |end: &End| matches!(end, End::Pod(..)) && is_local(name, end.address());
    let mut found = Vec::new();
    for (from, to) in pairs(ends).filter(|(from, to)| here(from) || here(to)) {
        let (source, destination) = (from.address(), to.address());
        for probe in probes {
            let ask = |direction, own: IpAddr, peer: IpAddr| {
                kernel.side(direction, own.into(), parties[&peer], *probe).0
            };
            found.push((
                !here(from) || ask(PolicyDirection::Egress, source, destination),
                !here(to) || ask(PolicyDirection::Ingress, destination, source),
            ));
        }
    }
    found
}

/// Whether an address is one of the node's pods'.
fn is_local(name: &NodeName, address: IpAddr) -> bool {
    let number = &name.as_str()[1..];
    let ranges = [format!("10.244.{number}."), format!("fd00:244:{number}:")];
    let address = address.to_string();
    ranges
        .iter()
        .any(|range| address.starts_with(range.as_str()))
}
