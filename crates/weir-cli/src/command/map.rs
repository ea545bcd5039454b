// SPDX-License-Identifier: Apache-2.0
//! `map`: the kernel's maps, and whether their rows are as desired.

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Output, Table};
use crate::text::{path_segment, percent};
use weir_api::kernel::{MapEntry, MapState};
use weir_api::{ClientError, path};

/// Shows the kernel's maps and their rows
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists all maps with used, size and percent
    #[command(
        after_help = "Examples:\n  weir map list\n  weir map list -o jsonpath='{[?(@.name==\"flows\")].used}'"
    )]
    List {
        /// Taken so that scripts run: everything is shown anyway
        #[arg(long, hide = true)]
        verbose: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Shows the rows of a map; exit status 1 when one is not as desired
    ///
    /// State: `sync` as desired, `dynamic` written by the programs, `foreign` nobody asked for it,
    /// `changed` or `missing`.
    #[command(after_help = "Examples:\n  weir map get ipcache\n  weir map get endpoints -o json")]
    Get {
        /// As `weir map list` shows it
        #[arg(value_name = "NAME")]
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    match args.command {
        Command::List { verbose: _, output } => {
            let maps: Vec<MapState> = context.client.get(path::MAPS)?;
            context.emit(&output.format, &maps, |maps| list(maps))?;
            Ok(Outcome::Fine)
        }
        Command::Get { name, output } => {
            let request = path::MAP.replace("{name}", &path_segment(&name));
            let entries: Vec<MapEntry> = context.client.get(&request).map_err(unknown)?;
            context.emit(&output.format, &entries, |entries| rows(entries))?;
            let drifted = |entry: &MapEntry| {
                matches!(entry.state.as_str(), "foreign" | "changed" | "missing")
            };
            Ok(Outcome::problem_if(entries.iter().any(drifted)))
        }
    }
}

/// A map that is not there deserves a hint, even if the agent has none.
fn unknown(error: ClientError) -> CliError {
    if let ClientError::Refused {
        status: 404,
        problem,
    } = &error
        && problem.hint.is_none()
    {
        return CliError::missing(&problem.error, "`weir map list` shows the names");
    }
    error.into()
}

fn list(maps: &[MapState]) -> Vec<String> {
    let mut table = Table::new([
        "Name",
        "Num entries",
        "Size",
        "Percent",
        "Num errors",
        "Kind",
        "Title",
    ])
    .right([1, 2, 3, 4]);
    for map in maps {
        table.row([
            map.name.clone(),
            map.used
                .map_or_else(|| "-".to_owned(), |used| used.to_string()),
            map.size.to_string(),
            map.used
                .map_or_else(|| "-".to_owned(), |used| percent(used, map.size)),
            map.errors.to_string(),
            map.kind.clone(),
            map.title.clone(),
        ]);
    }
    table.lines()
}

fn rows(entries: &[MapEntry]) -> Vec<String> {
    let mut table = Table::new(["Key", "Value", "State"]);
    for entry in entries {
        table.row([&entry.key, &entry.value, &entry.state].map(String::as_str));
    }
    table.lines()
}
