// SPDX-License-Identifier: Apache-2.0
//! `bpf`: what is in the kernel, read back and named.

mod flows;
mod lb;
mod policy;
mod tables;

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::Output;
use std::net::IpAddr;

/// Shows what is in the kernel: flows, addresses, endpoints, services, policy, counters
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Shows connection tracking
    Ct {
        #[command(subcommand)]
        command: Ct,
    },
    /// Shows masquerading
    Nat {
        #[command(subcommand)]
        command: Nat,
    },
    /// Shows who is behind which address, as the programs see it
    Ipcache {
        #[command(subcommand)]
        command: Ipcache,
    },
    /// Shows the pods of this node, as the programs see them
    Endpoint {
        #[command(subcommand)]
        command: List,
    },
    /// Shows services, as the programs see them
    Lb {
        #[command(subcommand)]
        command: lb::Command,
    },
    /// Shows what policy allows endpoints, as the programs see it
    Policy {
        #[command(subcommand)]
        command: policy::Command,
    },
    /// Shows the programs' counters of forwarded and dropped packets
    Metrics {
        #[command(subcommand)]
        command: Metrics,
    },
}

#[derive(clap::Subcommand)]
enum Ct {
    /// Lists the flow table, one line for each entry and no header
    ///
    /// A connection is two entries: one for each direction.
    #[command(
        after_help = "Examples:\n  weir bpf ct list global | wc -l\n  weir bpf ct list global | grep 10.244.1.7\n  weir bpf ct list endpoint 412"
    )]
    List {
        /// `global`, or `endpoint ID` for the flows of one endpoint
        #[arg(value_name = "SCOPE", default_value = "global")]
        scope: String,
        /// The endpoint, for the scope `endpoint`
        #[arg(value_name = "ID")]
        endpoint: Option<String>,
        /// Numbers only, no names
        #[arg(short, long)]
        numeric: bool,
        /// Taken so that scripts run: times are always given from now
        #[arg(short = 'd', long, hide = true)]
        time_diff: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(clap::Subcommand)]
enum Nat {
    /// Lists the masqueraded flows, one line for each entry and no header
    #[command(
        after_help = "Examples:\n  weir bpf nat list | wc -l\n  weir bpf nat list | grep 93.184.216.34"
    )]
    List {
        /// Numbers only, no names
        #[arg(short, long)]
        numeric: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(clap::Subcommand)]
enum Ipcache {
    /// Lists all ranges and addresses
    #[command(after_help = "Examples:\n  weir bpf ipcache list")]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Shows what the programs find for one address: the longest prefix
    #[command(after_help = "Examples:\n  weir bpf ipcache get 10.244.1.7")]
    Get {
        #[arg(value_name = "IP")]
        address: IpAddr,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(clap::Subcommand)]
enum List {
    /// Lists all of them
    #[command(after_help = "Examples:\n  weir bpf endpoint list")]
    List {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(clap::Subcommand)]
enum Metrics {
    /// Lists the counters that are not zero, each reason by direction
    #[command(
        after_help = "Examples:\n  weir bpf metrics list\n  weir bpf metrics list | grep POLICY_DENIED"
    )]
    List {
        /// Also what was never counted
        #[arg(short, long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    match args.command {
        Command::Ct {
            command:
                Ct::List {
                    scope,
                    endpoint,
                    numeric,
                    time_diff: _,
                    output,
                },
        } => flows::ct(
            context,
            &flows::Scope::new(&scope, endpoint.as_deref())?,
            numeric,
            &output.format,
        ),
        Command::Nat {
            command: Nat::List { numeric, output },
        } => flows::nat(context, numeric, &output.format),
        Command::Ipcache {
            command: Ipcache::List { output },
        } => tables::ipcache(context, &output.format),
        Command::Ipcache {
            command: Ipcache::Get { address, output },
        } => tables::ipcache_get(context, address, &output.format),
        Command::Endpoint {
            command: List::List { output },
        } => tables::endpoints(context, &output.format),
        Command::Lb { command } => lb::run(command, context),
        Command::Policy { command } => policy::run(command, context),
        Command::Metrics {
            command: Metrics::List { all, output },
        } => tables::metrics(context, all, &output.format),
    }
}
