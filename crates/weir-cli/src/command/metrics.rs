// SPDX-License-Identifier: Apache-2.0
//! `metrics`: what the agent tells Prometheus, as a table.

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Output, Table};
use regex_lite::Regex;
use serde::Serialize;
use std::collections::BTreeMap;
use weir_api::path;

/// Shows the agent's metrics
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists the metrics, all of them or those whose name or labels match
    #[command(
        after_help = "Examples:\n  weir metrics list\n  weir metrics list -p drop\n  weir metrics list -p '^cilium_.*_total$'"
    )]
    List {
        /// A regular expression, or a part of the name or of the labels
        #[arg(short = 'p', long, value_name = "PATTERN")]
        match_pattern: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Serialize)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
    /// As it was written: numbers beyond what JSON's readers keep stay exact for people.
    #[serde(skip)]
    text: String,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Outcome, CliError> {
    let Command::List {
        match_pattern,
        output,
    } = &args.command;
    let text = context.client.text(path::METRICS)?;
    let wanted = Pattern::new(match_pattern.as_deref());
    let samples: Vec<Sample> = text
        .lines()
        .filter_map(parse)
        .filter(|sample| wanted.matches(&sample.name) || wanted.matches(&sample.labels()))
        .collect();
    context.emit(&output.format, &samples, |samples| {
        let mut table = Table::new(["Metric", "Labels", "Value"]).right([2]);
        for sample in samples {
            table.row([sample.name.clone(), sample.labels(), sample.text.clone()]);
        }
        table.lines()
    })?;
    Ok(Outcome::Fine)
}

enum Pattern {
    Everything,
    Regex(Regex),
    /// What is no regular expression is looked for as it stands.
    Part(String),
}

impl Pattern {
    fn new(text: Option<&str>) -> Self {
        text.map_or(Self::Everything, |text| {
            Regex::new(text).map_or_else(|_| Self::Part(text.to_owned()), Self::Regex)
        })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Regex(regex) => regex.is_match(text),
            Self::Part(part) => text.contains(part),
        }
    }
}

impl Sample {
    fn labels(&self) -> String {
        let labels: Vec<String> = self
            .labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        labels.join(" ")
    }
}

/// A line of Prometheus' text form; comments and what is none are `None`.
fn parse(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let (name, labels, rest) = if let Some((name, rest)) = line.split_once('{') {
        let (labels, rest) = parse_labels(rest)?;
        (name, labels, rest)
    } else {
        let (name, rest) = line.split_once(' ')?;
        (name, BTreeMap::new(), rest)
    };
    let text = rest.split_whitespace().next()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: text.parse().ok()?,
        text: text.to_owned(),
    })
}

/// `key="value",…}` and what follows; values may hold escaped quotes.
fn parse_labels(text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, value) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = value.find(|c| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        })?;
        let plain = value
            .get(..end)?
            .replace("\\\"", "\"")
            .replace("\\\\", "\\");
        labels.insert(key.to_owned(), plain);
        rest = value.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn samples_are_read() {
        let sample = parse(r#"weir_drop_count_total{reason="a \"b\", c}",direction="INGRESS"} 7"#);
        let sample = sample.unwrap();
        assert_eq!(sample.name, "weir_drop_count_total");
        assert_eq!(sample.labels(), r#"direction="INGRESS" reason="a "b", c}""#);
        assert_eq!(sample.text, "7");
        assert!(parse("up 1").is_some());
        assert!(parse("# HELP up").is_none());
    }

    proptest! {
        #[test]
        fn no_line_stops_it(line in "[a-z{}=\", 0-9\\\\é#]{0,40}") {
            let _ = parse(&line);
        }
    }
}
