// SPDX-License-Identifier: Apache-2.0
//! `config`: what the agent runs with.

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output, Table};
use serde_json::{Map, Value};
use weir_api::path;

/// Shows the configuration that the agent runs with, defaults included
///
/// It is changed in the agent's file (/etc/weir/config.yaml) or on its command line.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  weir config\n  weir config get routingMode\n  weir config -o yaml"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Options to change: refused, with the place where they are changed
    #[arg(value_name = "OPTION=VALUE", hide = true)]
    changes: Vec<String>,
    /// Taken so that scripts run: everything is shown anyway
    #[arg(short = 'a', long, hide = true)]
    all: bool,
    #[arg(short = 'r', long, hide = true)]
    read_only: bool,
    #[arg(long, hide = true)]
    list_options: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Shows one value
    #[command(
        after_help = "Examples:\n  weir config get routingMode\n  weir config get routing-mode"
    )]
    Get {
        /// The field's name; dots go into nested fields
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    if let Some(change) = args.changes.first() {
        return Err(CliError::typed(
            format!("`{change}` cannot be changed while the agent runs"),
            "change /etc/weir/config.yaml and restart the agent; traffic goes on meanwhile",
        ));
    }
    let config: Map<String, Value> = context.client.get(path::CONFIG)?;
    match args.command {
        None => context.emit(&args.output.format, &config, table)?,
        Some(Command::Get { key, output }) => {
            let value = find(&config, &key).ok_or_else(|| {
                CliError::missing(
                    format!("there is no configuration field `{key}`"),
                    "`weir config` shows all of them",
                )
            })?;
            match (&output.format, value) {
                // A single value is what scripts want to compare.
                (Format::Table, value) if !value.is_object() => {
                    context.printer.line(plain(value))?;
                }
                (format, value) => context.emit(format, value, |value| {
                    value.as_object().map(table).unwrap_or_default()
                })?,
            }
        }
    }
    Ok(Outcome::Fine)
}

/// By the name in the file or on the command line, in any case.
fn find<'a>(config: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    let (first, rest) = match key.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (key, None),
    };
    let wanted = folded(first);
    let (_, value) = config.iter().find(|(name, _)| folded(name) == wanted)?;
    match rest {
        None => Some(value),
        Some(rest) => find(value.as_object()?, rest),
    }
}

fn folded(name: &str) -> String {
    name.replace(['-', '_'], "").to_lowercase()
}

fn table(config: &Map<String, Value>) -> Vec<String> {
    let mut table = Table::default();
    add(&mut table, "", config);
    table.lines()
}

fn add(table: &mut Table, prefix: &str, config: &Map<String, Value>) {
    for (name, value) in config {
        let name = format!("{prefix}{name}");
        match value.as_object().filter(|below| !below.is_empty()) {
            Some(below) => add(table, &format!("{name}."), below),
            None => table.row([name, plain(value)]),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_found_by_both_of_their_names() {
        let config = json!({"routingMode": "tunnel", "mapSizes": {"flows": 524_288}});
        let config = config.as_object().unwrap();
        for (key, expected) in [
            ("routingMode", Some("tunnel")),
            ("routing-mode", Some("tunnel")),
            ("mapSizes.flows", Some("524288")),
            ("mapSizes.other", None),
            ("routingMode.x", None),
        ] {
            assert_eq!(find(config, key).map(plain).as_deref(), expected, "{key}");
        }
    }
}
