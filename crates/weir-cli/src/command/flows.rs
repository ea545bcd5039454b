// SPDX-License-Identifier: Apache-2.0
//! `flows`: what happened to packets lately, by names.

mod ends;

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output, render, style};
use ends::{Either, From, To};
use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};
use weir_abi::DropReason;
use weir_api::event::Event;
use weir_api::path;
use weir_observe::clock::rfc3339;
use weir_observe::filter::TypeFilter;
use weir_observe::flow::{FlowFilter, FlowStyle, Verdict, lines};

/// Shows what happened to packets lately, or as it happens, by the names of pods and services
///
/// The agent remembers the last packets of each flow: when it began, ended, changed, and every drop
/// and verdict of policy. Values of one option are alternatives, different options must all agree.
/// Without --last, --first, --all, --since or --follow, the last 20 are shown.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    weir flows --pod shop/web\n  \
    weir flows --verdict DROPPED --since 5m -v\n  \
    weir flows --from-pod shop/client --to-port 80 --follow\n  \
    weir flows --namespace shop --label app=web --type policy-verdict\n  \
    weir flows --drop-reason POLICY_DENIED --all -o json")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of a command line"
)]
pub(crate) struct Args {
    #[command(flatten)]
    either: Either,
    #[command(flatten)]
    from: From,
    #[command(flatten)]
    to: To,
    /// Only packets to this service: NAMESPACE/NAME, or NAMESPACE/NAME:PORT
    #[arg(long, value_name = "SERVICE", value_delimiter = ',')]
    service: Vec<String>,
    /// tcp, udp, sctp, icmp or icmpv6
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    protocol: Vec<String>,
    /// FORWARDED, DROPPED, ALLOWED or DENIED
    #[arg(long, value_name = "VERDICT", value_delimiter = ',')]
    verdict: Vec<Verdict>,
    /// Only drops for this reason, by number or by either name
    #[arg(
        long,
        alias = "drop-reason-desc",
        value_name = "REASON",
        value_delimiter = ',',
        value_parser = reason
    )]
    drop_reason: Vec<DropReason>,
    /// drop, trace or policy-verdict; drop:REASON and trace:POINT narrow
    #[arg(short = 't', long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<TypeFilter>,
    /// Only answers
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    reply: Option<bool>,
    /// Only later ones: 30s, 5m, 2h, or a time such as 2026-03-01T10:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<String>,
    /// Only earlier ones
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<String>,
    /// Only the last so many
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["first", "all"])]
    last: Option<usize>,
    /// Only the first so many
    #[arg(long, value_name = "NUMBER", conflicts_with = "all")]
    first: Option<usize>,
    /// All that are remembered
    #[arg(long)]
    all: bool,
    /// Go on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Show what to do about drops
    #[arg(short, long)]
    verbose: bool,
    /// Addresses instead of names
    #[arg(long)]
    numeric: bool,
    /// Begin each line with the node's name
    #[arg(long)]
    print_node_name: bool,
    #[command(flatten)]
    output: Output,
}

/// Shown where nothing else says how many.
const LAST: usize = 20;
/// Stands between what is remembered and what comes.
const LIVE: &str = "flows-live";

fn reason(text: &str) -> Result<DropReason, String> {
    DropReason::parse(text).ok_or_else(|| {
        "no drop reason, see `weir bpf metrics list` or the page of drop reasons".to_owned()
    })
}

/// A moment as events tell it.
fn when(text: &str) -> Result<String, String> {
    let wrong = || "give 30s, 5m, 2h, 1d, or a time such as 2026-03-01T10:00:00Z".to_owned();
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(rfc3339(time.as_nanosecond()));
    }
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let seconds: i128 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| i128::try_from(now.as_nanos()).unwrap_or(i128::MAX));
    Ok(rfc3339(now - i128::from(number) * seconds * 1_000_000_000))
}

/// Which of what is remembered is shown.
#[derive(Clone, Copy)]
enum Amount {
    All,
    First(usize),
    Last(usize),
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    let amount = match (args.last, args.first) {
        (Some(last), _) => Amount::Last(last),
        (None, Some(first)) => Amount::First(first),
        (None, None) if args.all || args.since.is_some() || args.until.is_some() => Amount::All,
        (None, None) if args.follow => Amount::Last(0),
        (None, None) => Amount::Last(LAST),
    };
    let style = FlowStyle {
        numeric: args.numeric,
        hints: args.verbose,
        node: args.print_node_name,
    };
    let (follow, format) = (args.follow, args.output.format);
    let filter = FlowFilter {
        from: args.from.into(),
        to: args.to.into(),
        either: args.either.into(),
        protocols: args.protocol,
        verdicts: args.verdict,
        reasons: args.drop_reason,
        types: args.types,
        services: args.service,
        since: args.since,
        until: args.until,
        reply: args.reply,
    };
    let request = if follow {
        format!("{}?follow=true", path::OBSERVED)
    } else {
        path::OBSERVED.to_owned()
    };
    let mut waiting = VecDeque::new();
    let mut shown = 0;
    let mut live = false;
    for event in context.client.stream::<Event>(&request)? {
        let event = event?;
        if matches!(&event, Event::Agent(agent) if agent.subtype == LIVE) {
            live = true;
            for event in waiting.drain(..) {
                print(context, &event, style, &format)?;
            }
            context.printer.flush()?;
        }
        if !filter.matches(&event) {
            continue;
        }
        match amount {
            Amount::Last(last) if !live => {
                waiting.push_back(event);
                if waiting.len() > last {
                    waiting.pop_front();
                }
                continue;
            }
            Amount::First(first) if shown >= first => return Ok(Outcome::Fine),
            Amount::All | Amount::First(_) | Amount::Last(_) => {}
        }
        shown += 1;
        print(context, &event, style, &format)?;
        if live {
            // Each one is seen when it happens, also through a pipe.
            context.printer.flush()?;
        }
    }
    for event in waiting {
        print(context, &event, style, &format)?;
    }
    if follow {
        return Err(CliError::StreamEnded);
    }
    Ok(Outcome::Fine)
}

fn print(
    context: &mut Context,
    event: &Event,
    shown: FlowStyle,
    format: &Format,
) -> Result<(), CliError> {
    match format {
        Format::Table => {
            for line in lines(event, shown) {
                context.printer.line(coloured(event, line))?;
            }
        }
        Format::Yaml => {
            context.printer.line("---")?;
            context.printer.line(render(format, event, true)?)?;
        }
        Format::Json | Format::JsonPath(_) => {
            context.printer.line(render(format, event, true)?)?;
        }
    }
    Ok(())
}

fn coloured(event: &Event, line: String) -> String {
    let bad = match event {
        Event::Drop(_) | Event::Lost(_) => true,
        Event::PolicyVerdict(packet) => packet.reason_code.is_some(),
        Event::Trace(_) | Event::Agent(_) => false,
    };
    if line.starts_with("  hint: ") {
        style::paint(style::HINT, &line)
    } else if bad {
        style::paint(style::BAD, &line)
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_understood() {
        assert_eq!(
            when("2026-03-01T11:00:00+01:00"),
            Ok("2026-03-01T10:00:00.000000000Z".to_owned())
        );
        let now = when("0s").unwrap();
        assert!(when("5m").unwrap() < now && when("1d").unwrap() < when("2h").unwrap());
        for text in ["", "5", "m", "-5m", "5w", "yesterday"] {
            assert!(when(text).is_err(), "{text}");
        }
    }
}
