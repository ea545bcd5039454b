// SPDX-License-Identifier: Apache-2.0
//! What a node pays for Weir: the agent at rest, the start of a lab, one more pod.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Bench;
use super::report::{Figure, Target, median};
use crate::output;
use crate::process::{root_command, run_step, stdout_of};
use crate::workspace;

const LAB: &str = "bench-node";
const PODS: u32 = 20;

/// How long the agents are watched at rest.
const REST: Duration = Duration::from_secs(20);

/// Clock ticks per second in /proc/PID/stat: `USER_HZ`, which is 100 on every architecture that Linux gives to users.
const TICKS_PER_SECOND: f64 = 100.0;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let node = Node { bench };
    let mut figures = vec![node.start()?];
    figures.push(node.add_pods()?);
    figures.extend(rest()?);
    Ok(figures)
}

struct Node<'a> {
    bench: &'a Bench,
}

impl Node<'_> {
    fn weir(&self, args: &[&str]) -> Result<Command> {
        let mut command = root_command(&self.bench.weir)?;
        command.args(args).current_dir(workspace::root());
        Ok(command)
    }

    fn start(&self) -> Result<Figure> {
        let manifest = manifest("pods", 0..PODS)?;
        let start = Instant::now();
        let mut up = self.weir(&["lab", "up", "--name", LAB, "--nodes", "2", "-f"])?;
        run_step("a lab of 2 nodes and 20 pods", up.arg(manifest))?;
        Ok(figure(
            "lab up, 2 nodes and 20 pods",
            start.elapsed().as_secs_f64(),
            "s",
            Target::AtMost(5.0),
        ))
    }

    /// What the agent says about how long it took to make a pod's network, from its own metrics; where they do not say,
    /// the time of the whole `lab apply`, which includes the pod's processes.
    fn add_pods(&self) -> Result<Figure> {
        output::step("adding pods, one at a time");
        let before = self.creations()?;
        let mut took = Vec::new();
        for round in 0..self.bench.rounds {
            // All on the first node, whose agent is asked.
            let pod = PODS + 2 * round;
            let manifest = manifest(&format!("one-{round}"), pod..pod + 1)?;
            let start = Instant::now();
            stdout_of(
                self.weir(&["lab", "apply", "--name", LAB, "-f"])?
                    .arg(manifest),
            )?;
            took.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let apply = median(&took).context("no pod was added")?;
        Ok(match self.creations()?.mean_since(&before) {
            Some(seconds) => Figure {
                note: format!("(lab apply of one pod: {apply:.0} ms)"),
                ..figure(
                    "adding a pod, in the agent",
                    seconds * 1e3,
                    "ms",
                    Target::AtMost(10.0),
                )
            },
            None => figure("adding a pod, whole lab apply", apply, "ms", Target::None),
        })
    }

    /// What the first node's agent counted so far.
    fn creations(&self) -> Result<Histogram> {
        let mut metrics = self.weir(&["lab", "node", "--name", LAB, "n1", "--"])?;
        let listed = stdout_of(metrics.arg(&self.bench.weir).args(["metrics", "list"]))?;
        Ok(Histogram::read(&listed, "endpoint_create"))
    }
}

fn rest() -> Result<Vec<Figure>> {
    let agents = agents()?;
    ensure!(!agents.is_empty(), "no agent of lab {LAB} is running");
    output::step(format_args!(
        "watching {} agents at rest for {} s",
        agents.len(),
        REST.as_secs()
    ));
    let before: Vec<f64> = agents
        .iter()
        .map(|agent| cpu_seconds(agent))
        .collect::<Result<_>>()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the time itself is what is measured"
    )]
    thread::sleep(REST);
    let mut cpu: f64 = 0.0;
    let mut memory: f64 = 0.0;
    for (agent, before) in agents.iter().zip(before) {
        cpu = cpu.max((cpu_seconds(agent)? - before) / REST.as_secs_f64() * 100.0);
        memory = memory.max(resident_mib(agent)?);
    }
    Ok(vec![
        figure("agent at rest, memory", memory, "MiB", Target::AtMost(25.0)),
        figure("agent at rest, CPU", cpu, "%", Target::AtMost(0.2)),
    ])
}

fn manifest(name: &str, pods: std::ops::Range<u32>) -> Result<PathBuf> {
    let folder = workspace::target_dir().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: bench}\n".to_owned();
    for pod in pods {
        let _ = write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{pod}, namespace: bench, labels: {{app: p}}}}\n\
             spec:\n  nodeName: n{}\n  containers: [{{name: main, image: p, ports: [{{containerPort: 80}}]}}]\n",
            pod % 2 + 1
        );
    }
    let path = folder.join(format!("{name}.yaml"));
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if let Ok(mut down) = self.weir(&["lab", "down", "--name", LAB]) {
            let _ = stdout_of(&mut down);
        }
    }
}

fn figure(name: &str, value: f64, unit: &'static str, target: Target) -> Figure {
    Figure {
        name: name.to_owned(),
        value,
        unit,
        target,
        note: String::new(),
    }
}

/// The agent processes of this lab, as their folders in /proc.
fn agents() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let process = entry?.path();
        let Ok(line) = fs::read_to_string(process.join("cmdline")) else {
            continue;
        };
        let Ok(cgroup) = fs::read_to_string(process.join("cgroup")) else {
            continue;
        };
        if line.split('\0').any(|word| word == "agent")
            && line.contains("--node-name")
            && cgroup.contains(LAB)
        {
            found.push(process);
        }
    }
    Ok(found)
}

/// Memory that a process, by its folder in /proc, holds.
pub(super) fn resident_mib(process: &Path) -> Result<f64> {
    let status = fs::read_to_string(process.join("status")).context("an agent has gone")?;
    let kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .context("/proc names no VmRSS")?;
    Ok(kib / 1024.0)
}

fn cpu_seconds(process: &Path) -> Result<f64> {
    let stat = fs::read_to_string(process.join("stat")).context("an agent has gone")?;
    ticks(&stat)
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .context("/proc/PID/stat has no times")
}

/// User and system time (fields 14 and 15). The name in field 2 may hold anything, so count from its closing bracket.
fn ticks(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
}

/// The two numbers of a Prometheus histogram that give its mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Histogram {
    sum: f64,
    count: f64,
}

impl Histogram {
    /// Found in a listing by a part of its name; nothing counted where it is not listed.
    fn read(listed: &str, part: &str) -> Self {
        let value = |suffix: &str| {
            listed
                .lines()
                .filter(|line| {
                    line.split_whitespace()
                        .next()
                        .is_some_and(|name| name.contains(part) && name.ends_with(suffix))
                })
                .find_map(|line| line.split_whitespace().last()?.parse::<f64>().ok())
                .unwrap_or_default()
        };
        Self {
            sum: value("_sum"),
            count: value("_count"),
        }
    }

    fn mean_since(self, before: &Self) -> Option<f64> {
        let count = self.count - before.count;
        (count > 0.0).then(|| (self.sum - before.sum) / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_process_name() {
        let stat = "42 (we ir) x) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0 1";
        assert_eq!(ticks(stat), Some(42.0));
    }

    #[test]
    fn a_histogram_gives_the_mean_of_what_was_added() {
        let before = Histogram::read(
            "weir_endpoint_create_seconds_sum 0.05\nweir_endpoint_create_seconds_count 10\n",
            "endpoint_create",
        );
        let after = Histogram {
            sum: 0.07,
            count: 14.0,
        };
        assert!((after.mean_since(&before).expect("four were added") - 0.005).abs() < 1e-9);
        assert_eq!(before.mean_since(&before), None);
        assert_eq!(Histogram::read("", "endpoint_create"), Histogram::default());
    }
}
