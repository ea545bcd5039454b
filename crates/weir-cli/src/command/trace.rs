// SPDX-License-Identifier: Apache-2.0
//! `trace`: where a packet would go, hop by hop, without sending one.

mod place;
mod show;

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::Output;
use serde::Serialize;
use std::path::PathBuf;
use weir_api::path;
use weir_api::trace::{Trace, TraceRequest, TraceStep, TraceVerdict};

pub(super) use place::{pod, read};
pub(super) use show::policies;

/// Shows where a packet would go: every program, look-up, translation and verdict
///
/// No packet is sent and nothing changes. The programs of this node answer over their live maps;
/// what happens on other nodes is worked out by the same code from what this node knows.
#[derive(clap::Args)]
#[command(
    after_help = "Places: NAMESPACE/POD, POD (in namespace default), svc:NAMESPACE/NAME, \
    node:NAME, world, or an address.\n\n\
    Examples:\n  \
    weir trace shop/cli svc:shop/web:80\n  \
    weir trace shop/cli shop/web:http\n  \
    weir trace shop/cli shop/dns:53/UDP\n  \
    weir trace node:n1 shop/web/ICMP\n  \
    weir trace world svc:shop/web:80 -o json"
)]
pub(crate) struct Args {
    /// Where the packet comes from
    #[arg(value_name = "FROM", required_unless_present = "batch")]
    from: Option<String>,
    /// Where it is sent to: a place, then :PORT, :PORT/PROTOCOL, :NAME or /ICMP
    #[arg(value_name = "TO[:PORT[/PROTO]]", required_unless_present = "batch")]
    to: Option<String>,
    /// Many questions: FROM and TO on each line of a file (`-`: standard input), one JSON answer for each
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to"])]
    batch: Option<PathBuf>,
    #[command(flatten)]
    suppositions: Suppositions,
    #[command(flatten)]
    output: Output,
}

/// What is taken for given, and the address family.
#[derive(clap::Args)]
pub(super) struct Suppositions {
    /// Tries policies before they are applied: a manifest, `-` for standard input
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// Tries what were if a policy did not exist
    #[arg(long, value_name = "NAMESPACE/NAME")]
    without: Vec<String>,
    /// 4 or 6 [default: 4 where both ends have it]
    #[arg(long, value_name = "FAMILY", value_parser = clap::value_parser!(u8).range(4..=6))]
    family: Option<u8>,
}

impl Suppositions {
    /// The question, with what is supposed.
    pub(super) fn question(
        &self,
        source: weir_api::trace::Place,
        destination: weir_api::trace::Place,
        ports: Vec<String>,
    ) -> Result<TraceRequest, CliError> {
        let with: Result<Vec<_>, _> = self.with.iter().map(|file| read(file)).collect();
        Ok(TraceRequest {
            source,
            destination,
            ports,
            family: self.family,
            with: with?,
            without: self.without.clone(),
        })
    }
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Outcome, CliError> {
    if let Some(file) = &args.batch {
        return batch(args, &read(file)?, context);
    }
    let (from, to) = (args.from.as_deref(), args.to.as_deref());
    let answer = about(
        args,
        from.unwrap_or_default(),
        to.unwrap_or_default(),
        context,
    )?;
    context.emit(&args.output.format, &answer, |answer| {
        answer.traces().flat_map(show::whole).collect()
    })?;
    Ok(answer.outcome())
}

fn about(args: &Args, from: &str, to: &str, context: &Context) -> Result<Answer, CliError> {
    let source = place::parse(from)?;
    let (destination, port) = place::parse_target(to)?;
    let ports = port.into_iter().collect();
    let question = args.suppositions.question(source, destination, ports)?;
    ask(context, &question)
}

/// One answer on each line, in the order of the questions; one that cannot be answered is a line with
/// `error`.
fn batch(args: &Args, questions: &str, context: &mut Context) -> Result<Outcome, CliError> {
    let mut outcome = Outcome::Fine;
    for line in questions.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let (from, to) = (words.next(), words.next());
        let line = match about(
            args,
            from.unwrap_or_default(),
            to.unwrap_or_default(),
            context,
        ) {
            Ok(answer) => {
                if answer.verdict() == TraceVerdict::Denied {
                    outcome = Outcome::Problem;
                }
                serde_json::to_string(&answer)?
            }
            Err(error @ (CliError::Typed { .. } | CliError::Missing { .. })) => failed(&error)?,
            Err(CliError::Agent(error @ weir_api::ClientError::Refused { .. })) => failed(&error)?,
            Err(error) => return Err(error),
        };
        context.printer.line(line)?;
    }
    Ok(outcome)
}

fn failed(error: &dyn std::error::Error) -> Result<String, CliError> {
    let line = serde_json::json!({ "error": error.to_string() });
    Ok(serde_json::to_string(&line)?)
}

/// Asks this node's agent.
pub(super) fn ask(context: &Context, question: &TraceRequest) -> Result<Answer, CliError> {
    let traces: Vec<Trace> = context.client.ask(path::TRACE, question)?;
    Answer::new(traces)
}

/// The answer for all ports: that for the first one that is denied, and all of them beside it.
#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    decisive: Trace,
    /// One for each port, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    traces: Vec<Trace>,
}

impl Answer {
    fn new(traces: Vec<Trace>) -> Result<Self, CliError> {
        let denied = |trace: &&Trace| trace.verdict == TraceVerdict::Denied;
        let decisive = traces.iter().find(denied).or_else(|| traces.first());
        let Some(mut decisive) = decisive.cloned() else {
            let hint = "agent and command may be of different versions: see `weir version`";
            return Err(CliError::missing("the agent gave no answer", hint));
        };
        if traces.len() < 2 {
            return Ok(Self {
                decisive,
                traces: Vec::new(),
            });
        }
        let steps: Vec<TraceStep> = traces.iter().flat_map(|one| one.steps.clone()).collect();
        decisive.steps = steps;
        Ok(Self { decisive, traces })
    }

    pub(super) fn traces(&self) -> impl Iterator<Item = &Trace> {
        let single = self.traces.is_empty().then_some(&self.decisive);
        single.into_iter().chain(&self.traces)
    }

    pub(super) fn verdict(&self) -> TraceVerdict {
        self.decisive.verdict
    }

    pub(super) fn outcome(&self) -> Outcome {
        Outcome::problem_if(self.verdict() == TraceVerdict::Denied)
    }
}
