// SPDX-License-Identifier: Apache-2.0
//! The network configuration that comes on stdin.
//!
//! Unknown fields are the runtime's business and are passed over, as the specification wants it:
//! `runtimeConfig.portMappings` among them, since the agent knows host ports from the pod itself.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::failure::Failure;
use crate::version::SpecVersion;

/// How long a call waits for the agent unless the configuration says otherwise. Kubernetes gives a
/// runtime two minutes for a sandbox.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_PATIENCE: u64 = 110;

/// As it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Written {
    cni_version: Option<String>,
    name: Option<String>,
    socket: Option<PathBuf>,
    timeout_seconds: Option<u64>,
    ipam: Option<Value>,
    prev_result: Option<PrevResult>,
    #[serde(
        rename = "cni.dev/valid-attachments",
        deserialize_with = "null_is_empty"
    )]
    valid_attachments: Option<Vec<Attachment>>,
}

/// The result of the ADD before, as far as CHECK needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PrevResult {
    interfaces: Vec<PrevInterface>,
    ips: Vec<PrevIp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct PrevInterface {
    name: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct PrevIp {
    address: IpNet,
    interface: Option<usize>,
}

/// A container's interface that GC must leave alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) struct Attachment {
    #[serde(rename = "containerID")]
    pub(crate) container: String,
    #[serde(rename = "ifname")]
    pub(crate) interface: String,
}

/// A configuration that can be worked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) version: SpecVersion,
    /// Where the agent listens.
    pub(crate) socket: PathBuf,
    /// How long a call waits for the agent.
    pub(crate) patience: Duration,
    pub(crate) before: Option<PrevResult>,
    /// None: the runtime has given no list, which is not the same as an empty one.
    pub(crate) valid: Option<Vec<Attachment>>,
}

impl Network {
    /// Proves a configuration.
    pub(crate) fn read(input: &str) -> Result<Self, Failure> {
        let written: Written = serde_json::from_str(input).map_err(Failure::Decode)?;
        let version = SpecVersion::negotiate(written.cni_version.as_deref()).ok_or_else(|| {
            let asked = written
                .cni_version
                .as_deref()
                .unwrap_or(SpecVersion::UNSAID);
            Failure::Version(asked.to_owned())
        })?;
        if written.name.is_none_or(|name| name.is_empty()) {
            return Err(Failure::Config("`name` is missing".to_owned()));
        }
        if written.ipam.is_some_and(|ipam| ipam.get("type").is_some()) {
            return Err(Failure::Field {
                field: "ipam.type",
                hint: "leave it out: addresses come from the agent, out of the node's pod ranges",
            });
        }
        let socket = written
            .socket
            .unwrap_or_else(|| weir_api::path::DEFAULT_SOCKET.into());
        if !socket.is_absolute() {
            let message = format!("`socket` {} is no absolute path", socket.display());
            return Err(Failure::Config(message));
        }
        let patience = match written.timeout_seconds {
            None => PATIENCE,
            Some(seconds) if (1..=LONGEST_PATIENCE).contains(&seconds) => {
                Duration::from_secs(seconds)
            }
            Some(seconds) => {
                let message =
                    format!("`timeoutSeconds` {seconds} is not in 1..={LONGEST_PATIENCE}");
                return Err(Failure::Config(message));
            }
        };
        Ok(Self {
            version,
            socket,
            patience,
            before: written.prev_result,
            valid: written.valid_attachments,
        })
    }
}

impl PrevResult {
    /// The addresses of the pod's interface of that name.
    pub(crate) fn addresses_of(&self, interface: &str) -> Vec<IpAddr> {
        let of_interface = |ip: &&PrevIp| match ip.interface {
            // Without an index it can only be the one interface that a pod has from us.
            None => true,
            Some(index) => self
                .interfaces
                .get(index)
                .is_some_and(|one| one.name == interface && !one.sandbox.is_empty()),
        };
        let ips = self.ips.iter().filter(of_interface);
        ips.map(|ip| ip.address.addr()).collect()
    }
}

/// Runtimes in Go write an empty list as `null`.
fn null_is_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Attachment>>, D::Error> {
    let list = Option::<Vec<Attachment>>::deserialize(deserializer)?;
    Ok(Some(list.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(input: &str, code: u32, words: &str) {
        let failure = Network::read(input).unwrap_err();
        assert_eq!(failure.code(), code, "{failure}");
        assert!(failure.to_string().contains(words), "{failure}");
    }

    #[test]
    fn what_is_not_written_has_a_default() {
        let network = Network::read(r#"{"cniVersion": "1.0.0", "name": "weir"}"#).unwrap();
        let expected = Network {
            version: SpecVersion::V1_0_0,
            socket: "/run/weir/weir.sock".into(),
            patience: Duration::from_secs(30),
            before: None,
            valid: None,
        };
        assert_eq!(network, expected);
    }

    #[test]
    fn a_runtimes_additions_are_no_mistakes() {
        let input = r#"{"cniVersion": "1.1.0", "name": "weir", "type": "weir-cni", "socket": "/x.sock",
            "timeoutSeconds": 5, "ipam": {}, "args": {"a": 1}, "dns": {},
            "runtimeConfig": {"portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]},
            "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
            "prevResult": {"cniVersion": "1.1.0", "dns": {}, "routes": [{"dst": "0.0.0.0/0"}],
              "interfaces": [{"name": "weir1"}, {"name": "eth0", "sandbox": "/n"}],
              "ips": [{"address": "10.1.0.5/32", "interface": 1}, {"address": "fd00::5/128", "interface": 1},
                      {"address": "10.9.9.9/24", "interface": 0}]}}"#;
        let network = Network::read(input).unwrap();
        assert_eq!(network.socket, PathBuf::from("/x.sock"));
        assert_eq!(network.patience, Duration::from_secs(5));
        let before = network.before.unwrap();
        let expected: Vec<IpAddr> = ["10.1.0.5", "fd00::5"].map(|a| a.parse().unwrap()).into();
        assert_eq!(before.addresses_of("eth0"), expected);
        assert!(before.addresses_of("eth1").is_empty());
        let valid = network.valid.unwrap();
        assert_eq!(
            (valid[0].container.as_str(), valid[0].interface.as_str()),
            ("c1", "eth0")
        );
    }

    #[test]
    fn no_list_is_not_an_empty_list() {
        let with = |more: &str| {
            let input = format!(r#"{{"cniVersion": "1.1.0", "name": "weir"{more}}}"#);
            Network::read(&input).unwrap().valid
        };
        assert_eq!(with(""), None);
        assert_eq!(with(r#", "cni.dev/valid-attachments": null"#), Some(vec![]));
        assert_eq!(with(r#", "cni.dev/valid-attachments": []"#), Some(vec![]));
    }

    #[test]
    fn mistakes_are_named() {
        check_refused("", 6, "not what the specification says");
        check_refused(r#"{"name": "weir"}"#, 1, "0.1.0");
        check_refused(r#"{"cniVersion": "1.1.0"}"#, 7, "`name`");
        let with = |more: &str| format!(r#"{{"cniVersion": "1.1.0", "name": "weir", {more}}}"#);
        check_refused(&with(r#""ipam": {"type": "host-local"}"#), 2, "ipam.type");
        check_refused(&with(r#""socket": "weir.sock""#), 7, "absolute");
        check_refused(&with(r#""timeoutSeconds": 0"#), 7, "1..=110");
        check_refused(&with(r#""timeoutSeconds": 111"#), 7, "1..=110");
    }
}
