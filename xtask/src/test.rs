// SPDX-License-Identifier: Apache-2.0
//! `test`: every test there is, by level, with one total at the end.
//!
//! Privileged tests lie in files whose name starts with their level (`tests/kernel_*.rs`, `tests/lab_*.rs`). They are
//! compiled as the user and run as root.

mod checks;
mod cluster;
mod netpol;
mod runner;
mod targets;
mod upgrade;

use std::panic::resume_unwind;
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::{build, host, output};
use runner::{Programs, Tally};
use targets::{Level, Target};

/// The commit that an upgrade is from, unless another one is asked for.
pub(crate) const EARLIER: &str = "HEAD~1";

/// Runs the tests; the last line says how many passed and failed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How much to run
    #[arg(value_enum, default_value_t = Selection::All)]
    pub(crate) level: Selection,
    /// Run only tests whose name contains this
    #[arg(long)]
    pub(crate) filter: Option<String>,
    /// Everything in every variant, not each thing once: takes hours instead of minutes
    #[arg(long)]
    pub(crate) full: bool,
    /// Asks `weir trace` too about every cell of every third policy case: it must say what packets do
    #[arg(long)]
    pub(crate) trace: bool,
    /// The commit that the upgrade is from
    #[arg(long, value_name = "COMMIT", default_value = EARLIER)]
    pub(crate) from: String,
    /// Leave out formatting, lints and the other checks of the source
    #[arg(long)]
    pub(crate) no_checks: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Selection {
    /// Source checks and every test that needs no privileges and no eBPF toolchain
    Unit,
    /// Tests on the real kernel: programs are loaded and run
    Kernel,
    /// Tests on a whole lab: nodes, pods, traffic, faults
    Lab,
    /// The network policy cases, every cell with real packets
    Netpol,
    /// The official tests of Kubernetes' network and some policy cases, on real Kubernetes
    Cluster,
    /// Agents of an earlier commit give way to those of this checkout, under traffic
    Upgrade,
    /// All of them but upgrade, which needs the history and builds everything a second time
    All,
}

impl Selection {
    fn levels(self) -> &'static [Level] {
        match self {
            Self::Unit => &[Level::Unit],
            Self::Kernel => &[Level::Kernel],
            Self::Lab => &[Level::Lab],
            Self::Netpol | Self::Cluster => &[],
            Self::Upgrade => &[Level::Upgrade],
            Self::All => &[Level::Unit, Level::Kernel, Level::Lab],
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let levels = args.level.levels();
    let mut tally = Tally::default();

    // Said before anything is built: nobody should wait minutes to learn that root is missing.
    let (mut binary, mut earlier) = (None, None);
    let netpol = matches!(args.level, Selection::Netpol | Selection::All);
    let cluster = matches!(args.level, Selection::Cluster | Selection::All);
    if netpol || cluster || levels.iter().any(|level| *level != Level::Unit) {
        host::require()?;
        binary = Some(build::build(false)?);
    }
    if levels.contains(&Level::Upgrade) {
        earlier = Some(upgrade::build(&args.from)?);
    }
    let cluster = cluster && (args.level == Selection::Cluster || args.filter.is_none());
    let lint = levels.contains(&Level::Unit) && !args.no_checks && args.filter.is_none();
    if lint {
        checks::run(&mut tally);
        if !cluster {
            checks::lint(false, &mut tally);
        }
    }
    let targets = if levels.is_empty() && !cluster {
        Vec::new()
    } else {
        targets::compile()?
    };
    let ahead = cluster.then(cluster::Ahead::start).flatten();
    let run = |target: &Target, tally: &mut Tally| {
        let api_server = crate::cluster::api_server();
        let programs = Programs {
            weir: binary.as_deref(),
            earlier: earlier.as_deref(),
            api_server: api_server.as_deref(),
        };
        runner::run(target, args.filter.as_deref(), &programs, args.full, tally)
    };
    for level in levels {
        let wanted = targets.iter().filter(|target| target.level == *level);
        for target in wanted.filter(|target| !cluster || !target.needs_api_server()) {
            run(target, &mut tally)?;
        }
    }
    let policies = |tally: &mut Tally| match binary.as_deref().filter(|_| netpol) {
        Some(weir) => netpol::run(weir, args.full, args.trace, args.filter.as_deref(), tally),
        None => Ok(()),
    };
    if !cluster {
        policies(&mut tally)?;
    }
    drop(ahead);
    if cluster {
        let up = cluster::up();
        beside_each_other(
            &mut tally,
            |tally| cluster::run(up, args.full, args.filter.as_deref(), tally),
            policies,
            |tally| {
                if lint {
                    checks::lint(true, tally);
                }
            },
        )?;
        // The cluster's programs are built now; where they could not be, that has failed, and these have nothing to run.
        if crate::cluster::api_server().is_some() {
            for target in targets.iter().filter(|target| target.needs_api_server()) {
                run(target, &mut tally)?;
            }
        }
    }
    if levels.contains(&Level::Unit) && args.filter.is_none() {
        runner::run_doc_tests(&mut tally)?;
    }

    for failure in &tally.failures {
        output::say(format_args!("failed: {failure}"));
    }
    output::say(format_args!("tests took {} s", start.elapsed().as_secs()));
    output::data(tally.closing_line());
    if tally.failed > 0 {
        bail!("{} failed", tally.failed);
    }
    Ok(())
}

/// The cluster's tests, and what needs no cluster at the same time: a cluster waits for itself most of the time.
fn beside_each_other(
    tally: &mut Tally,
    cluster: impl FnOnce(&mut Tally),
    policies: impl FnOnce(&mut Tally) -> Result<()> + Send,
    lint: impl FnOnce(&mut Tally) + Send,
) -> Result<()> {
    let (mut of_policies, mut of_lint) = (Tally::default(), Tally::default());
    let policies = thread::scope(|scope| {
        let policies = scope.spawn(|| policies(&mut of_policies));
        scope.spawn(|| lint(&mut of_lint));
        cluster(tally);
        policies.join()
    });
    tally.merge(of_policies);
    tally.merge(of_lint);
    policies.unwrap_or_else(|panic| resume_unwind(panic))
}
