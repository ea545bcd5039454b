// SPDX-License-Identifier: Apache-2.0
//! `demo`: from a fresh checkout to a running lab, with one flow that works and one packet that is dropped for a reason.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process::{display, root_command, run_step, stdout_of};
use crate::{build, host, output, workspace};

/// Builds everything and shows it on a lab of two nodes, which it leaves running
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the lab
    #[arg(long, default_value = "demo")]
    name: String,
    /// Build with full optimization, as it is shipped
    #[arg(long)]
    release: bool,
    /// Take the lab down at the end
    #[arg(long)]
    down: bool,
}

/// An address of the first node's pods that no pod has: what a client meets that remembers a pod which is gone.
const GONE: &str = "10.244.1.250";

/// How long the monitor may take to start and to show a packet.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(args: &Args) -> Result<()> {
    host::require()?;
    let demo = Demo {
        weir: build::build(args.release)?,
        lab: args.name.clone(),
    };
    demo.bring_up()?;
    demo.show_traffic()?;
    demo.show_flow()?;
    demo.show_drop()?;
    if args.down {
        return run_step(
            "taking the lab down",
            demo.weir(&["lab", "down", "--name", &demo.lab])?
                .stdin(Stdio::null()),
        );
    }
    demo.say_goodbye();
    Ok(())
}

/// A running demonstration.
struct Demo {
    weir: PathBuf,
    lab: String,
}

impl Demo {
    /// The weir binary, as root.
    fn weir(&self, args: &[&str]) -> Result<Command> {
        let mut command = root_command(&self.weir)?;
        command.args(args).current_dir(workspace::root());
        Ok(command)
    }

    fn bring_up(&self) -> Result<()> {
        // What an earlier demo left running is replaced.
        let _ = stdout_of(&mut self.weir(&["lab", "down", "--name", &self.lab])?);
        let manifest = Path::new("docs/demo/shop.yaml");
        let mut up = self.weir(&["lab", "up", "--name", &self.lab, "--nodes", "2", "-f"])?;
        run_step(
            "a lab of two nodes from docs/demo/shop.yaml",
            up.arg(manifest),
        )
    }

    /// Runs a command of the lab before the reader's eyes, and hands back what it printed.
    fn show(&self, verb: &str, rest: &str) -> Result<String> {
        output::data(format_args!("$ weir lab {verb} --name {} {rest}", self.lab));
        let mut command = self.weir(&["lab", verb, "--name", &self.lab])?;
        let text = stdout_of(command.args(rest.split(' ')))?;
        output::data(text.trim_end());
        output::data("");
        Ok(text)
    }

    fn show_traffic(&self) -> Result<()> {
        output::step("the pods, and traffic between them: on one node, across nodes, over IPv6");
        self.show("get", "pods -n shop")?;
        for probe in [
            "--from shop/client --to shop/web-1 --port 80",
            "--from shop/client --to shop/web-2 --port 80",
            "--from shop/client --to shop/web-2 --port 80 --family 6",
            "--from shop/client --to shop/web-2 --port 53 --protocol udp",
        ] {
            self.show("probe", probe)?;
        }
        Ok(())
    }

    fn show_flow(&self) -> Result<()> {
        output::step("a healthy flow, as the kernel keeps it on node n1");
        let rest = "n1 -- weir bpf ct list global";
        output::data(format_args!("$ weir lab node --name {} {rest}", self.lab));
        let mut command = self.weir(&["lab", "node", "--name", &self.lab])?;
        let flows = stdout_of(command.args(rest.split(' ')))?;
        // Both directions of the connection to the other node, the opening one first.
        let mut web: Vec<&str> = flows
            .lines()
            .filter(|line| {
                line.contains("(shop/web-2)") && line.starts_with("TCP") && !line.contains("[fd00")
            })
            .collect();
        if web.is_empty() {
            bail!("no flow to shop/web-2 is in the table of n1, though the probe was answered");
        }
        web.sort_by_key(|line| line.contains("Reply"));
        web.iter().for_each(output::data);
        output::data("");
        Ok(())
    }

    fn show_drop(&self) -> Result<()> {
        output::step(
            "a dropped packet with its reason: the client still uses the address of a pod that is gone",
        );
        let rest = "n1 -- weir monitor --type drop";
        output::data(format_args!("$ weir lab node --name {} {rest} &", self.lab));
        // Ended by `timeout`: as an ordinary user we may not end what runs as root.
        let mut command = root_command("timeout")?;
        command
            .args(["--kill-after=1", "30"])
            .arg(&self.weir)
            .args(["lab", "node", "--name", &self.lab]);
        command.args(rest.split(' '));
        let monitor = Monitor::start(&mut command)?;

        let probe = format!("--from shop/client --to {GONE} --port 80 --timeout 1s");
        output::data(format_args!("$ weir lab probe --name {} {probe}", self.lab));
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            // Exit status 1 is the very thing to be shown: the packet does not arrive.
            let mut command = self.weir(&["lab", "probe", "--name", &self.lab])?;
            let answer = command
                .args(probe.split(' '))
                .stdin(Stdio::null())
                .output()
                .with_context(|| format!("cannot start `{}`", display(&command)))?;
            let shown = monitor.lines_with(GONE, Duration::from_secs(1));
            if !shown.is_empty() {
                output::data(String::from_utf8_lossy(&answer.stdout).trim_end());
                shown.iter().for_each(output::data);
                output::data("");
                return Ok(());
            }
        }
        bail!("the monitor showed no drop of a packet to {GONE}");
    }

    fn say_goodbye(&self) {
        let sudo = if crate::process::is_root() {
            ""
        } else {
            "sudo "
        };
        let weir = self
            .weir
            .strip_prefix(workspace::root())
            .unwrap_or(&self.weir)
            .display();
        let name = &self.lab;
        output::step("the lab is running; three commands to try next");
        output::data(format_args!(
            "  {sudo}{weir} lab node --name {name} n1 -- weir status --verbose"
        ));
        output::data(format_args!(
            "  {sudo}{weir} lab exec --name {name} shop/client -- cat /etc/resolv.conf"
        ));
        output::data(format_args!("  {sudo}{weir} lab down --name {name}"));
    }
}

/// `weir monitor` in the background.
struct Monitor {
    child: Child,
    lines: Receiver<String>,
}

impl Monitor {
    fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", display(command)))?;
        let stdout = child
            .stdout
            .take()
            .context("the output of the monitor is not piped")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The first line that contains the word, with the line after it (the hint); empty when none comes in time.
    fn lines_with(&self, word: &str, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let mut found: Vec<String> = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if !found.is_empty() && !line.starts_with(' ') && !line.starts_with("hint") {
                break;
            }
            if !found.is_empty() || line.contains(word) {
                found.push(line);
            }
        }
        found
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // `timeout` hands the signal on to the monitor; a kill would leave it behind.
        if let Ok(mut kill) = root_command("kill") {
            let _ = stdout_of(kill.arg(self.child.id().to_string()));
        }
        let _ = self.child.wait();
    }
}
