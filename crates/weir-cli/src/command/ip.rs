// SPDX-License-Identifier: Apache-2.0
//! `ip`: who is behind which address.

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Output, Table};
use weir_abi::Identity;
use weir_api::kernel::IpcacheEntry;
use weir_api::path;

/// Shows who is behind which address
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists every known address and range with its identity
    #[command(
        after_help = "Examples:\n  weir ip list | grep 10.244.1.7\n  weir ip list -n -o json"
    )]
    List {
        /// Identities as numbers instead of labels
        #[arg(short, long)]
        numeric: bool,
        /// Show the node behind whose tunnel it is, too
        #[arg(short, long)]
        verbose: bool,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    let Command::List {
        numeric,
        verbose,
        output,
    } = args.command;
    let entries: Vec<IpcacheEntry> = context.client.get(path::IPCACHE)?;
    context.emit(&output.format, &entries, |entries| {
        table(entries, numeric, verbose)
    })?;
    Ok(Outcome::Fine)
}

fn table(entries: &[IpcacheEntry], numeric: bool, verbose: bool) -> Vec<String> {
    let mut table = if verbose {
        Table::new(["IP", "IDENTITY", "SOURCE", "NAME", "TUNNEL", "FLAGS"])
    } else {
        Table::new(["IP", "IDENTITY", "SOURCE", "NAME"])
    };
    for entry in entries {
        let mut cells = vec![
            entry.prefix.clone(),
            identity(entry, numeric),
            entry.source.clone(),
            entry.name.clone(),
        ];
        if verbose {
            cells.push(entry.tunnel_endpoint.clone().unwrap_or_default());
            cells.push(entry.flags.join(","));
        }
        table.cells(cells);
    }
    table.lines()
}

fn identity(entry: &IpcacheEntry, numeric: bool) -> String {
    match (numeric, entry.labels.is_empty()) {
        (true, _) => entry.identity.to_string(),
        (false, true) => Identity(entry.identity).to_string(),
        (false, false) => entry.labels.join("\n"),
    }
}
