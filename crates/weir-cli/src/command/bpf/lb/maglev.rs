// SPDX-License-Identifier: Apache-2.0
//! Maglev tables: how many of their entries each backend has, and all entries of one.

use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output, Table};
use weir_api::lb::{LbMaglev, LbShare};
use weir_api::path;

#[derive(clap::Subcommand)]
pub(in crate::command::bpf) enum Maglev {
    /// Lists all tables with the share of each backend
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Shows the tables of one service, entry by entry
    #[command(
        after_help = "Examples:\n  weir bpf lb maglev get shop/web\n  weir bpf lb maglev get 3"
    )]
    Get {
        /// NAMESPACE/NAME, NAMESPACE/NAME:PORT or the number of a table
        #[arg(value_name = "SERVICE")]
        service: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn maglev_lines(tables: &[LbMaglev]) -> Vec<String> {
    let mut table =
        Table::new(["TABLE", "SIZE", "BACKEND", "ENTRIES", "SERVICES"]).right([0, 1, 3]);
    for LbMaglev {
        table: number,
        size,
        services,
        shares,
        entries: _,
    } in tables
    {
        let column =
            |text: fn(&LbShare) -> String| shares.iter().map(text).collect::<Vec<_>>().join("\n");
        table.row([
            number.to_string(),
            size.to_string(),
            column(|share| share.backend.clone()),
            column(|share| share.entries.to_string()),
            services.join("\n"),
        ]);
    }
    table.lines()
}

pub(super) fn maglev(
    context: &mut Context,
    service: &str,
    format: &Format,
) -> Result<Outcome, CliError> {
    let request = format!("{}?entries=true", path::LB_MAGLEV);
    let mut tables: Vec<LbMaglev> = context.client.stream(&request)?.collect::<Result<_, _>>()?;
    tables.retain(|table| {
        let has = |name: &String| {
            name == service
                || name
                    .rsplit_once(':')
                    .is_some_and(|(name, _)| name == service)
        };
        service.parse() == Ok(table.table) || table.services.iter().any(has)
    });
    if tables.is_empty() {
        return Err(CliError::missing(
            format!("{service} has no Maglev table"),
            "`weir bpf lb maglev list` shows all; there are none unless loadBalancerAlgorithm is maglev",
        ));
    }
    context.emit(format, &tables, |tables| {
        let mut lines = maglev_lines(tables);
        for table in tables {
            lines.push(format!("table {}:", table.table));
            lines.extend(table.entries.chunks(24).map(|entries| {
                let places: Vec<_> = entries.iter().map(ToString::to_string).collect();
                format!("  {}", places.join(" "))
            }));
        }
        lines
    })?;
    Ok(Outcome::Fine)
}
