// SPDX-License-Identifier: Apache-2.0
//! `e2e`: the official tests of Kubernetes' network against a cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::network::inside;
use super::place::{Name, Place};
use super::processes::wait_for;
use super::report::Report;
use super::select::{Wish, pattern, seed};
use super::{programs, up};
use crate::output;
use crate::process::{command, display, stdout_of};

/// ginkgo is given less, and ends by itself.
const LIMIT_SECONDS: u64 = 4 * 3600;
const TELLING: Duration = Duration::from_mins(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    wish: Wish,
    /// Tests at a time; those marked Serial run alone, after the others
    #[arg(long, default_value_t = 6)]
    procs: u8,
    /// Tests the cluster of this file [default: the one that KUBECONFIG names, or else that of --name]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// The cluster that is tested.
enum Cluster {
    /// One that `up` made.
    Own(Place),
    /// One that was there before, by its kubeconfig.
    Ready(PathBuf),
}

impl Args {
    /// Whether it is about a cluster that `up` made: its network namespaces are entered by root alone.
    pub(super) fn needs_root(&self) -> bool {
        self.ready().is_none()
    }

    fn ready(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
        self.kubeconfig
            .clone()
            .or_else(|| variable().map(PathBuf::from))
    }
}

/// Runs the tests; fails when one does.
pub(super) fn run(name: &Name, args: &Args) -> Result<()> {
    let start = Instant::now();
    let place = Place::of(name);
    let cluster = match args.ready() {
        Some(file) => {
            let file = file
                .canonicalize()
                .with_context(|| format!("cannot find the kubeconfig {}", file.display()))?;
            output::say(format_args!("the cluster of {}", file.display()));
            Cluster::Ready(file)
        }
        None => Cluster::Own(place.clone()),
    };
    let nodes = cluster.count_nodes()?;
    let folder = place.report();
    // What an earlier run left must not be taken for this one's.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let seed = seed(args.wish.seed)?;
    let known = list_tests(&args.wish, &folder)?;
    let chosen = args.wish.choose(&known, seed);
    ensure!(!chosen.is_empty(), "no test matches");
    output::step(format_args!(
        "{} of {} tests, {} at a time; --seed {seed} draws the same ones",
        chosen.len(),
        known.len(),
        args.procs
    ));

    let mut ginkgo = cluster.command(&programs::path("ginkgo"));
    ginkgo
        .arg(format!("--procs={}", args.procs))
        .arg(format!("--focus={}", pattern(&chosen)))
        .args(["--no-color", "--timeout=3h", "--poll-progress-after=0"])
        .arg(format!("--output-dir={}", folder.display()))
        .args(["--json-report=report.json", "--junit-report=junit.xml"])
        .arg(programs::path(programs::TESTS))
        .arg("--")
        .args(cluster.flags(nodes))
        .current_dir(&folder);
    let log = folder.join("e2e.log");
    output::say(format_args!("    log: {}", log.display()));
    let file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    ginkgo
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let child = ginkgo
        .spawn()
        .with_context(|| format!("cannot start `{}`", ginkgo.get_program().display()))?;
    let status = follow(child, &log, chosen.len())?;

    let report = Report::read(&folder.join("report.json"))
        .with_context(|| format!("the tests did not run ({status}): see {}", log.display()))?;
    fs::write(folder.join("tests.txt"), report.lines())
        .context("cannot write the list of tests")?;
    output::say(format_args!("tests took {} s", start.elapsed().as_secs()));
    report.show();
    if report.failed > 0 || !status.success() {
        bail!("tests failed ({status}): see {}", log.display());
    }
    ensure!(
        report.names().len() == chosen.len(),
        "{} tests were chosen, and {} are in the report",
        chosen.len(),
        report.names().len()
    );
    Ok(())
}

/// Waits for the end of the tests, and tells every minute how far they are.
fn follow(mut child: Child, log: &Path, chosen: usize) -> Result<ExitStatus> {
    let mut told = Instant::now();
    let mut ended = None;
    wait_for("the end of the tests", LIMIT_SECONDS, || {
        if told.elapsed() > TELLING {
            told = Instant::now();
            // ginkgo's mark of a test that ran.
            let done = fs::read_to_string(log).map_or(0, |text| text.matches('•').count());
            output::say(format_args!("    {done} of {chosen}"));
        }
        ended = child.try_wait().transpose();
        ended.is_some()
    })?;
    ended
        .context("the tests have not ended")?
        .context("cannot wait for the tests")
}

/// The names of all tests that may be chosen: a run in which nothing happens.
fn list_tests(wish: &Wish, folder: &Path) -> Result<Vec<String>> {
    let file = folder.join("known.json");
    let mut list = command(programs::path(programs::TESTS));
    list.args([
        "--ginkgo.dry-run",
        "--ginkgo.no-color",
        "--provider=skeleton",
    ])
    .arg(format!("--ginkgo.json-report={}", file.display()))
    .current_dir(folder);
    wish.narrow(&mut list, "ginkgo.");
    stdout_of(&mut list)?;
    let names = Report::read(&file)?.names();
    let _ = fs::remove_file(file);
    Ok(names)
}

impl Cluster {
    fn kubeconfig(&self) -> PathBuf {
        match self {
            Self::Own(place) => place.kubeconfig("admin"),
            Self::Ready(file) => file.clone(),
        }
    }

    /// A command that reaches the cluster.
    fn command(&self, program: &Path) -> Command {
        match self {
            Self::Own(place) => inside(place, "world", &program.to_string_lossy()),
            Self::Ready(_) => command(program),
        }
    }

    fn count_nodes(&self) -> Result<usize> {
        if let Self::Own(place) = self {
            up::nodes_of(place)?;
        }
        let mut get = self.command(&programs::path("kubectl"));
        get.arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(["get", "nodes", "--output=name"]);
        let names = stdout_of(&mut get)
            .with_context(|| format!("the cluster does not answer `{}`", display(&get)))?;
        Ok(names.lines().count())
    }

    fn flags(&self, nodes: usize) -> Vec<String> {
        vec![
            "--provider=skeleton".to_owned(),
            format!("--kubeconfig={}", self.kubeconfig().display()),
            format!("--kubectl-path={}", programs::path("kubectl").display()),
            format!("--num-nodes={nodes}"),
            "--allowed-not-ready-nodes=0".to_owned(),
            "--dns-domain=cluster.local".to_owned(),
            "--node-os-distro=debian".to_owned(),
            "--delete-namespace-on-failure=true".to_owned(),
            "--disable-log-dump=true".to_owned(),
        ]
    }
}
