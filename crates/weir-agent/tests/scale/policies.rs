// SPDX-License-Identifier: Apache-2.0
//! A node with 250 pods and many policies.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use weir_abi::Address;
use weir_abi::ipcache::PrefixKey;
use weir_abi::policy::{PeerKind, PolicyDirection, PolicyKey};
use weir_datapath::Maps;

use super::node::{Node, pinned_maps, pod, wait, with_node};
use super::process::{Agent, percentile, put, realized, revise};

/// Pods of the node.
const PODS: usize = 250;
/// Sets of labels that the pods have.
const APPS: usize = 25;
const POLICIES: usize = 1000;
const MANY_POLICIES: usize = 10_000;
const CHANGES: usize = 300;
/// Objects with these numbers change, and have a file each.
const CHANGING: usize = 20;
const MAPS: &str =
    "--map-sizes=flows=4096,ipcache=8192,endpoints=1024,policy=262144,policy_hits=262144";

/// A pod of the node; `round` is a label that no policy asks for.
fn pod_text(number: usize, round: usize) -> String {
    let app = number % APPS;
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p{number}, namespace: shop, \
         labels: {{app: a{app}, round: r{round}}}}}, spec: {{nodeName: n1, containers: [{{name: c}}]}}}}\n"
    )
}

/// Policies of all applications in turn; each lets one port in from one application.
fn policy_text(number: usize, port: usize) -> String {
    let (app, from) = (number % APPS, number / APPS % APPS);
    format!(
        "---\n{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: q{number}, namespace: shop}}, \
         spec: {{podSelector: {{matchLabels: {{app: a{app}}}}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: a{from}}}}}}}], \
         ports: [{{port: {port}}}]}}]}}}}\n"
    )
}

fn policies(count: usize) -> String {
    (CHANGING..count).fold(String::new(), |mut all, number| {
        let _ = write!(all, "{}", policy_text(number, 1000 + number));
        all
    })
}

const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.244.0.0/20, 'fd00:244:1::/64']}, \
     status: {addresses: [{type: InternalIP, address: 172.18.0.2}, {type: InternalIP, address: 'fd00:18::2'}]}}\n";

/// The row that the policy with this number fills.
fn row(maps: &Maps, places: &[Address], number: usize) -> PolicyKey {
    let (app, from) = (number % APPS, number / APPS % APPS);
    let subject = maps.endpoints.get(&places[app]).unwrap().unwrap();
    let peer = maps.ipcache.get(&PrefixKey::host(places[from])).unwrap();
    let identity = peer.unwrap().identity;
    PolicyKey::new(
        subject.policy_set,
        PolicyDirection::Ingress,
        PeerKind::Identity,
        identity.0,
    )
}

/// Waits, without a pause, until a port is allowed there.
fn allows(maps: &Maps, first: PolicyKey, port: usize) -> bool {
    let mut key = first;
    while let Some(row) = maps.policy.get(&key).unwrap() {
        let mut rules = row.rules.iter().take(usize::from(row.count));
        if rules.any(|rule| usize::from(rule.first_port) == port) {
            return true;
        }
        key.part += 1;
    }
    false
}

/// One policy after the other gets another port: how long until that is in the kernel.
fn change_policies(node: &Node, maps: &Maps, places: &[Address]) -> Vec<Duration> {
    let times = (0..CHANGES).map(|round| {
        let number = round % CHANGING;
        let (port, key) = (20_000 + round, row(maps, places, number));
        put(node, &format!("q{number}.yaml"), &policy_text(number, port));
        let begin = Instant::now();
        revise(node, 2 + round as u64);
        while !allows(maps, key, port) {
            assert!(begin.elapsed() < Duration::from_secs(10), "{number}");
            thread::yield_now();
        }
        begin.elapsed()
    });
    times.collect()
}

/// A thousand label changes within a minute, of which a third is enough to tell: how many, in how many seconds,
/// for which share of a core.
fn change_labels(node: &Node, agent: &Agent) -> (u32, f64, f64) {
    let (begin, cpu, rounds) = (Instant::now(), agent.cpu(), 333);
    for round in 1..=rounds {
        let number = round as usize % CHANGING;
        let text = pod_text(number, round as usize);
        put(node, &format!("p{number}.yaml"), &text);
        revise(node, 1000 + u64::from(round));
        let due = begin + Duration::from_millis(60) * round;
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            thread::park_timeout(left);
        }
    }
    let took = begin.elapsed().as_secs_f64();
    (rounds, took, (agent.cpu() - cpu) / took)
}

#[test]
#[ignore = "measures, and takes minutes"]
fn what_policies_cost() {
    with_node(|node| {
        let all: String = (CHANGING..PODS).map(|number| pod_text(number, 0)).collect();
        for number in 0..CHANGING {
            put(node, &format!("p{number}.yaml"), &pod_text(number, 0));
            put(
                node,
                &format!("q{number}.yaml"),
                &policy_text(number, 1000 + number),
            );
        }
        put(node, "all.yaml", &format!("{NODE}{all}"));
        put(node, "policies.yaml", &policies(POLICIES));
        revise(node, 1);
        let mut agent = Agent::start(node, &[MAPS]);
        wait("the agent", || realized(node, 1));
        println!("no pods yet: {:.1} MB", agent.resident_mb());
        let held: Vec<_> = (0..PODS)
            .map(|number| {
                let pod = pod();
                let made = node.create(&pod, |request| {
                    request.container_id = format!("c{number}");
                    request.pod = format!("p{number}");
                });
                (pod, made.unwrap().addresses[0])
            })
            .collect();
        let places: Vec<Address> = held.iter().map(|(_, ip)| Address::from(*ip)).collect();
        let maps = pinned_maps();
        let sets = || {
            let rows = places
                .iter()
                .map(|one| maps.endpoints.get(one).unwrap().unwrap());
            rows.map(|row| row.policy_set)
                .collect::<BTreeSet<_>>()
                .len()
        };
        let last = POLICIES - 1;
        wait("the last policy", || {
            allows(&maps, row(&maps, &places, last), 1000 + last)
        });
        println!(
            "{PODS} pods of {APPS} label sets, {POLICIES} policies: {} policy sets, {:.1} MB",
            sets(),
            agent.resident_mb()
        );

        let mut times = change_policies(node, &maps, &places);
        let half = percentile(&mut times, 50);
        println!(
            "a changed policy is in the kernel after {half:?} (median), {:?} (p99)",
            percentile(&mut times, 99)
        );

        let (rounds, took, share) = change_labels(node, &agent);
        println!(
            "{rounds} label changes in {took:.1} s: {share:.2} of a core, then {} policy sets, {:.1} MB",
            sets(),
            agent.resident_mb()
        );

        // From cold, and from what an agent before left.
        put(node, "policies.yaml", &policies(MANY_POLICIES));
        revise(node, 9000);
        drop(agent);
        let last = MANY_POLICIES - 1;
        let begin = Instant::now();
        agent = Agent::start(node, &[MAPS]);
        wait("the last of many policies", || {
            allows(&maps, row(&maps, &places, last), 1000 + last)
        });
        println!(
            "{MANY_POLICIES} policies, from the start of the agent to the last row: {:?}, {:.1} MB",
            begin.elapsed(),
            agent.resident_mb()
        );
    });
}
