// SPDX-License-Identifier: Apache-2.0
//! `bench`: what Weir costs, as ratios against the kernel's own forwarding, or against kube-proxy, in the same run on the
//! same machine.
//!
//! Absolute numbers tell about the machine; ratios tell about Weir. Like is compared with like: native routing with
//! plain kernel routing, the tunnel with the kernel's own VXLAN. The sides are measured in turns, so that a machine that
//! slows down slows both, and the median of the rounds counts.

mod lab;
mod node;
mod packets;
mod peers;
mod report;
pub(crate) mod traffic;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::process::is_root;
use crate::{build, cluster, host, output};

/// Measures Weir against the kernel's own forwarding and prints ratios
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// How often each side of a comparison is measured
    #[arg(long, default_value_t = 5, global = true)]
    rounds: u32,
    /// Milliseconds of one measurement of traffic
    #[arg(long, default_value_t = 1000, global = true)]
    for_ms: u64,
    /// Address family of the traffic
    #[arg(long, value_enum, default_value_t = Family::V4, global = true)]
    family: Family,
    /// Measure this weir binary instead of building one
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// At how many services Weir is measured beside kube-proxy
    #[arg(long, global = true, value_delimiter = ',', default_values_t = [1, 1_000, 10_000])]
    services: Vec<u32>,
    /// Put rules in kube-proxy's place that are written in its form, as happens by itself where Go is missing
    #[arg(long, global = true)]
    written_rules: bool,
    /// Everything is built already
    #[arg(long, global = true, hide = true)]
    built: bool,
    /// Exit with 1 when a target is missed
    #[arg(long, global = true)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Family {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
}

impl Family {
    /// That of two things which is of this family.
    fn pick<T>(self, v4: T, v6: T) -> T {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::Subcommand)]
enum What {
    /// Throughput, request rate and connect rate, against kernel routing and kernel VXLAN
    Traffic,
    /// Nanoseconds per packet of the loaded programs
    Packets,
    /// Memory and CPU of the agent at rest, time to start a lab and to add a pod
    Node,
    /// Services beside the real kube-proxy in both its modes: connect rate, latency, changes, memory. By name only: it
    /// builds Kubernetes
    Peers,
}

/// What all measurements need to know.
struct Bench {
    weir: PathBuf,
    rounds: u32,
    for_ms: u64,
    family: Family,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    host::require()?;
    if args.what == Some(What::Peers) && !args.built {
        peers::build(args.written_rules)?;
    }
    let bench = Bench {
        weir: match &args.binary {
            Some(binary) => std::path::absolute(binary)?,
            None if args.built => build::built(true),
            None => build::build(true)?,
        },
        rounds: args.rounds,
        for_ms: args.for_ms,
        family: args.family,
    };
    let mut missed = 0;
    if args.what == Some(What::Peers) {
        if !is_root() {
            return cluster::as_root(&["--built"]);
        }
        missed += peers::measure(&bench, &args.services, args.written_rules)?;
    }
    let wanted = |what: What| args.what.is_none_or(|only| only == what);
    if wanted(What::Packets) {
        missed += report::print("Programs, per packet", &packets::measure()?);
    }
    if wanted(What::Traffic) {
        missed += report::print("Traffic, as ratios", &lab::measure(&bench)?);
    }
    if wanted(What::Node) {
        missed += report::print("Node", &node::measure(&bench)?);
    }
    match missed {
        0 => Ok(()),
        _ if args.strict => bail!("{missed} targets missed"),
        _ => {
            output::say(format_args!("{missed} targets missed"));
            Ok(())
        }
    }
}
