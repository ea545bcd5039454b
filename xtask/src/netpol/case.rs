// SPDX-License-Identifier: Apache-2.0
//! The cases as their files have them (schema `netpol-case/v1`).

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::workspace;

/// What makes an object one and the same.
pub(crate) type Key = (String, String, String);
/// All objects of a state.
pub(crate) type Objects = BTreeMap<Key, Value>;

/// A case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) nodes: Vec<Value>,
    pub(crate) externals: Vec<Value>,
    pub(crate) objects: Objects,
    pub(crate) expect: Vec<Expectation>,
    pub(crate) steps: Vec<Step>,
}

/// A change, with all objects as they are after it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) objects: Objects,
    pub(crate) expect: Vec<Expectation>,
}

/// A table: everyone to everyone on every port, with what differs from the rest.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    from: Vec<String>,
    to: Vec<String>,
    ports: Vec<(u16, String)>,
    family: Option<u8>,
    default: bool,
    except: BTreeMap<Place, bool>,
}

/// From, to, port, protocol.
type Place = (String, String, u16, String);

/// One connection and what shall become of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cell {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) port: u16,
    /// In lower case.
    pub(crate) protocol: String,
    pub(crate) family: Option<u8>,
    pub(crate) allowed: bool,
}

/// Reads the cases whose id or name contains the filter.
pub(crate) fn load(filter: Option<&str>) -> Result<Vec<Case>> {
    let folder = folder()?;
    let mut files = Vec::new();
    for suite in ["cyclonus", "recipes", "weir"] {
        let Ok(listing) = fs::read_dir(folder.join(suite)) else {
            continue;
        };
        for entry in listing {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "yaml")
            {
                files.push(path);
            }
        }
    }
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let read = || -> Result<Case> {
            let options = serde_saphyr::options! { budget: None, strict_booleans: true };
            let text = fs::read_to_string(&file)?;
            parse(&serde_saphyr::from_str_with_options(&text, options)?)
        };
        let case = read().with_context(|| file.display().to_string())?;
        if filter.is_none_or(|filter| case.id.contains(filter) || case.name.contains(filter)) {
            cases.push(case);
        }
    }
    Ok(cases)
}

fn folder() -> Result<PathBuf> {
    let folder = workspace::root().join("tests/netpol");
    ensure!(folder.is_dir(), "{} is missing", folder.display());
    Ok(folder)
}

fn parse(case: &Value) -> Result<Case> {
    ensure!(
        case["schema"] == "netpol-case/v1",
        "schema {} is not known",
        case["schema"]
    );
    let mut objects = Objects::new();
    for object in list(&case["objects"]) {
        put(&mut objects, object)?;
    }
    let mut steps = Vec::new();
    let mut now = objects.clone();
    for step in list(&case["steps"]) {
        for action in list(&step["actions"]) {
            act(&mut now, action)?;
        }
        steps.push(Step {
            name: text(&step["name"]),
            objects: now.clone(),
            expect: expectations(&step["expect"])?,
        });
    }
    Ok(Case {
        id: text(&case["id"]),
        name: text(&case["name"]),
        nodes: list(&case["nodes"]).to_vec(),
        externals: list(&case["externals"]).to_vec(),
        objects,
        expect: expectations(&case["expect"])?,
        steps,
    })
}

fn put(objects: &mut Objects, object: &Value) -> Result<()> {
    let metadata = &object["metadata"];
    let key = (
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"]),
    );
    ensure!(!key.2.is_empty(), "an object has no name");
    objects.insert(key, object.clone());
    Ok(())
}

fn act(objects: &mut Objects, action: &Value) -> Result<()> {
    match action["op"].as_str() {
        Some("apply") => put(objects, &action["object"]),
        Some("delete") => {
            let (kind, name) = (text(&action["kind"]), text(&action["name"]));
            let key = (kind, text(&action["namespace"]), name);
            let gone = objects.remove(&key);
            ensure!(gone.is_some(), "there is no {key:?} to delete");
            if key.0 == "Namespace" {
                objects.retain(|(_, namespace, _), _| *namespace != key.2);
            }
            Ok(())
        }
        _ => bail!("action {} is not known", action["op"]),
    }
}

fn expectations(value: &Value) -> Result<Vec<Expectation>> {
    list(value)
        .iter()
        .map(|table| {
            let refs = |field: &str| list(&table[field]).iter().map(text).collect();
            Ok(Expectation {
                from: refs("from"),
                to: refs("to"),
                ports: list(&table["probes"])
                    .iter()
                    .map(|probe| Ok((port(probe)?, text(&probe["protocol"]).to_lowercase())))
                    .collect::<Result<_>>()?,
                family: table["family"].as_u64().and_then(|n| u8::try_from(n).ok()),
                default: table["default"]
                    .as_bool()
                    .context("a table has no default")?,
                except: list(&table["except"])
                    .iter()
                    .map(|cell| {
                        let protocol = text(&cell["protocol"]).to_lowercase();
                        let place = (
                            text(&cell["from"]),
                            text(&cell["to"]),
                            port(cell)?,
                            protocol,
                        );
                        let allowed = cell["allowed"].as_bool().context("an exception is none")?;
                        Ok((place, allowed))
                    })
                    .collect::<Result<_>>()?,
            })
        })
        .collect()
}

impl Expectation {
    /// The cells of the table; nobody is asked about himself.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for from in &self.from {
            for to in self.to.iter().filter(|to| *to != from) {
                for (port, protocol) in &self.ports {
                    let place = (from.clone(), to.clone(), *port, protocol.clone());
                    let allowed = self.except.get(&place).copied().unwrap_or(self.default);
                    let (from, to, port, protocol) = place;
                    cells.push(Cell {
                        from,
                        to,
                        port,
                        protocol,
                        family: self.family,
                        allowed,
                    });
                }
            }
        }
        cells
    }
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn port(value: &Value) -> Result<u16> {
    let port = value["port"].as_u64().and_then(|n| u16::try_from(n).ok());
    port.context("a probe has no port")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_carry_all_objects_and_tables_their_exceptions() {
        let pod = |name: &str| json!({"kind": "Pod", "metadata": {"namespace": "x", "name": name}});
        let case = json!({
            "schema": "netpol-case/v1", "id": "t-1", "name": "n",
            "objects": [{"kind": "Namespace", "metadata": {"name": "x"}}, pod("a"), pod("b")],
            "expect": [{
                "from": ["x/a", "x/b"], "to": ["x/a", "x/b"], "probes": [{"port": 80, "protocol": "TCP"}],
                "default": true, "except": [{"from": "x/a", "to": "x/b", "port": 80, "protocol": "TCP", "allowed": false}],
            }],
            "steps": [{"name": "gone", "actions": [{"op": "delete", "kind": "Namespace", "name": "x"}], "expect": []}],
        });
        let case = parse(&case).unwrap();
        let cells = case.expect[0].cells();
        let allowed: Vec<bool> = cells.iter().map(|cell| cell.allowed).collect();
        assert_eq!(allowed, [false, true]);
        assert_eq!(case.objects.len(), 3);
        assert!(case.steps[0].objects.is_empty());
        assert!(parse(&json!({"schema": "netpol-case/v2"})).is_err());
    }
}
