// SPDX-License-Identifier: Apache-2.0
//! How much is written, and where to: `policy-logging.conf` beside the log overrides what is built in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The file that overrides the rest, in the log's directory.
pub(crate) const FILE: &str = "policy-logging.conf";

/// Fields that are not known here are left alone: the file may be another product's as well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Limits {
    /// Directory of the log; absent: where the agent was told.
    pub(crate) log_file_path: Option<PathBuf>,
    /// Name of the log; absent: as the agent was told.
    pub(crate) log_file_name: Option<PathBuf>,
    /// Megabytes after which a new file begins.
    pub(crate) log_file_max_size: u64,
    /// Old files that are kept.
    pub(crate) log_file_max_backups: u32,
    /// Lines in each second.
    pub(crate) max_log_rate: u32,
    /// Lines that wait for the file.
    pub(crate) log_queue_size: usize,
    /// For how long denials of a connection are gathered; 0: each of them is a line.
    pub(crate) deny_aggregation_seconds: u32,
    /// Connections whose denials are gathered at the same time.
    pub(crate) deny_aggregation_map_size: usize,
    pub(crate) log_node_name: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            log_file_path: None,
            log_file_name: None,
            log_file_max_size: 10,
            log_file_max_backups: 5,
            max_log_rate: 500,
            log_queue_size: 2000,
            deny_aggregation_seconds: 5,
            deny_aggregation_map_size: 3000,
            log_node_name: true,
        }
    }
}

impl Limits {
    /// Reads the file beside a log; without it, what is built in.
    pub(crate) fn beside(log: &Path) -> Result<Self, String> {
        let path = log.with_file_name(FILE);
        let refused = |error: &dyn std::error::Error| format!("{}: {error}", path.display());
        match fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => Ok(Self::default()),
            Ok(text) => serde_saphyr::from_str(&text).map_err(|error| refused(&error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(refused(&error)),
        }
    }

    /// Where the log is.
    pub(crate) fn path(&self, told: &Path) -> PathBuf {
        let own = told.parent().unwrap_or(Path::new("/"));
        let directory = self.log_file_path.as_deref().unwrap_or(own);
        let name = told.file_name().map(Path::new);
        directory.join(self.log_file_name.as_deref().or(name).unwrap_or(told))
    }

    /// Bytes after which a new file begins.
    pub(crate) const fn bytes(&self) -> u64 {
        self.log_file_max_size.saturating_mul(1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_overrides_what_is_built_in() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("policy_action.log");
        let check = |text: Option<&str>, expected: Result<Limits, &str>| {
            let file = home.path().join(FILE);
            match text {
                Some(text) => fs::write(&file, text).unwrap(),
                None => drop(fs::remove_file(&file)),
            }
            match (Limits::beside(&log), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text:?}"),
                (Err(found), Err(word)) => assert!(found.contains(word), "{found}"),
                (found, expected) => panic!("{text:?}: {found:?}, not {expected:?}"),
            }
        };
        check(None, Ok(Limits::default()));
        check(Some(""), Ok(Limits::default()));
        let fast = Limits {
            max_log_rate: 7,
            deny_aggregation_seconds: 1,
            log_node_name: false,
            ..Limits::default()
        };
        let text =
            "maxLogRate: 7\ndenyAggregationSeconds: 1\nlogNodeName: false\nsomethingElse: 1\n";
        check(Some(text), Ok(fast));
        check(Some("maxLogRate: many\n"), Err(FILE));
    }

    #[test]
    fn the_log_can_lie_elsewhere() {
        let told = Path::new("/var/log/network/policy_action.log");
        let check = |directory: Option<&str>, name: Option<&str>, expected: &str| {
            let limits = Limits {
                log_file_path: directory.map(PathBuf::from),
                log_file_name: name.map(PathBuf::from),
                ..Limits::default()
            };
            assert_eq!(limits.path(told), Path::new(expected));
        };
        check(None, None, "/var/log/network/policy_action.log");
        check(Some("/tmp"), None, "/tmp/policy_action.log");
        check(None, Some("x.log"), "/var/log/network/x.log");
        check(Some("/tmp"), Some("x.log"), "/tmp/x.log");
    }
}
