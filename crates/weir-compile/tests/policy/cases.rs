// SPDX-License-Identifier: Apache-2.0
//! The cases of `tests/netpol`, cell by cell: rows and evaluator against tables that others made.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, Protocol};
use weir_cluster::Folder;
use weir_model::{NodeName, PodRef};

use super::evaluator::{End, Probe, allowed};
use super::kernel::{Cluster, Kernel};

/// Where the cases are; none where this crate was taken out of its repository.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/netpol");
    let mut files = Vec::new();
    for suite in fs::read_dir(folder).into_iter().flatten().flatten() {
        for file in fs::read_dir(suite.path()).into_iter().flatten().flatten() {
            let path = file.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A case while it goes on.
struct Run {
    id: String,
    home: tempfile::TempDir,
    folder: Folder,
    objects: BTreeMap<(String, String, String), Value>,
    cluster: Cluster,
    cells: usize,
    wrong: Vec<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Run {
    fn new(case: &Value) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut run = Self {
            id: text(&case["id"]),
            folder: Folder::new(home.path()),
            home,
            objects: BTreeMap::new(),
            cluster: Cluster::default(),
            cells: 0,
            wrong: Vec::new(),
        };
        for node in list(&case["nodes"]) {
            run.put(&json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": node["name"]},
                "spec": {"podCIDR": node["podCIDR"]},
                "status": {"addresses": [{"type": "InternalIP", "address": node["ip"]}]},
            }));
        }
        for object in list(&case["objects"]) {
            run.put(object);
        }
        run
    }

    fn put(&mut self, object: &Value) {
        let metadata = &object["metadata"];
        let key = (
            text(&object["kind"]),
            text(&metadata["namespace"]),
            text(&metadata["name"]),
        );
        self.objects.insert(key, object.clone());
    }

    fn act(&mut self, action: &Value) {
        if action["op"] == "apply" {
            return self.put(&action["object"]);
        }
        assert_eq!(action["op"], "delete", "{}", self.id);
        let (kind, name) = (text(&action["kind"]), text(&action["name"]));
        let gone = self
            .objects
            .remove(&(kind.clone(), text(&action["namespace"]), name.clone()));
        assert!(gone.is_some(), "{}: nothing to delete: {action}", self.id);
        if kind == "Namespace" {
            self.objects
                .retain(|(_, namespace, _), _| *namespace != name);
        }
    }

    /// Has the nodes follow the objects.
    fn settle(&mut self) {
        let mut file = String::new();
        for object in self.objects.values() {
            writeln!(file, "---\n{object}").unwrap();
        }
        // Another name each time: two versions within a tick of the clock must not look alike.
        let name = format!("objects-{}.yaml", self.cells);
        for entry in fs::read_dir(self.home.path()).unwrap().flatten() {
            fs::remove_file(entry.path()).unwrap();
        }
        fs::write(self.home.path().join(name), file).unwrap();
        let batch = self.folder.read().unwrap();
        assert!(
            batch.problems.is_empty(),
            "{}: {:?}",
            self.id,
            batch.problems
        );
        self.cluster.apply(batch.changes);
    }

    fn address(&self, reference: &str, family: u64) -> IpAddr {
        let world = &self.cluster.world;
        let found = if let Some(address) = reference.strip_prefix("ip:") {
            vec![address.parse().unwrap()]
        } else if let Some(node) = reference.strip_prefix("node:") {
            let node = world.node(&NodeName::new(node).unwrap()).unwrap();
            node.addresses.clone()
        } else {
            let pod: PodRef = reference.parse().unwrap();
            world.pod(&pod).unwrap().addresses.clone()
        };
        let right = |address: &&IpAddr| address.is_ipv6() == (family == 6);
        *found.iter().find(right).unwrap()
    }

    fn compare(&mut self, state: &str, table: &Value) {
        let family = table["family"].as_u64().unwrap_or(4);
        let cell = |from: &str, to: &str, probe: &Value| {
            (
                from.to_owned(),
                to.to_owned(),
                probe["port"].as_u64(),
                text(&probe["protocol"]),
            )
        };
        let except: BTreeMap<_, _> = list(&table["except"])
            .iter()
            .map(|one| {
                (
                    cell(&text(&one["from"]), &text(&one["to"]), one),
                    one["allowed"].as_bool(),
                )
            })
            .collect();
        let names = |field: &str| -> Vec<(String, IpAddr)> {
            let names = list(&table[field]).iter().map(text);
            names
                .map(|name| (name.clone(), self.address(&name, family)))
                .collect()
        };
        let (sources, destinations) = (names("from"), names("to"));
        let world = self.cluster.world.clone();
        let nodes = self.cluster.nodes.iter();
        let kernels: BTreeMap<_, _> = nodes
            .map(|(name, node)| (name.clone(), Kernel::new(&node.realized)))
            .collect();
        let (mut wrong, mut cells) = (Vec::new(), 0);
        for (from, source) in &sources {
            for (to, destination) in destinations.iter().filter(|(to, _)| to != from) {
                let ends = (End::of(&world, *source), End::of(&world, *destination));
                let kernel = |end: &End| match end {
                    End::Pod(pod, _) => kernels.get(pod.node.as_ref().unwrap()),
                    End::Node(..) | End::Other(_) => None,
                };
                let (source, destination) = (Address::from(*source), Address::from(*destination));
                for probe in list(&table["probes"]) {
                    let expected = except
                        .get(&cell(from, to, probe))
                        .copied()
                        .unwrap_or(table["default"].as_bool())
                        .unwrap();
                    let asked = Probe {
                        protocol: match text(&probe["protocol"]).as_str() {
                            "TCP" => Protocol::TCP,
                            "UDP" => Protocol::UDP,
                            "SCTP" => Protocol::SCTP,
                            other => panic!("{other}"),
                        },
                        port: u16::try_from(probe["port"].as_u64().unwrap()).unwrap(),
                    };
                    let out = kernel(&ends.0).is_none_or(|kernel| {
                        let peer = kernel.party(destination);
                        kernel.side(PolicyDirection::Egress, source, peer, asked).0
                    });
                    let into = kernel(&ends.1).is_none_or(|kernel| {
                        let peer = kernel.party(source);
                        kernel
                            .side(PolicyDirection::Ingress, destination, peer, asked)
                            .0
                    });
                    let plain = allowed(&world, &ends.0, &ends.1, asked);
                    if (out && into, plain) != (expected, expected) {
                        wrong.push(format!(
                            "{} {state}: {from} -> {to} {probe}: expected {expected}, rows {out} and {into}, evaluator {plain}",
                            self.id
                        ));
                    }
                    cells += 1;
                }
            }
        }
        self.wrong.extend(wrong);
        self.cells += cells;
    }
}

/// Goes through a case; `restarts`: agents start anew before each step.
fn go_through(case: &Value, restarts: bool) -> (usize, Vec<String>) {
    let mut run = Run::new(case);
    run.settle();
    for table in list(&case["expect"]) {
        run.compare("at first", table);
    }
    for step in list(&case["steps"]) {
        for action in list(&step["actions"]) {
            run.act(action);
        }
        if restarts {
            run.cluster.restart();
        }
        run.settle();
        for table in list(&step["expect"]) {
            run.compare(&format!("after {}", text(&step["name"])), table);
        }
    }
    (run.cells, run.wrong)
}

#[test]
fn every_cell_of_every_case_is_right() {
    let files = files();
    assert!(
        files.len() >= 245,
        "the cases of tests/netpol are missing: {} files found",
        files.len()
    );
    let (mut cells, mut wrong) = (0, Vec::new());
    for file in files {
        let options = serde_saphyr::options! { budget: None, strict_booleans: true };
        let yaml = fs::read_to_string(&file).unwrap();
        let case: Value = serde_saphyr::from_str_with_options(&yaml, options).unwrap();
        assert_eq!(case["schema"], "netpol-case/v1");
        let has_steps = !list(&case["steps"]).is_empty();
        for restarts in [false, true] {
            if restarts && !has_steps {
                continue;
            }
            let (asked, found) = go_through(&case, restarts);
            wrong.extend(found);
            cells += if restarts { 0 } else { asked };
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cells:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    assert!(cells >= 112_867, "only {cells} cells");
}
