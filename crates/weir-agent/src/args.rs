// SPDX-License-Identifier: Apache-2.0
//! The command line of `weir agent`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use ipnet::IpNet;
use weir_cluster::api::DaemonSetRef;

use crate::cni::CniArgs;
use crate::config::{
    Config, ConfigError, DEFAULT_CONFIG, LoadBalancerAcceleration, LoadBalancerAlgorithm,
    LoadBalancerMode, LogLevel, NoBackend, PortRange, RoutingMode,
};

/// Run the agent of this node.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of this node in the cluster; the host name unless given.
    #[arg(long)]
    pub node_name: Option<String>,
    /// Folder with the cluster's objects as YAML, in place of an API server.
    #[arg(long)]
    pub objects: Option<PathBuf>,
    /// How the API server is reached; unless given, the file that KUBECONFIG names, or else the
    /// service account of the agent's pod.
    #[arg(long, value_name = "FILE", conflicts_with = "objects")]
    pub kubeconfig: Option<PathBuf>,
    /// Configuration file [default: /etc/weir/config.yaml, which may be missing].
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Socket that the API listens on.
    #[arg(long, default_value = weir_api::path::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Directory of the pins, on a bpf file system.
    #[arg(long, default_value = "/sys/fs/bpf/weir")]
    pub pins: PathBuf,
    /// Directory of the state that outlives the agent.
    #[arg(long, default_value = "/var/lib/weir")]
    pub state: PathBuf,
    /// File that decisions of policies are logged to, where the object `NetworkLogging` asks for it.
    #[arg(long, default_value = "/var/log/network/policy_action.log")]
    pub policy_log: PathBuf,
    /// Where metrics and health are served by TCP; `none` for nowhere.
    #[arg(long, default_value = "127.0.0.1:9962", value_parser = metrics_address)]
    pub metrics_address: MetricsAddress,
    /// Where what asks kube-proxy for its health and mode is answered; nowhere unless given.
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    pub proxy_health: Vec<SocketAddr>,
    /// Another eBPF object than the one inside this program.
    #[arg(long, hide = true)]
    pub bpf_object: Option<PathBuf>,
    /// Form of the log lines on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// The DaemonSet that runs this agent. Stopped when that is gone, the agent removes the CNI
    /// configuration that it has installed.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "objects")]
    pub daemon_set: Option<DaemonSetRef>,
    #[command(flatten)]
    pub cni: CniArgs,
    #[command(flatten)]
    pub overrides: Overrides,
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsAddress(pub Option<SocketAddr>);

fn metrics_address(text: &str) -> Result<MetricsAddress, String> {
    if text == "none" {
        return Ok(MetricsAddress(None));
    }
    let problem = |_| "expected ADDRESS:PORT or none".to_owned();
    text.parse()
        .map(|address| MetricsAddress(Some(address)))
        .map_err(problem)
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// The fields of the configuration file as flags.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Configuration (overrides the file)")]
pub struct Overrides {
    /// How pods of other nodes are reached.
    #[arg(long, value_enum)]
    pub routing_mode: Option<RoutingMode>,
    /// Translate service addresses at the socket.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub socket_lb: Option<bool>,
    /// Pods take the node's address towards the world.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub masquerade: Option<bool>,
    /// Destinations that pods reach with their own address.
    #[arg(
        long = "non-masquerade-cidrs",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub non_masquerade_cidrs: Option<Vec<IpNet>>,
    /// How a backend is chosen.
    #[arg(long, value_enum)]
    pub load_balancer_algorithm: Option<LoadBalancerAlgorithm>,
    /// Entries of one Maglev table.
    #[arg(long, value_name = "PRIME")]
    pub maglev_table_size: Option<u32>,
    /// How answers of backends on other nodes come back.
    #[arg(long, value_enum)]
    pub load_balancer_mode: Option<LoadBalancerMode>,
    /// Whether drivers forward what goes to backends on other nodes (XDP).
    #[arg(long, value_enum)]
    pub load_balancer_acceleration: Option<LoadBalancerAcceleration>,
    /// What connections to a service without backends get.
    #[arg(long, value_enum)]
    pub no_backend: Option<NoBackend>,
    /// Ports of services of type NodePort.
    #[arg(long, value_name = "FIRST-LAST")]
    pub node_port_range: Option<PortRange>,
    /// Underlay devices.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub devices: Option<Vec<String>>,
    /// MTU of the underlay.
    #[arg(long)]
    pub mtu: Option<u16>,
    /// Where the cgroup v2 hierarchy is mounted.
    #[arg(long)]
    pub cgroup_root: Option<PathBuf>,
    /// Ranges of this node's pods.
    #[arg(long = "pod-cidrs", value_name = "CIDR", value_delimiter = ',')]
    pub pod_cidrs: Option<Vec<IpNet>>,
    /// Address of the Kubernetes API server, such as `https://10.0.0.1:6443`.
    #[arg(long)]
    pub api_server: Option<String>,
    /// Entries of a map, as NAME=N.
    #[arg(long, value_name = "NAME=N", value_delimiter = ',', value_parser = map_size)]
    pub map_sizes: Option<Vec<(String, u32)>>,
    /// Which log lines are written.
    #[arg(long, value_enum)]
    pub log_level: Option<LogLevel>,
}

fn map_size(text: &str) -> Result<(String, u32), String> {
    let (name, size) = text.split_once('=').ok_or("expected NAME=N")?;
    let size = size
        .parse()
        .map_err(|_| format!("`{size}` is not a number of entries"))?;
    Ok((name.to_owned(), size))
}

impl Args {
    /// The file's fields with the flags over them.
    pub fn effective_config(&self) -> Result<Config, ConfigError> {
        let default = PathBuf::from(DEFAULT_CONFIG);
        let path = self.config.as_ref().unwrap_or(&default);
        let mut config = Config::read(path, self.config.is_some())?;
        self.overrides.apply(&mut config);
        config.check()?;
        Ok(config)
    }
}

impl Overrides {
    fn apply(&self, config: &mut Config) {
        let flags = self.clone();
        let set = &mut *config;
        put(&mut set.routing_mode, flags.routing_mode);
        put(&mut set.socket_lb, flags.socket_lb);
        put(&mut set.masquerade, flags.masquerade);
        put(
            &mut set.non_masquerade_cidrs,
            flags.non_masquerade_cidrs.map(Some),
        );
        put(
            &mut set.load_balancer_algorithm,
            flags.load_balancer_algorithm,
        );
        put(&mut set.maglev_table_size, flags.maglev_table_size);
        put(&mut set.load_balancer_mode, flags.load_balancer_mode);
        put(
            &mut set.load_balancer_acceleration,
            flags.load_balancer_acceleration,
        );
        put(&mut set.no_backend, flags.no_backend);
        put(&mut set.node_port_range, flags.node_port_range);
        put(&mut set.devices, flags.devices);
        put(&mut set.mtu, flags.mtu.map(Some));
        put(&mut set.cgroup_root, flags.cgroup_root.map(Some));
        put(&mut set.pod_cidrs, flags.pod_cidrs);
        put(&mut set.api_server, flags.api_server.map(Some));
        set.map_sizes.extend(flags.map_sizes.into_iter().flatten());
        put(&mut set.log_level, flags.log_level);
    }
}

fn put<T>(field: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *field = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn flags_override_the_file() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config.yaml");
        std::fs::write(
            &file,
            "mtu: 1400\nmasquerade: true\nmapSizes: {flows: 65536}\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let program = Program::parse_from([
            "agent",
            "--config",
            file,
            "--masquerade=false",
            "--routing-mode",
            "native",
            "--socket-lb",
            "--devices",
            "eth0,eth1",
            "--map-sizes",
            "fragments=16384",
            "--pod-cidrs",
            "10.9.0.0/24",
        ]);
        let config = program.args.effective_config().unwrap();
        assert_eq!(
            (config.mtu, config.masquerade, config.socket_lb),
            (Some(1400), false, true)
        );
        assert_eq!(config.devices, ["eth0", "eth1"]);
        assert_eq!(config.map_sizes.len(), 2);
        assert_eq!(config.pod_ranges().len(), 1);
    }

    #[test]
    fn a_file_that_was_asked_for_must_be_there() {
        let program = Program::parse_from(["agent", "--config", "/nonexistent/x.yaml"]);
        assert!(matches!(
            program.args.effective_config(),
            Err(ConfigError::Read { .. })
        ));
    }
}
