// SPDX-License-Identifier: Apache-2.0
//! Weir's services beside those of the real kube-proxy, with rules of iptables and of nftables.
//!
//! A real API server feeds three nodes with the same objects: on two of them runs a kube-proxy, on the third a Weir agent.
//! A node is a network namespace with a client and the backends behind links of their own, nothing else; the same addresses
//! on each. While one side is measured, the programs of the others stand still. Where kube-proxy cannot be built, this
//! program writes rules of the same form itself, and the agent reads the objects from a folder.

mod api;
mod change;
mod feed;
mod figures;
mod folder;
mod kube_proxy;
mod objects;
mod pods;
mod rates;
mod rules;
mod side;
mod source;
mod weir;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use self::figures::Measured;
use self::side::{Kind, Side};
use self::source::Source;
use super::{Bench, report, traffic};
use crate::cluster::place::{Name, Node, Place};
use crate::cluster::{programs, up};
use crate::output;
use crate::process::{command, stdout_of};

/// The cluster; its name begins those of its namespaces and cgroups.
const NAME: &str = "peers";

/// Builds what it takes beside Weir.
pub(super) fn build(written_rules: bool) -> Result<()> {
    if !written_rules && programs::kube_proxy_can_be_had() {
        programs::build_kube_proxy()
            .context("Weir cannot be measured beside kube-proxy without building it")?;
    }
    traffic::build().map(drop)
}

/// Measures at each number of services and prints as it goes; how many targets were missed.
pub(super) fn measure(bench: &Bench, sizes: &[u32], written_rules: bool) -> Result<usize> {
    ensure!(
        sizes.is_sorted_by(|a, b| a < b) && sizes.first().is_some_and(|first| *first > 0),
        "--services wants numbers that grow, the first at least 1"
    );
    let written_rules = written_rules || !programs::kube_proxy_can_be_had();
    all_sizes(bench, sizes, written_rules).inspect_err(|_| {
        if let Ok(name) = NAME.parse() {
            let logs = Place::of(&name).report();
            output::say(format_args!("hint: logs are in {}", logs.display()));
        }
    })
}

fn all_sizes(bench: &Bench, sizes: &[u32], written_rules: bool) -> Result<usize> {
    let mut peers = Peers::up(bench, written_rules)?;
    output::data(format_args!(
        "{} beside {}",
        stdout_of(command(&bench.weir).arg("--version"))?.trim(),
        peers.source.versions()?
    ));
    output::data(
        "Targets are for Weir as it comes, which translates at the socket; \"per packet\" is a client whose sockets are left alone.\n",
    );
    let mut missed = 0;
    for &size in sizes {
        peers.grow(size)?;
        let load = load()?;
        let (measured, asked) = peers.measure(size)?;
        missed += report::print(
            &format!("Services beside kube-proxy: {size}"),
            &figures::all(&measured)?,
        );
        output::data(format_args!(
            "  asked: number {} of the {} rules that iptables holds for services; load {load} before, {} after\n",
            asked.place,
            asked.of,
            self::load()?
        ));
    }
    Ok(missed)
}

/// What is measured; it goes when this is dropped.
struct Peers<'a> {
    bench: &'a Bench,
    source: Source,
    sides: Vec<Side>,
    /// Services that are there.
    services: u32,
    /// Dropped last.
    _cluster: Cluster,
}

impl<'a> Peers<'a> {
    fn up(bench: &'a Bench, written_rules: bool) -> Result<Self> {
        let cluster = Cluster::up(u8::try_from(Kind::ALL.len())?, written_rules)?;
        let place = &cluster.place;
        let source = if written_rules {
            Source::folder(place, bench.family)?
        } else {
            Source::server(place, bench.family)?
        };
        let nodes = Node::all(u8::try_from(Kind::ALL.len())?).zip(1..);
        let programs: (&Path, &Path) = (&traffic::built(), &bench.weir);
        let sides = Kind::ALL
            .into_iter()
            .zip(nodes)
            .map(|(kind, node)| Side::up(kind, node, place, &source, programs))
            .collect::<Result<_>>()?;
        Ok(Self {
            bench,
            source,
            sides,
            services: 0,
            _cluster: cluster,
        })
    }

    /// Makes services until there are so many, and waits until every side has them.
    fn grow(&mut self, size: u32) -> Result<()> {
        output::step(format_args!(
            "{size} services with {} endpoints each",
            objects::ENDPOINTS
        ));
        let last = size - 1;
        feed::grow(&self.source, self.services, last, &self.sides)?;
        self.services = size;
        change::reached(&self.sides, last)?;
        change::rest(&self.sides)
    }

    fn measure(&self, size: u32) -> Result<(Measured, kube_proxy::Ranked)> {
        let last = size - 1;
        let iptables = self
            .sides
            .iter()
            .find(|side| side.kind == Kind::Iptables)
            .context("a side is missing")?;
        let asked = iptables.last_service(last)?;
        output::step(format_args!("connections through service {}", asked.number));
        let rates = rates::measure(self.bench, &self.sides, asked.number)?;
        output::step(format_args!("changes of service {last}"));
        let changes = change::measure(&self.source, &self.sides, last, self.bench.rounds)?;
        let memory = self
            .sides
            .iter()
            .map(|side| Ok((side.kind, side.memory()?)))
            .collect::<Result<_>>()?;
        let measured = Measured {
            services: size,
            rates,
            changes,
            memory,
        };
        Ok((measured, asked))
    }
}

/// An API server and the network of nodes; all of it goes when this is dropped.
struct Cluster {
    name: Name,
    place: Place,
}

impl Cluster {
    fn up(nodes: u8, network_alone: bool) -> Result<Self> {
        let name: Name = NAME.parse().map_err(anyhow::Error::msg)?;
        // What a run before left that was killed.
        up::down(&name)?;
        let place = Place::of(&name);
        let cluster = Self { name, place };
        if network_alone {
            output::step("three nodes");
            up::up_network(&cluster.place, nodes)?;
        } else {
            output::step("an API server and three nodes");
            up::up_bare(&cluster.place, nodes)?;
        }
        Ok(cluster)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Kept, for whoever wonders about the figures or the error.
        let report = self.place.report();
        let _ = fs::remove_dir_all(&report);
        let _ = report.parent().map(fs::create_dir_all);
        let _ = fs::rename(self.place.logs(), report);
        if let Err(error) = up::down(&self.name) {
            output::error(&error);
        }
    }
}

/// How busy the machine was in the last minute.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}
