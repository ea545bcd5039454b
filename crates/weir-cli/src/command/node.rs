// SPDX-License-Identifier: Apache-2.0
//! `node`: the cluster's nodes as this node knows them.

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Output, Table};
use weir_api::kernel::NodeEntry;
use weir_api::path;

/// Shows the cluster's nodes as this node knows them
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists all nodes with their addresses and pod CIDRs
    #[command(
        after_help = "Examples:\n  weir node list\n  weir node list -o jsonpath='{[*].name}'"
    )]
    List {
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    let Command::List { output } = args.command;
    let nodes: Vec<NodeEntry> = context.client.get(path::NODES)?;
    context.emit(&output.format, &nodes, |nodes| table(nodes))?;
    Ok(Outcome::Fine)
}

fn table(nodes: &[NodeEntry]) -> Vec<String> {
    let mut table = Table::new([
        "Name",
        "IPv4 Address",
        "Endpoint CIDR",
        "IPv6 Address",
        "Endpoint CIDR",
        "Source",
        "Tunnel",
    ]);
    for node in nodes {
        let family = |texts: &[String], six: bool| {
            let found: Vec<&str> = texts
                .iter()
                .map(String::as_str)
                .filter(|text| text.contains(':') == six)
                .collect();
            found.join("\n")
        };
        let tunnel = match (node.local, node.index) {
            (true, _) => "(local)".to_owned(),
            (false, 0) => String::new(),
            (false, index) => index.to_string(),
        };
        table.row([
            node.name.clone(),
            family(&node.addresses, false),
            family(&node.pod_cidrs, false),
            family(&node.addresses, true),
            family(&node.pod_cidrs, true),
            node.source.clone(),
            tunnel,
        ]);
    }
    table.lines()
}
