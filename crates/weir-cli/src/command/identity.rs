// SPDX-License-Identifier: Apache-2.0
//! `identity`: the numbers that stand for label sets on this node.

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Output, Table};
use weir_api::kernel::IdentityEntry;
use weir_api::path;

/// Shows the identities: numbers that stand for label sets on this node
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists all identities, or those that have the given labels
    #[command(after_help = "Examples:\n  weir identity list\n  weir identity list k8s:app=web")]
    List {
        /// Only identities with all of these labels
        #[arg(value_name = "LABEL")]
        labels: Vec<String>,
        /// Show how many endpoints and remote pods have each
        #[arg(long)]
        endpoints: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Shows one identity, by number or by labels
    #[command(
        after_help = "Examples:\n  weir identity get 256\n  weir identity get --label k8s:app=web"
    )]
    Get {
        #[arg(value_name = "ID", required_unless_present = "label")]
        id: Option<u32>,
        /// A label that it has
        #[arg(long, value_name = "LABEL", conflicts_with = "id")]
        label: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    let mut identities: Vec<IdentityEntry> = context.client.get(path::IDENTITIES)?;
    identities.sort_by_key(|identity| identity.id);
    let (output, references) = match args.command {
        Command::List {
            labels,
            endpoints,
            output,
        } => {
            identities.retain(|identity| has_all(identity, &labels));
            (output, endpoints)
        }
        Command::Get { id, label, output } => {
            identities.retain(|identity| match id {
                Some(id) => identity.id == id,
                None => has_all(identity, &label),
            });
            if identities.is_empty() {
                let wanted = id.map_or_else(|| label.join(","), |id| id.to_string());
                return Err(CliError::missing(
                    format!("there is no identity {wanted}"),
                    "`weir identity list` shows all of them; numbers hold for this node only",
                ));
            }
            (output, true)
        }
    };
    context.emit(&output.format, &identities, |identities| {
        table(identities, references)
    })?;
    Ok(Outcome::Fine)
}

/// With or without the source in front: `k8s:app=web`, `app=web`, `app`.
fn has_all(identity: &IdentityEntry, wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| {
        identity.labels.iter().any(|label| {
            let bare = label.split_once(':').map_or("", |(_, bare)| bare);
            [label.as_str(), bare].iter().any(|text| {
                *text == wanted || text.split_once('=').is_some_and(|(key, _)| key == wanted)
            })
        })
    })
}

fn table(identities: &[IdentityEntry], references: bool) -> Vec<String> {
    let mut table = if references {
        Table::new(["ID", "LABELS", "REFCOUNT"])
    } else {
        Table::new(["ID", "LABELS"])
    };
    for identity in identities {
        let labels = identity.labels.join("\n");
        if references {
            table.row([
                identity.id.to_string(),
                labels,
                identity.references.to_string(),
            ]);
        } else {
            table.row([identity.id.to_string(), labels]);
        }
    }
    table.lines()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_found_as_people_write_them() {
        let identity = IdentityEntry {
            id: 256,
            labels: vec!["k8s:app=web".to_owned()],
            references: 1,
        };
        for (label, expected) in [
            ("k8s:app=web", true),
            ("app=web", true),
            ("app", true),
            ("app=cli", false),
            ("web", false),
        ] {
            assert_eq!(has_all(&identity, &[label.to_owned()]), expected, "{label}");
        }
    }
}
