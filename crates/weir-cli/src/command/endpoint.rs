// SPDX-License-Identifier: Apache-2.0
//! `endpoint`: the pods of this node.

mod reference;
mod show;

pub(super) use reference::Reference;

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output};
use crate::text::{count, path_segment};
use weir_api::endpoint::{Endpoint, EndpointHealth, HealthLevel, LogEntry, Regenerated};
use weir_api::{Client, path};

/// Shows the pods of this node and puts one right
///
/// An endpoint is named by its id, by NAMESPACE/POD, or as `pod-name:NAMESPACE:POD`, `ipv4:IP`,
/// `ipv6:IP` or `container-id:ID`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists the endpoints of this node
    #[command(after_help = "Examples:\n  \
        weir endpoint list\n  \
        weir endpoint list | grep my-pod\n  \
        weir endpoint list -o jsonpath='{[*].id}'")]
    List {
        /// Leave the header out
        #[arg(long)]
        no_headers: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Shows everything about an endpoint, as JSON unless another form is asked for
    #[command(
        after_help = "Examples:\n  weir endpoint get 412\n  weir endpoint get shop/web-0 -o yaml\n  weir endpoint get -l k8s:app=web"
    )]
    Get {
        #[arg(value_name = "ENDPOINT", required_unless_present = "labels")]
        endpoint: Option<String>,
        /// All endpoints with this label
        #[arg(short = 'l', long, value_name = "LABEL", conflicts_with = "endpoint")]
        labels: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Shows what happened to an endpoint, newest first
    #[command(after_help = "Examples:\n  weir endpoint log 412")]
    Log {
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
        #[command(flatten)]
        output: Output,
    },
    /// Shows whether an endpoint is healthy; exit status 1 when it is not
    #[command(after_help = "Examples:\n  weir endpoint health shop/web-0")]
    Health {
        #[arg(value_name = "ENDPOINT")]
        endpoint: String,
        #[command(flatten)]
        output: Output,
    },
    /// Rebuilds an endpoint's rows, link and routes, and says what differed
    #[command(
        after_help = "Examples:\n  weir endpoint regenerate 412\n  weir endpoint regenerate [412]\n  weir endpoint regenerate shop/web-0"
    )]
    Regenerate {
        /// Also a list, as Python prints it: [1, 2]
        #[arg(value_name = "ENDPOINT", required = true)]
        endpoints: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Shows the options that hold for an endpoint
    #[command(after_help = "Examples:\n  weir endpoint config 412")]
    Config {
        #[arg(value_name = "ENDPOINT", required_unless_present = "list_options")]
        endpoint: Option<String>,
        /// Options to change: refused, they hold for the whole node
        #[arg(value_name = "OPTION=VALUE", hide = true)]
        changes: Vec<String>,
        /// Only the names of the options
        #[arg(long)]
        list_options: bool,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    match args.command {
        Command::List { no_headers, output } => {
            let endpoints = all(&context.client)?;
            context.emit(&output.format, &endpoints, |endpoints| {
                let table = show::list(endpoints);
                if no_headers {
                    table.lines_without_header()
                } else {
                    table.lines()
                }
            })?;
            Ok(Outcome::Fine)
        }
        Command::Get {
            endpoint,
            labels,
            output,
        } => get(context, parse(endpoint)?.as_ref(), &labels, &output.format),
        Command::Log { endpoint, output } => {
            let log: Vec<LogEntry> = context.client.get(&request(&endpoint.parse()?, "/log"))?;
            context.emit(&output.format, &log, |log| show::log(log))?;
            Ok(Outcome::Fine)
        }
        Command::Health { endpoint, output } => {
            let health: EndpointHealth = context
                .client
                .get(&request(&endpoint.parse()?, "/health"))?;
            context.emit(&output.format, &health, show::health)?;
            let fine = matches!(
                health.overall_health,
                HealthLevel::Ok | HealthLevel::Disabled
            );
            Ok(Outcome::problem_if(!fine))
        }
        Command::Regenerate { endpoints, output } => {
            regenerate(context, &reference::list(&endpoints)?, &output.format)
        }
        Command::Config {
            endpoint,
            changes,
            list_options,
            output,
        } => config(
            context,
            parse(endpoint)?.as_ref(),
            changes.first(),
            list_options,
            &output.format,
        ),
    }
}

fn parse(typed: Option<String>) -> Result<Option<Reference>, CliError> {
    typed.map(|text| text.parse()).transpose()
}

/// One endpoint by its reference.
pub(super) fn fetch(client: &Client, reference: &Reference) -> Result<Endpoint, CliError> {
    Ok(client.get(&request(reference, ""))?)
}

fn request(reference: &Reference, what: &str) -> String {
    let path = path::ENDPOINT.replace("{reference}", &path_segment(reference.as_str()));
    format!("{path}{what}")
}

fn all(client: &Client) -> Result<Vec<Endpoint>, CliError> {
    let mut endpoints: Vec<Endpoint> = client.get(path::ENDPOINTS)?;
    endpoints.sort_by_key(|endpoint| endpoint.id);
    Ok(endpoints)
}

fn get(
    context: &mut Context,
    reference: Option<&Reference>,
    labels: &[String],
    format: &Format,
) -> Result<Outcome, CliError> {
    let endpoints = if let Some(reference) = reference {
        vec![fetch(&context.client, reference)?]
    } else {
        let mut endpoints = all(&context.client)?;
        endpoints.retain(|endpoint| {
            let theirs = &endpoint.status.identity.labels;
            labels.iter().all(|label| {
                theirs.iter().any(|own| {
                    own == label || own.split_once(':').is_some_and(|(_, own)| own == label)
                })
            })
        });
        endpoints
    };
    if endpoints.is_empty() {
        return Err(CliError::missing(
            format!("no endpoint of this node has {}", labels.join(",")),
            "`weir endpoint list` shows all of them with their labels",
        ));
    }
    // The peers print the whole model as JSON here: a table would leave most of it out.
    let format = if *format == Format::Table {
        &Format::Json
    } else {
        format
    };
    context.emit(format, &endpoints, |_| Vec::new())?;
    Ok(Outcome::Fine)
}

fn regenerate(
    context: &mut Context,
    references: &[Reference],
    format: &Format,
) -> Result<Outcome, CliError> {
    let mut done = Vec::new();
    for reference in references {
        let answer: Regenerated = context.client.post(&request(reference, "/regenerate"))?;
        if *format == Format::Table {
            let Regenerated { id, repaired } = &answer;
            context
                .printer
                .line(format!("Endpoint {id} successfully regenerated"))?;
            if repaired.is_empty() {
                context.printer.line("  nothing differed")?;
            } else {
                let differed = count(repaired.len() as u64, "difference");
                context.printer.line(format!("  {differed} repaired:"))?;
            }
            for line in repaired {
                context.printer.line(format!("  - {line}"))?;
            }
            context.printer.flush()?;
        }
        done.push(answer);
    }
    if *format != Format::Table {
        context.emit(format, &done, |_| Vec::new())?;
    }
    Ok(Outcome::Fine)
}

fn config(
    context: &mut Context,
    reference: Option<&Reference>,
    change: Option<&String>,
    list_options: bool,
    format: &Format,
) -> Result<Outcome, CliError> {
    if let Some(change) = change {
        return Err(CliError::typed(
            format!("`{change}` cannot be set for one endpoint"),
            "options hold for the whole node: see `weir config`",
        ));
    }
    let options = match reference {
        Some(reference) if !list_options => {
            show::options(Some(&fetch(&context.client, reference)?))
        }
        _ => show::options(None),
    };
    context.emit(format, &options, |options| {
        show::option_lines(options, list_options)
    })?;
    Ok(Outcome::Fine)
}
