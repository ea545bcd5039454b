// SPDX-License-Identifier: Apache-2.0
//! `bpf lb`: services as they are in the kernel.

mod maglev;

use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output, Table};
use crate::text::duration;
use maglev::{Maglev, maglev, maglev_lines};
use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_api::lb::{LbAffinity, LbBackend, LbFrontend, LbSocket, LbSourceRange};
use weir_api::path;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Lists frontends with the places of their backends
    ///
    /// Slot 0 is the frontend itself. A frontend whose backends differ for clients outside the node
    /// has two lists; those from outside are marked `/e`.
    #[command(
        after_help = "Examples:\n  weir bpf lb list\n  weir bpf lb list --backends\n  weir bpf lb list --frontends -o json"
    )]
    List {
        /// Only the frontends
        #[arg(long)]
        frontends: bool,
        /// Only the backends, each with the services that have it
        #[arg(long, conflicts_with = "frontends")]
        backends: bool,
        /// Only the numbers of frontends with the addresses that answers come from
        #[arg(long, conflicts_with_all = ["frontends", "backends"])]
        revnat: bool,
        /// Only who may connect to services that restrict it
        #[arg(long, conflicts_with_all = ["frontends", "backends", "revnat"])]
        source_ranges: bool,
        /// Only the Maglev tables
        #[arg(long, conflicts_with_all = ["frontends", "backends", "revnat", "source_ranges"])]
        maglev: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Shows Maglev tables
    Maglev {
        #[command(subcommand)]
        command: Maglev,
    },
    /// Shows which backend clients stick to
    Affinity {
        #[command(subcommand)]
        command: List,
    },
    /// Shows translated sockets: what they talk to in truth
    Sockets {
        #[command(subcommand)]
        command: List,
    },
}

#[derive(clap::Subcommand)]
pub(super) enum List {
    /// Lists all of them
    List {
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(command: Command, context: &mut Context) -> Result<Outcome, CliError> {
    match command {
        Command::List {
            frontends,
            backends,
            revnat,
            source_ranges,
            maglev,
            output,
        } => {
            let format = &output.format;
            match (frontends, backends, revnat, source_ranges, maglev) {
                (_, true, ..) => show(context, path::LB_BACKENDS, format, backend_lines),
                (_, _, true, ..) => show(context, path::LB_FRONTENDS, format, revnat_lines),
                (_, _, _, true, _) => {
                    show(context, path::LB_SOURCE_RANGES, format, source_range_lines)
                }
                (_, _, _, _, true) => show(context, path::LB_MAGLEV, format, maglev_lines),
                (true, ..) => show(context, path::LB_FRONTENDS, format, |all| {
                    frontend_lines(all, false)
                }),
                (false, ..) => show(context, path::LB_FRONTENDS, format, |all| {
                    frontend_lines(all, true)
                }),
            }
        }
        Command::Maglev {
            command: Maglev::List { output },
        } => show(context, path::LB_MAGLEV, &output.format, maglev_lines),
        Command::Maglev {
            command: Maglev::Get { service, output },
        } => maglev(context, &service, &output.format),
        Command::Affinity {
            command: List::List { output },
        } => show(context, path::LB_AFFINITY, &output.format, affinity_lines),
        Command::Sockets {
            command: List::List { output },
        } => show(context, path::LB_SOCKETS, &output.format, socket_lines),
    }
}

fn show<T: DeserializeOwned + Serialize>(
    context: &mut Context,
    request: &str,
    format: &Format,
    lines: impl Fn(&[T]) -> Vec<String>,
) -> Result<Outcome, CliError> {
    let all: Vec<T> = context.client.stream(request)?.collect::<Result<_, _>>()?;
    context.emit(format, &all, |all| lines(all))?;
    Ok(Outcome::Fine)
}

/// In the peers' words: the frontend's number stands where theirs for reverse translation stands.
fn frontend_lines(frontends: &[LbFrontend], slots: bool) -> Vec<String> {
    let mut table = Table::new([
        "SERVICE ADDRESS",
        "BACKEND ADDRESS (REVNAT_ID) (SLOT)",
        "NAME",
    ]);
    for frontend in frontends {
        let LbFrontend {
            address,
            id,
            name,
            kind,
            flags,
            internal,
            external,
            service: _,
        } = frontend;
        let mut about = vec![kind.clone()];
        about.extend(flags.iter().cloned());
        if external.is_some() {
            about.push("two-scopes".to_owned());
        }
        let nobody = if address.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        table.row([
            format!("{address} (0)"),
            format!("{nobody} ({id}) (0) [{}]", about.join(", ")),
            name.clone(),
        ]);
        if !slots {
            continue;
        }
        let runs = [("", Some(internal.as_slice())), ("/e", external.as_deref())];
        for (scope, backends) in runs {
            for (place, backend) in backends.into_iter().flatten().enumerate() {
                let slot = place + 1;
                table.row([
                    format!("{address}{scope} ({slot})"),
                    format!("{backend} ({id}) ({slot})"),
                    name.clone(),
                ]);
            }
        }
    }
    table.lines()
}

fn revnat_lines(frontends: &[LbFrontend]) -> Vec<String> {
    let mut table = Table::new(["ID", "SERVICE ADDRESS (REVNAT_ID)", "NAME"]);
    for LbFrontend {
        id, address, name, ..
    } in frontends
    {
        table.row([id.to_string(), address.clone(), name.clone()]);
    }
    table.lines()
}

fn backend_lines(backends: &[LbBackend]) -> Vec<String> {
    let mut table = Table::new(["BACKEND ADDRESS", "SERVICE", "FLAGS", "NAME"]);
    for LbBackend {
        address,
        service,
        service_name,
        name,
        flags,
    } in backends
    {
        table.row([
            address.clone(),
            named(*service, service_name),
            flags.join(","),
            name.clone(),
        ]);
    }
    table.lines()
}

fn source_range_lines(ranges: &[LbSourceRange]) -> Vec<String> {
    let mut table = Table::new(["SERVICE", "SOURCE RANGE"]);
    for LbSourceRange {
        service,
        service_name,
        range,
    } in ranges
    {
        table.row([named(*service, service_name), range.clone()]);
    }
    table.lines()
}

fn affinity_lines(rows: &[LbAffinity]) -> Vec<String> {
    let mut table = Table::new(["CLIENT", "NAME", "SERVICE", "BACKEND", "LAST USED"]);
    for LbAffinity {
        client,
        client_name,
        service,
        service_name,
        backend,
        last_used,
    } in rows
    {
        table.row([
            client.clone(),
            client_name.clone(),
            named(*service, service_name),
            backend.clone(),
            format!("{} ago", duration(*last_used)),
        ]);
    }
    table.lines()
}

fn socket_lines(rows: &[LbSocket]) -> Vec<String> {
    let mut table = Table::new(["SOCKET", "PROTOCOL", "FRONTEND", "BACKEND", "SERVICE"]);
    for LbSocket {
        cookie,
        protocol,
        backend,
        frontend,
        service,
        service_name,
    } in rows
    {
        table.row([
            cookie.to_string(),
            protocol.clone(),
            frontend.clone(),
            backend.clone(),
            named(*service, service_name),
        ]);
    }
    table.lines()
}

/// `shop/web:http`, or the number alone.
fn named(service: u32, name: &str) -> String {
    if name.is_empty() {
        format!("service {service}")
    } else {
        name.to_owned()
    }
}
