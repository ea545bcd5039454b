// SPDX-License-Identifier: Apache-2.0
//! The configuration file, and the flags that override it.

mod values;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weir_model::PodCidr;

pub use values::{
    LoadBalancerAcceleration, LoadBalancerAlgorithm, LoadBalancerMode, LogLevel, NoBackend,
    PortRange, RoutingMode,
};

/// Where the configuration is unless told otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/weir/config.yaml";

/// Entries of one Maglev table: primes, and a hundred times as many as a service has backends.
pub const MAGLEV_SIZES: [u32; 10] = [
    251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071,
];
/// Tables that fit unless `mapSizes` says otherwise.
const MAGLEV_TABLES: u32 = 256;

/// Everything that can be set. Every field is optional in the file; an unknown one is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Config {
    pub routing_mode: RoutingMode,
    #[serde(rename = "socketLB")]
    pub socket_lb: bool,
    pub masquerade: bool,
    /// Destinations outside the cluster that pods reach with their own address; absent: the
    /// defaults of the ip-masq-agent.
    #[serde(rename = "nonMasqueradeCIDRs")]
    pub non_masquerade_cidrs: Option<Vec<IpNet>>,
    pub load_balancer_algorithm: LoadBalancerAlgorithm,
    /// Entries of one Maglev table.
    pub maglev_table_size: u32,
    pub load_balancer_mode: LoadBalancerMode,
    pub load_balancer_acceleration: LoadBalancerAcceleration,
    pub no_backend: NoBackend,
    /// Ports of services of type NodePort; masquerading uses those above.
    pub node_port_range: PortRange,
    /// Underlay devices; none: those of the default routes.
    pub devices: Vec<String>,
    /// MTU of the underlay; absent: the smallest of the devices.
    pub mtu: Option<u16>,
    pub cgroup_root: Option<PathBuf>,
    /// Ranges of this node's pods; none: those of the Node object.
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    pub api_server: Option<String>,
    pub map_sizes: BTreeMap<String, u32>,
    pub log_level: LogLevel,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            routing_mode: RoutingMode::default(),
            socket_lb: true,
            masquerade: true,
            non_masquerade_cidrs: None,
            load_balancer_algorithm: LoadBalancerAlgorithm::default(),
            maglev_table_size: 16_381,
            load_balancer_mode: LoadBalancerMode::default(),
            load_balancer_acceleration: LoadBalancerAcceleration::default(),
            no_backend: NoBackend::default(),
            node_port_range: PortRange::default(),
            devices: Vec::new(),
            mtu: None,
            cgroup_root: None,
            pod_cidrs: Vec::new(),
            api_server: None,
            map_sizes: BTreeMap::new(),
            log_level: LogLevel::default(),
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration {path} is refused: {message}")]
    Syntax { path: PathBuf, message: String },
    #[error("mtu {mtu} is refused: an underlay carries between 1280 and 9600 bytes")]
    Mtu { mtu: u16 },
    #[error("podCIDRs: {0}")]
    PodCidr(weir_model::InvalidPodCidr),
    #[error("devices: `{0}` is not the name of an interface")]
    Device(String),
    #[error(
        "maglevTableSize {0} is refused: use one of 251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131071"
    )]
    MaglevSize(u32),
    #[error(
        "nodePortRange {0} is refused: masquerading needs at least 1024 ports above it, below 65536"
    )]
    NodePortRange(PortRange),
    #[error(transparent)]
    MapSizes(weir_datapath::Error),
}

impl Config {
    /// Reads a file; one that is not there is an empty one where `required` is not set.
    pub fn read(path: &Path, required: bool) -> Result<Self, ConfigError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => String::new(),
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Self::parse(&text).map_err(|message| ConfigError::Syntax {
            path: path.to_owned(),
            message,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let empty = text.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "---"
        });
        if empty {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// Proves what serde cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(mtu) = self.mtu.filter(|mtu| !(1280..=9600).contains(mtu)) {
            return Err(ConfigError::Mtu { mtu });
        }
        if !MAGLEV_SIZES.contains(&self.maglev_table_size) {
            return Err(ConfigError::MaglevSize(self.maglev_table_size));
        }
        if self.node_port_range.last > u16::MAX - 1024 {
            return Err(ConfigError::NodePortRange(self.node_port_range));
        }
        for cidr in &self.pod_cidrs {
            PodCidr::new(*cidr).map_err(ConfigError::PodCidr)?;
        }
        let bad = |name: &&String| {
            name.is_empty()
                || name.len() > 15
                || name.contains(|c: char| c == '/' || c.is_whitespace())
        };
        if let Some(name) = self.devices.iter().find(bad) {
            return Err(ConfigError::Device(name.clone()));
        }
        self.sizes().map(drop)
    }

    /// The sizes of the maps.
    pub fn sizes(&self) -> Result<weir_datapath::MapSizes, ConfigError> {
        let sizes =
            weir_datapath::MapSizes::from_config(&self.map_sizes).map_err(ConfigError::MapSizes)?;
        Ok(match self.load_balancer_algorithm {
            LoadBalancerAlgorithm::Random => sizes,
            LoadBalancerAlgorithm::Maglev => {
                let room = self.maglev_table_size.saturating_mul(MAGLEV_TABLES);
                sizes.or(&weir_abi::map::MAGLEV, room)
            }
        })
    }

    /// Entries of one Maglev table, 0 where backends are chosen by a hash alone.
    pub fn maglev_size(&self) -> u32 {
        match self.load_balancer_algorithm {
            LoadBalancerAlgorithm::Random => 0,
            LoadBalancerAlgorithm::Maglev => self.maglev_table_size,
        }
    }

    /// The proven ranges of [`Self::pod_cidrs`].
    pub fn pod_ranges(&self) -> Vec<PodCidr> {
        self.pod_cidrs
            .iter()
            .filter_map(|cidr| PodCidr::new(*cidr).ok())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        for text in ["", "\n# nothing\n---\n"] {
            assert_eq!(Config::parse(text), Ok(Config::default()));
        }
        Config::default().check().unwrap();
    }

    #[test]
    fn every_field_can_be_set() {
        let config = Config::parse(
            "routingMode: native\nsocketLB: false\nmasquerade: false\nnonMasqueradeCIDRs: [10.0.0.0/8, 'fc00::/7']\n\
             loadBalancerAlgorithm: maglev\nmaglevTableSize: 1021\nloadBalancerMode: dsr\nnoBackend: drop\n\
             nodePortRange: 30000-30100\ndevices: [eth0]\nmtu: 1400\n\
             cgroupRoot: /cgroup\npodCIDRs: [10.1.0.0/24]\napiServer: https://10.0.0.1:6443\n\
             mapSizes: {flows: 65536}\nlogLevel: debug\n",
        )
        .unwrap();
        config.check().unwrap();
        assert_eq!(config.routing_mode, RoutingMode::Native);
        assert_eq!(config.map_sizes.get("flows"), Some(&65_536));
        let text = serde_saphyr::to_string(&config).unwrap();
        assert_eq!(Config::parse(&text), Ok(config));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("routingmode: native\n", "routingmode"),
            ("routingMode: flood\n", "flood"),
            ("mtu: many\n", "mtu"),
            ("nodePortRange: 5-4\n", "5-4"),
            ("- a\n", ""),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        for (text, word) in [
            ("mtu: 100\n", "mtu 100"),
            ("podCIDRs: [10.1.0.1/24]\n", "write 10.1.0.0/24"),
            ("devices: [a/b]\n", "a/b"),
            ("mapSizes: {flow: 7}\n", "flow"),
            ("maglevTableSize: 1000\n", "1000"),
            ("nodePortRange: 30000-65535\n", "30000-65535"),
        ] {
            let error = Config::parse(text)
                .unwrap()
                .check()
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
