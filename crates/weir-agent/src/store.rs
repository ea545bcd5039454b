// SPDX-License-Identifier: Apache-2.0
//! Files that outlive the agent: endpoints, identities, routes.
//!
//! Each file is replaced by rename, so a reader (the next agent, after a SIGKILL at any moment) sees
//! the old or the new one and never half of one.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weir_abi::Identity;
use weir_model::{IdentityTable, LabelSet, Labels, Namespace};

use crate::endpoint::{Record, SavedPort, named_ports, saved_ports};
use crate::ipam::Remembered;

/// Why state cannot be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{path} is damaged: {source}")]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
}

/// The state directory.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct SavedIdentity {
    id: u32,
    namespace: String,
    labels: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ports: Vec<SavedPort>,
}

impl Store {
    /// Opens (and makes) the directory.
    pub(crate) fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self {
            root: root.to_owned(),
        };
        let endpoints = store.endpoints();
        fs::create_dir_all(&endpoints).map_err(|source| StoreError::Io {
            action: "make",
            path: endpoints,
            source,
        })?;
        Ok(store)
    }

    /// The note that the node's grace periods were made short.
    pub(crate) fn short_grace_periods(&self) -> PathBuf {
        self.root.join("short-grace-periods")
    }

    fn endpoints(&self) -> PathBuf {
        self.root.join("endpoints")
    }

    fn endpoint(&self, id: u16) -> PathBuf {
        self.endpoints().join(format!("{id}.json"))
    }

    /// Every endpoint that can be read, and what is wrong with the others; those are set aside.
    pub(crate) fn load_endpoints(&self) -> (Vec<Record>, Vec<StoreError>) {
        let (mut records, mut problems) = (Vec::new(), Vec::new());
        let entries = match fs::read_dir(self.endpoints()) {
            Ok(entries) => entries,
            Err(source) => {
                problems.push(StoreError::Io {
                    action: "read",
                    path: self.endpoints(),
                    source,
                });
                return (records, problems);
            }
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(Some(record)) => records.push(record),
                Ok(None) => {}
                Err(error) => {
                    if matches!(error, StoreError::Damaged { .. }) {
                        let _ = fs::rename(&path, path.with_extension("damaged"));
                    }
                    problems.push(error);
                }
            }
        }
        records.sort_by_key(|record: &Record| record.id);
        (records, problems)
    }

    pub(crate) fn save_endpoint(&self, record: &Record) -> Result<(), StoreError> {
        write(&self.endpoint(record.id), record)
    }

    pub(crate) fn remove_endpoint(&self, id: u16) -> Result<(), StoreError> {
        let path = self.endpoint(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::Io {
                action: "remove",
                path,
                source: error,
            }),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(crate) fn load_identities(&self) -> Result<IdentityTable, StoreError> {
        let saved: Vec<SavedIdentity> =
            read(&self.root.join("identities.json"))?.unwrap_or_default();
        Ok(IdentityTable::restore(saved.into_iter().filter_map(
            |one| {
                let namespace = Namespace::new(&one.namespace).ok()?;
                let labels = Labels::new(one.labels).ok()?;
                let set = LabelSet {
                    namespace,
                    labels,
                    ports: named_ports(&one.ports),
                };
                Some((Identity(one.id), set))
            },
        )))
    }

    pub(crate) fn save_identities(&self, table: &IdentityTable) -> Result<(), StoreError> {
        let saved: Vec<_> = table
            .iter()
            .map(|(number, set)| SavedIdentity {
                id: number.0,
                namespace: set.namespace.to_string(),
                labels: set
                    .labels
                    .iter()
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .collect(),
                ports: saved_ports(&set.ports),
            })
            .collect();
        write(&self.root.join("identities.json"), &saved)
    }

    /// The node's seed: a random number that is made once, so that a restart changes no choice.
    pub(crate) fn seed(&self) -> Result<u32, StoreError> {
        let path = self.root.join("seed.json");
        if let Ok(Some(seed)) = read(&path) {
            return Ok(seed);
        }
        let source = PathBuf::from("/dev/urandom");
        let mut bytes = [0; 4];
        fs::File::open(&source)
            .and_then(|mut random| random.read_exact(&mut bytes))
            .map_err(|error| StoreError::Io {
                action: "read",
                path: source,
                source: error,
            })?;
        let seed = u32::from_ne_bytes(bytes);
        write(&path, &seed)?;
        Ok(seed)
    }

    /// Which addresses were given last, and which ones rest.
    pub(crate) fn load_addresses(&self) -> Result<Remembered, StoreError> {
        Ok(read(&self.root.join("addresses.json"))?.unwrap_or_default())
    }

    pub(crate) fn save_addresses(&self, addresses: &Remembered) -> Result<(), StoreError> {
        write(&self.root.join("addresses.json"), addresses)
    }

    /// Destinations of the routes that are Weir's.
    pub(crate) fn load_routes(&self) -> Result<Vec<IpNet>, StoreError> {
        Ok(read(&self.root.join("routes.json"))?.unwrap_or_default())
    }

    pub(crate) fn save_routes(&self, routes: &[IpNet]) -> Result<(), StoreError> {
        write(&self.root.join("routes.json"), &routes)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(StoreError::Io {
                action: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| StoreError::Damaged {
            path: path.to_owned(),
            source,
        })
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let failed = |source| StoreError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let bytes = serde_json::to_vec(value).map_err(|source| StoreError::Damaged {
        path: path.to_owned(),
        source,
    })?;
    let new = path.with_extension("new");
    fs::write(&new, bytes).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::tests::record;
    use std::collections::BTreeSet;

    #[test]
    fn endpoints_come_back_and_damaged_files_are_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        for id in [7, 2] {
            store.save_endpoint(&record(id)).unwrap();
        }
        fs::write(
            home.path().join("endpoints/9.json"),
            "{\"id\": 9, half a fi",
        )
        .unwrap();
        fs::write(home.path().join("endpoints/3.new"), "torn").unwrap();
        let (records, problems) = store.load_endpoints();
        assert_eq!(records, [record(2), record(7)]);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].to_string().contains("9.json is damaged"),
            "{}",
            problems[0]
        );
        assert!(store.load_endpoints().1.is_empty());
        store.remove_endpoint(2).unwrap();
        store.remove_endpoint(2).unwrap();
        assert_eq!(store.load_endpoints().0, [record(7)]);
    }

    #[test]
    fn identities_and_routes_come_back() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        assert_eq!(store.load_identities().unwrap(), IdentityTable::default());
        let mut table = IdentityTable::default();
        table.update(&BTreeSet::from([record(1).label_set().unwrap()]));
        store.save_identities(&table).unwrap();
        assert_eq!(store.load_identities().unwrap(), table);
        let seed = store.seed().unwrap();
        assert_eq!(store.seed().unwrap(), seed);
        let routes = vec!["10.1.0.0/24".parse().unwrap()];
        store.save_routes(&routes).unwrap();
        assert_eq!(store.load_routes().unwrap(), routes);
    }
}
