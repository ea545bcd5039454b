// SPDX-License-Identifier: Apache-2.0
//! `bpf policy get`: the rows that decide for an endpoint, with their counters.

use crate::command::endpoint::Reference;
use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output, Table};
use crate::text::path_segment;
use weir_api::path;
use weir_api::policy::{EndpointPolicy, PolicyRow};

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Shows the policy rows of an endpoint, or of all
    ///
    /// Endpoints with equal labels share their rows and counters. BYTES and PACKETS count the
    /// connections that a row decided, not every packet of theirs.
    #[command(
        after_help = "Examples:\n  weir bpf policy get 412\n  weir bpf policy get shop/web-0 -n\n  weir bpf policy get --all"
    )]
    Get {
        #[arg(value_name = "ENDPOINT", required_unless_present = "all")]
        endpoint: Option<String>,
        /// Every endpoint of this node
        #[arg(long, conflicts_with = "endpoint")]
        all: bool,
        /// Numbers of identities instead of their labels
        #[arg(short, long)]
        numeric: bool,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(command: Command, context: &mut Context) -> Result<Outcome, CliError> {
    let Command::Get {
        endpoint,
        all: _,
        numeric,
        output,
    } = command;
    let request = match endpoint {
        Some(endpoint) => {
            let reference: Reference = endpoint.parse()?;
            format!(
                "{}/{}",
                path::KERNEL_POLICY,
                path_segment(reference.as_str())
            )
        }
        None => path::KERNEL_POLICY.to_owned(),
    };
    let found: Vec<EndpointPolicy> = context.client.get(&request)?;
    show(context, &found, numeric, &output.format)?;
    let drifted = |row: &PolicyRow| row.state != "sync";
    let drifted = found.iter().any(|one| one.rows.iter().any(drifted));
    Ok(Outcome::problem_if(drifted))
}

fn show(
    context: &mut Context,
    found: &[EndpointPolicy],
    numeric: bool,
    format: &Format,
) -> Result<(), CliError> {
    context.emit(format, &found, |found| {
        let mut lines = Vec::new();
        for endpoint in *found {
            if found.len() > 1 {
                lines.push(format!(
                    "Endpoint {} {}, set {}",
                    endpoint.endpoint, endpoint.pod, endpoint.set
                ));
            }
            lines.extend(rows(endpoint, numeric));
        }
        lines
    })
}

/// The peers' columns, and the rules behind each row.
fn rows(endpoint: &EndpointPolicy, numeric: bool) -> Vec<String> {
    let mut table = Table::new([
        "POLICY",
        "DIRECTION",
        "LABELS (source:key[=value])",
        "PORT/PROTO",
        "PROXY PORT",
        "AUTH TYPE",
        "BYTES",
        "PACKETS",
        "PRECEDENCE",
        "COOKIE",
        "RULES",
    ])
    .right([6, 7, 8, 9]);
    // Without a policy everything is allowed, which no row says.
    for (direction, enforced) in [
        ("Ingress", endpoint.ingress_enforced),
        ("Egress", endpoint.egress_enforced),
    ] {
        if !enforced {
            table.row([
                "Allow",
                direction,
                "ANY",
                "ANY",
                "NONE",
                "disabled",
                "-",
                "-",
                "-",
                "-",
                "no policy selects the pod",
            ]);
        }
    }
    for row in &endpoint.rows {
        let labels = match row.peer_kind.as_str() {
            "any" => "ANY".to_owned(),
            _ if numeric || row.labels.is_empty() => format!("{} {}", row.peer_kind, row.peer),
            _ => row.labels.join("\n"),
        };
        let rules: Vec<_> = row.rules.iter().map(ToString::to_string).collect();
        let mut rules = rules.join("\n");
        if row.state != "sync" {
            rules = format!("{} {rules}", row.state.to_uppercase());
        }
        table.row([
            row.action.clone(),
            row.direction.clone(),
            labels,
            row.port.clone(),
            "NONE".to_owned(),
            "disabled".to_owned(),
            row.bytes.to_string(),
            row.packets.to_string(),
            row.precedence.to_string(),
            row.cookie.to_string(),
            rules,
        ]);
    }
    table.lines()
}
