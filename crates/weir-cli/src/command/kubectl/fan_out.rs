// SPDX-License-Identifier: Apache-2.0
//! The same command in every agent at once.

use super::agents::{Agent, Kubectl};
use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::{style, talk};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ExitCode, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;

/// A line that an agent's command has written.
struct Line {
    agent: usize,
    talk: bool,
    text: String,
}

/// Commands that still run when nobody reads any more must end.
struct Running(Vec<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(super) fn run(
    kubectl: &Kubectl,
    agents: &[Agent],
    words: &[OsString],
    context: &mut Context,
) -> Result<Outcome, CliError> {
    let mut running = Running(Vec::new());
    let (sender, lines) = channel();
    for (number, agent) in agents.iter().enumerate() {
        let mut child = kubectl
            .exec(agent, &[], words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| kubectl.cannot_start(&error))?;
        follow(number, false, child.stdout.take(), &sender);
        follow(number, true, child.stderr.take(), &sender);
        running.0.push(child);
    }
    drop(sender);

    let width = agents.iter().map(|agent| agent.node.len()).max();
    let width = width.unwrap_or_default();
    for line in lines {
        let Some(agent) = agents.get(line.agent) else {
            continue;
        };
        let text = format!("{:width$}  {}", agent.node, line.text);
        if line.talk {
            talk("", style::HINT, text);
        } else {
            context.printer.line(text)?;
            context.printer.flush()?;
        }
    }
    Ok(Outcome::Status(worst(&mut running)))
}

fn follow(
    agent: usize,
    talk: bool,
    output: Option<impl Read + Send + 'static>,
    lines: &Sender<Line>,
) {
    let Some(output) = output else { return };
    let lines = lines.clone();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|length| length > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if lines.send(Line { agent, talk, text }).is_err() {
                return;
            }
        }
    });
}

/// The highest exit status: 2, could not run, stands above 1, a problem was found.
fn worst(running: &mut Running) -> ExitCode {
    let codes = running.0.iter_mut().map(|child| {
        let code = child.wait().ok().and_then(|status| status.code());
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(2)
    });
    ExitCode::from(codes.max().unwrap_or_default())
}
