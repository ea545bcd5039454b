// SPDX-License-Identifier: Apache-2.0
//! `bpf ct list` and `bpf nat list`: two views of the flow table.
//!
//! One line for each entry and no header: people pipe them to `wc -l`. The table can hold half a
//! million entries, so lines are printed while they arrive.

use crate::command::endpoint::{self, Reference};
use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, emit};
use crate::text::{beside, socket};
use std::fmt::Write as _;
use weir_api::endpoint::Endpoint;
use weir_api::kernel::Flow;
use weir_api::path;

/// Whose flows.
pub(super) enum Scope {
    Global,
    Endpoint(Reference),
}

impl Scope {
    /// `global`, `endpoint 412` or, as older tools take it, `412`.
    pub(super) fn new(scope: &str, endpoint: Option<&str>) -> Result<Self, CliError> {
        match (scope, endpoint) {
            ("global", None) => Ok(Self::Global),
            ("endpoint", Some(id)) => id.parse().map(Self::Endpoint),
            ("endpoint", None) => Err(CliError::typed(
                "which endpoint?",
                "`weir bpf ct list endpoint ID`, see `weir endpoint list`",
            )),
            (id, None) => id.parse().map(Self::Endpoint).map_err(|_| {
                CliError::typed(
                    format!("`{id}` is no scope of the flow table"),
                    "use `global`, or `endpoint ID`",
                )
            }),
            (scope, Some(_)) => Err(CliError::typed(
                format!("`{scope}` takes no further argument"),
                "use `global`, or `endpoint ID`",
            )),
        }
    }
}

pub(super) fn ct(
    context: &mut Context,
    scope: &Scope,
    numeric: bool,
    format: &Format,
) -> Result<Outcome, CliError> {
    let addresses = match scope {
        Scope::Global => None,
        Scope::Endpoint(reference) => {
            Some(addresses(&endpoint::fetch(&context.client, reference)?))
        }
    };
    let wanted = |flow: &Flow| {
        addresses.as_ref().is_none_or(|addresses| {
            addresses.contains(&flow.source) || addresses.contains(&flow.destination)
        })
    };
    list(context, format, wanted, |flow| ct_line(flow, numeric))
}

pub(super) fn nat(
    context: &mut Context,
    numeric: bool,
    format: &Format,
) -> Result<Outcome, CliError> {
    let wanted = |flow: &Flow| flow.masquerade;
    list(context, format, wanted, |flow| nat_line(flow, numeric))
}

fn addresses(endpoint: &Endpoint) -> Vec<String> {
    let addressing = endpoint.status.networking.addressing.iter();
    addressing
        .flat_map(|pair| [pair.ipv4.clone(), pair.ipv6.clone()])
        .flatten()
        .collect()
}

fn list(
    context: &mut Context,
    format: &Format,
    wanted: impl Fn(&Flow) -> bool,
    line: impl Fn(&Flow) -> String,
) -> Result<Outcome, CliError> {
    let flows = context.client.stream::<Flow>(path::FLOWS)?;
    let mut kept = Vec::new();
    for flow in flows {
        let flow = flow?;
        if !wanted(&flow) {
            continue;
        }
        if *format == Format::Table {
            context.printer.line(line(&flow))?;
        } else {
            kept.push(flow);
        }
    }
    if *format != Format::Table {
        emit(&mut context.printer, format, &kept, |_| Vec::new())?;
    }
    Ok(Outcome::Fine)
}

fn ct_line(flow: &Flow, numeric: bool) -> String {
    let mut flags = Vec::new();
    if flow.reply {
        flags.push("Reply".to_owned());
    }
    flags.extend(flow.flags.iter().cloned());
    if flow.masquerade {
        flags.push("Masquerade".to_owned());
    }
    if !flow.current {
        flags.push("Outdated".to_owned());
    }
    let flags: String = flags.into_iter().map(|flag| flag + " ").collect();
    let mut line = format!(
        "{} {} {}{} -> {}{} {} Packets={} Bytes={} FlagsSeen={:#04x} Flags=[ {}] SourceSecurityID={} Action={} Created={}sec ago",
        flow.protocol,
        flow.direction,
        socket(&flow.source, flow.source_port),
        beside(&flow.source_name, numeric),
        socket(&flow.destination, flow.destination_port),
        beside(&flow.destination_name, numeric),
        remaining(flow.expires_in),
        flow.packets,
        flow.bytes,
        flow.tcp_flags_seen,
        flags,
        flow.source_identity,
        flow.action,
        flow.created_ago,
    );
    if !flow.service.is_empty() && !numeric {
        let _ = write!(line, " Service={}", flow.service);
    }
    if let Some(translated) = &flow.translated {
        let _ = write!(
            line,
            " XLATE={} -> {}",
            socket(&translated.source, translated.source_port),
            socket(&translated.destination, translated.destination_port)
        );
    }
    line
}

/// In the peers' words, for those who search for them.
fn remaining(seconds: i64) -> String {
    if seconds < 0 {
        format!("(expired: {} sec(s) ago)", seconds.unsigned_abs())
    } else {
        format!("(remaining: {seconds} sec(s))")
    }
}

/// The direction that opened the flow changes its source, the answers get the old one back.
fn nat_line(flow: &Flow, numeric: bool) -> String {
    let (direction, what) = if flow.reply {
        ("IN", "XLATE_DST")
    } else {
        ("OUT", "XLATE_SRC")
    };
    let translated = flow.translated.as_ref().map(|translated| {
        if flow.reply {
            socket(&translated.destination, translated.destination_port)
        } else {
            socket(&translated.source, translated.source_port)
        }
    });
    format!(
        "{} {direction} {}{} -> {}{} {what} {} Created={}sec ago NeedsCT=1",
        flow.protocol,
        socket(&flow.source, flow.source_port),
        beside(&flow.source_name, numeric),
        socket(&flow.destination, flow.destination_port),
        beside(&flow.destination_name, numeric),
        translated.unwrap_or_default(),
        flow.created_ago,
    )
}
