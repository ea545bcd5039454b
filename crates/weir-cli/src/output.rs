// SPDX-License-Identifier: Apache-2.0
//! How an answer is shown: `-o table|json|yaml|jsonpath=…`.

mod jsonpath;
mod printer;
mod table;

pub(crate) use jsonpath::JsonPath;
pub(crate) use printer::{Printer, style, talk};
pub(crate) use table::Table;

use crate::error::CliError;
use serde::Serialize;
use std::str::FromStr;

/// The forms of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Format {
    /// For people.
    Table,
    Json,
    Yaml,
    JsonPath(JsonPath),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None => match text {
                "table" | "wide" | "compact" => Ok(Self::Table),
                "json" => Ok(Self::Json),
                "yaml" => Ok(Self::Yaml),
                "jsonpath" => Err("give the template: -o jsonpath='{[0].id}'".to_owned()),
                _ => Err("use table, json, yaml or jsonpath=TEMPLATE".to_owned()),
            },
            Some(("jsonpath", template)) => template
                .parse()
                .map(Self::JsonPath)
                .map_err(|error: jsonpath::JsonPathError| error.to_string()),
            Some(_) => Err("use table, json, yaml or jsonpath=TEMPLATE".to_owned()),
        }
    }
}

/// The option of every command that reads.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Output {
    /// table, json, yaml, or jsonpath=TEMPLATE as in `kubectl`
    #[arg(
        short = 'o',
        long = "output",
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true
    )]
    pub(crate) format: Format,
}

/// Prints an answer: the lines of `table` for people, or the value in the form asked for.
pub(crate) fn emit<T: Serialize>(
    printer: &mut Printer,
    format: &Format,
    value: &T,
    table: impl FnOnce(&T) -> Vec<String>,
) -> Result<(), CliError> {
    if *format == Format::Table {
        for line in table(value) {
            printer.line(line)?;
        }
        return Ok(());
    }
    printer.line(render(format, value, false)?)
}

/// A value as JSON, YAML or what a template makes of it. `compact`: JSON on one line.
pub(crate) fn render<T: Serialize>(
    format: &Format,
    value: &T,
    compact: bool,
) -> Result<String, CliError> {
    match format {
        Format::Json if compact => Ok(serde_json::to_string(value)?),
        Format::Table | Format::Json => Ok(serde_json::to_string_pretty(value)?),
        Format::Yaml => {
            let text = serde_saphyr::to_string(value).map_err(|error| CliError::yaml(&error))?;
            Ok(text.trim_end().to_owned())
        }
        Format::JsonPath(path) => {
            let text = path.render(&serde_json::to_value(value)?);
            Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
        }
    }
}
