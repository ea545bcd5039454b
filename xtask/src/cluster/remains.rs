// SPDX-License-Identifier: Apache-2.0
//! Does a node hold exactly what its pods need? Asked of the API server, the agent, the kernel and the agent's files, which
//! must all say the same; and, when pods are gone, whether everything is as many as it was before they came.

mod before;
mod strays;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use weir_api::kernel::{MapEntry, MetricEntry};
use weir_api::service::ServicesCompared;
use weir_api::{Client, path};

use super::place::{Node, Place};
use super::processes::Process;
use super::up::nodes_of;

pub(super) use before::Before;
pub(super) use strays::strays;

/// The agent of a node, through the node's file system.
pub(super) fn agent(place: &Place, node: Node) -> Result<Client> {
    Ok(Client::new(
        root(place, node)?.join(path::DEFAULT_SOCKET.trim_start_matches('/')),
    ))
}

/// The node's file system, as its processes see it.
fn root(place: &Place, node: Node) -> Result<PathBuf> {
    let first = Process::recorded(place, &node.to_string())?;
    Ok(PathBuf::from(format!("/proc/{}/root", first.id)))
}

/// What `weir service update` finds. It repairs what it finds, so it is asked once, when nothing else is on its way.
pub(super) fn compare_services(place: &Place) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for node in Node::all(nodes_of(place)?) {
        let services: ServicesCompared = agent(place, node)?.post(path::SERVICES_COMPARE)?;
        let wrong = services.repaired.into_iter().chain(services.failed);
        found.extend(wrong.map(|row| format!("{node}: row of services: {row}")));
    }
    Ok(found)
}

fn rows(agent: &Client, map: &str) -> Result<Vec<MapEntry>> {
    let request = path::MAP.replace("{name}", map);
    agent
        .get(&request)
        .with_context(|| format!("cannot read the rows of map {map}"))
}

/// Packets that the programs of a node have dropped, by reason; an agent's end changes no counter.
pub(super) fn drops(place: &Place, node: Node) -> Result<BTreeMap<String, u64>> {
    let counters: Vec<MetricEntry> = agent(place, node)?.get(path::KERNEL_METRICS)?;
    let mut drops = BTreeMap::new();
    for counter in counters.into_iter().filter(|one| one.code != 0) {
        *drops.entry(counter.reason).or_default() += counter.packets;
    }
    Ok(drops)
}

fn names_in(folder: &Path) -> Result<BTreeSet<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.map(|entry| entry.map(|one| one.file_name().to_string_lossy().into()));
    names
        .collect::<io::Result<_>>()
        .with_context(|| format!("cannot read {}", folder.display()))
}
