// SPDX-License-Identifier: Apache-2.0
//! A node with 250 pods and many policies: how long it takes from an object to the kernel's row, and what it costs.
//!
//! It measures and is run by name with `--ignored`. `WEIR_TEST_PROGRAM` names the `weir` that is measured, rather than
//! this executable.

#[cfg(test)]
#[path = "support/node.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod node;

#[cfg(test)]
mod kernel {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};
    use std::{env, fs, thread};

    use weir_abi::Address;
    use weir_abi::ipcache::PrefixKey;
    use weir_abi::policy::{PeerKind, PolicyDirection, PolicyKey};
    use weir_api::path;
    use weir_api::status::Status;
    use weir_datapath::Maps;

    use super::node::{Node, pinned_maps, pod, run_agent, wait, with_node};

    /// The words of the agent's command line, one in each line.
    const AGENT_WORDS: &str = "WEIR_AGENT_TEST_WORDS";
    const PODS: usize = 250;
    /// Sets of labels that the pods have.
    const APPS: usize = 25;
    const POLICIES: usize = 1000;
    const MANY_POLICIES: usize = 10_000;
    const CHANGES: usize = 300;
    /// Objects with these numbers change, and have a file each.
    const CHANGING: usize = 20;
    /// Clock ticks per second in `/proc/PID/stat`.
    const TICKS: f64 = 100.0;

    /// No test of its own: the agent as a process.
    #[test]
    fn agent_process() {
        if let Ok(words) = env::var(AGENT_WORDS) {
            let words = words.split('\n').map(str::to_owned).collect();
            run_agent(words).expect("the agent runs");
        }
    }

    struct Agent(Child);

    impl Agent {
        #[expect(
            clippy::disallowed_methods,
            reason = "its memory and time are measured, so it is a process of its own"
        )]
        fn start(node: &Node) -> Self {
            let words = node.words(&[
                "--map-sizes=flows=4096,ipcache=8192,endpoints=1024,policy=262144,policy_hits=262144",
            ]);
            let mut command = match env::var_os("WEIR_TEST_PROGRAM") {
                Some(program) => {
                    let mut command = Command::new(program);
                    command.args(words);
                    command
                }
                None => {
                    let mut command = Command::new(env::current_exe().unwrap());
                    command.args(["--exact", "kernel::agent_process", "--nocapture"]);
                    command.env(AGENT_WORDS, words.join("\n"));
                    command
                }
            };
            let log = fs::File::create(node.home.path().join("log")).unwrap();
            Self(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
        }

        fn resident_mb(&self) -> f64 {
            let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS:"));
            let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
            kilobytes.parse::<f64>().unwrap() * 1024.0 / 1e6
        }

        /// Seconds of CPU that it has used.
        fn cpu(&self) -> f64 {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
            let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
            let ticks = fields
                .skip(11)
                .take(2)
                .map(|one| one.parse::<f64>().unwrap());
            ticks.sum::<f64>() / TICKS
        }
    }

    impl Drop for Agent {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn put(node: &Node, name: &str, text: &str) {
        let folder = node.home.path().join("objects");
        fs::write(folder.join("new"), text).unwrap();
        fs::rename(folder.join("new"), folder.join(name)).unwrap();
    }

    fn revise(node: &Node, revision: u64) {
        put(node, "revision", &revision.to_string());
    }

    fn realized(node: &Node, revision: u64) -> bool {
        let status = node.client.get::<Status>(path::STATUS);
        status.is_ok_and(|status| status.revision == revision)
    }

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

    fn percentile(times: &mut [Duration], percent: usize) -> Duration {
        times.sort_unstable();
        times[(times.len() * percent / 100).min(times.len() - 1)]
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
            let mut agent = Agent::start(node);
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
            agent = Agent::start(node);
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
}
