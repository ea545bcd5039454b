// SPDX-License-Identifier: Apache-2.0
//! `status`: is the node's dataplane healthy, and how full is it?

mod facts;
mod tables;

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output, style};
use crate::text::duration;
use facts::{facts, replacement_details};
use std::time::Duration;
use tables::{controllers, maps, nodes, policy_sets};
use weir_api::path;
use weir_api::status::{Controller, Status, Subsystem};

/// Shows whether the dataplane of this node is healthy; exit status 1 when it is not
///
/// One line for each part. `--verbose` adds controllers, maps (used, size, percent) and nodes.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    weir status\n  \
    weir status --brief && echo healthy\n  \
    weir status --verbose | grep -i \"ct-\"\n  \
    weir status -o jsonpath='{.revision}'")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of a command line"
)]
pub(crate) struct Args {
    /// Print everything that is known
    #[arg(long)]
    verbose: bool,
    /// Print only OK, or the first thing that is wrong
    #[arg(long, conflicts_with = "verbose")]
    brief: bool,
    /// Show every controller, also healthy ones
    #[arg(long)]
    all_controllers: bool,
    /// Show the cluster's nodes
    #[arg(long)]
    all_nodes: bool,
    /// The same as --verbose would add for these; taken so that scripts run
    #[arg(long, hide = true)]
    all_addresses: bool,
    #[arg(long, hide = true)]
    all_clusters: bool,
    #[arg(long, hide = true)]
    all_health: bool,
    #[arg(long, hide = true)]
    all_redirects: bool,
    /// Seconds to wait for the agent
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,
    #[command(flatten)]
    output: Output,
}

/// What to show of the sections.
struct Sections {
    controllers: bool,
    nodes: bool,
    details: bool,
}

/// `30`, `30s`, `2m`.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    match number.parse::<u64>() {
        Ok(number @ 1..=3600) => Ok(Duration::from_secs(number * unit)),
        _ => Err("give seconds, such as 30 or 30s".to_owned()),
    }
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Outcome, CliError> {
    let client = context.client.clone().with_timeout(args.timeout);
    let status: Status = client.get(path::STATUS)?;
    if args.brief && args.output.format == Format::Table {
        context.printer.line(brief(&status))?;
    } else {
        let sections = Sections {
            controllers: args.verbose || args.all_controllers,
            nodes: args.verbose || args.all_nodes || args.all_health,
            details: args.verbose || args.all_addresses,
        };
        context.emit(&args.output.format, &status, |status| {
            lines(status, &sections)
        })?;
    }
    Ok(Outcome::problem_if(!status.healthy))
}

fn brief(status: &Status) -> String {
    let failing = status.subsystems.iter().find(|part| !part.healthy);
    match failing {
        Some(part) => format!("error in {}: {}", part.name, part.message),
        None if !status.healthy => "error in agent: not healthy".to_owned(),
        None => "OK".to_owned(),
    }
}

/// Where the second column begins.
const SECOND: usize = 22;

fn named(name: &str, text: &str) -> String {
    format!("{:SECOND$}{text}", format!("{name}:"))
        .trim_end()
        .to_owned()
}

fn health(healthy: bool, message: &str) -> String {
    let word = if healthy {
        style::paint(style::GOOD, "Ok")
    } else {
        style::paint(style::BAD, "Failure")
    };
    format!("{word}   {message}")
}

fn lines(status: &Status, sections: &Sections) -> Vec<String> {
    let summary = format!(
        "{}, node {}, revision {}, up {}",
        status.version,
        status.node_name,
        status.revision,
        duration(status.uptime_seconds)
    );
    let mut lines = vec![named("Weir", &health(status.healthy, &summary))];
    lines.extend(
        status
            .subsystems
            .iter()
            .map(|part| named(&title(part), &health(part.healthy, &part.message))),
    );
    lines.extend(facts(status));
    lines.push(controllers_summary(&status.controllers));
    if sections.controllers {
        lines.extend(indented(controllers(&status.controllers).lines()));
    }
    if sections.details {
        lines.push("KubeProxyReplacement Details:".to_owned());
        lines.extend(indented(replacement_details(status)));
        let sets = &status.policy_sets;
        lines.push(named("Policy Sets", &sets.len().to_string()));
        if !sets.is_empty() {
            lines.extend(indented(policy_sets(sets).lines()));
        }
        lines.push("BPF Maps:".to_owned());
        lines.extend(indented(maps(&status.maps).lines()));
    }
    if sections.nodes {
        lines.push(named("Nodes", &status.nodes.len().to_string()));
        lines.extend(indented(nodes(&status.nodes).lines()));
    }
    lines
}

fn title(part: &Subsystem) -> String {
    if part.name == "ipam" {
        return "IPAM".to_owned();
    }
    capital(&part.name)
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

fn controllers_summary(controllers: &[Controller]) -> String {
    let healthy = controllers
        .iter()
        .filter(|controller| controller.consecutive_errors == 0)
        .count();
    named(
        "Controller Status",
        &format!("{healthy}/{} healthy", controllers.len()),
    )
}

fn indented(lines: Vec<String>) -> impl Iterator<Item = String> {
    lines.into_iter().map(|line| format!("  {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_outs_are_read() {
        assert_eq!(seconds("30"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("2m"), Ok(Duration::from_mins(2)));
        for text in ["", "s", "-1", "0", "99999999999999999999"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
