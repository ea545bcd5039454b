// SPDX-License-Identifier: Apache-2.0
//! An agent as a process of its own, what it takes, and the objects that it is given.

use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use weir_api::path;
use weir_api::status::Status;

use super::node::{Node, run_agent};

/// The words of the agent's command line, one in each line.
const AGENT_WORDS: &str = "WEIR_AGENT_TEST_WORDS";
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

/// A running agent; ends when dropped.
pub(super) struct Agent(Child);

impl Agent {
    #[expect(
        clippy::disallowed_methods,
        reason = "its memory and time are measured, so it is a process of its own"
    )]
    pub(super) fn start(node: &Node, flags: &[&str]) -> Self {
        let words = node.words(flags);
        let mut command = match env::var_os("WEIR_TEST_PROGRAM") {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words);
                command
            }
            None => {
                let mut command = Command::new(env::current_exe().unwrap());
                command.args(["--exact", "process::agent_process", "--nocapture"]);
                command.env(AGENT_WORDS, words.join("\n"));
                command
            }
        };
        let log = fs::File::create(node.home.path().join("log")).unwrap();
        Self(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub(super) fn resident_mb(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.unwrap().split_whitespace().nth(1).unwrap();
        kilobytes.parse::<f64>().unwrap() * 1024.0 / 1e6
    }

    /// Seconds of CPU that it has used.
    pub(super) fn cpu(&self) -> f64 {
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

pub(super) fn put(node: &Node, name: &str, text: &str) {
    let folder = node.home.path().join("objects");
    fs::write(folder.join("new"), text).unwrap();
    fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

pub(super) fn revise(node: &Node, revision: u64) {
    put(node, "revision", &revision.to_string());
}

pub(super) fn realized(node: &Node, revision: u64) -> bool {
    let status = node.client.get::<Status>(path::STATUS);
    status.is_ok_and(|status| status.revision == revision)
}

pub(super) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}
