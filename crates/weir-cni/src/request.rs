// SPDX-License-Identifier: Apache-2.0
//! What a runtime asks for: from the environment and stdin to a call that can be carried out.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Network;
use crate::failure::Failure;
use crate::version::SpecVersion;

/// STATUS says soon how it is. It is asked every few seconds, and a node whose network is said to be
/// away loses its pods' readiness, so an agent that is being started again has this long.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// The variables of the specification, as they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    pub(crate) command: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) netns: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) args: Option<String>,
}

impl Environment {
    /// Those that the process was started with. An empty one is as good as none.
    pub(crate) fn of_process() -> Self {
        let read = |name: &str| {
            let value = env::var_os(name).filter(|value| !value.is_empty());
            // What is no text is refused below like any other wrong character.
            value.map(|value| value.to_string_lossy().into_owned())
        };
        Self {
            command: read("CNI_COMMAND"),
            container: read("CNI_CONTAINERID"),
            netns: read("CNI_NETNS"),
            interface: read("CNI_IFNAME"),
            args: read("CNI_ARGS"),
        }
    }
}

/// A container's identifier: letters, digits, `_`, `.` and `-`, the first one a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerId(String);

/// The name of an interface in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceName(String);

/// A container's interface: what every call but GC and STATUS is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) network: Network,
    pub(crate) container: ContainerId,
    pub(crate) interface: InterfaceName,
}

/// The pod that the container is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodName {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// That of the pod object; not every runtime says it.
    pub(crate) uid: Option<String>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Connect a pod.
    Add {
        subject: Subject,
        pod: PodName,
        netns: PathBuf,
    },
    /// Take a pod's connection away; its network namespace may be gone.
    Del {
        subject: Subject,
        netns: Option<PathBuf>,
    },
    /// Compare a pod's connection with what ADD has made.
    Check {
        subject: Subject,
        pod: PodName,
        netns: PathBuf,
    },
    /// Take away whatever the runtime does not know any more.
    Gc(Network),
    /// Can pods be connected now?
    Status(Network),
    /// Which versions are spoken?
    Version(SpecVersion),
}

impl Call {
    /// Proves what is asked for.
    pub(crate) fn read(environment: &Environment, input: &str) -> Result<Self, Failure> {
        let command = required("CNI_COMMAND", environment.command.as_deref())?;
        let network = || Network::read(input);
        let since = |version: SpecVersion, command: &'static str, needed: SpecVersion| {
            if version < needed {
                return Err(Failure::Command { command, version });
            }
            Ok(())
        };
        match command {
            "VERSION" => Ok(Self::Version(SpecVersion::spoken(input))),
            "ADD" => Ok(Self::Add {
                subject: Subject::read(environment, network()?)?,
                pod: PodName::read(environment)?,
                netns: netns(environment)?,
            }),
            "DEL" => Ok(Self::Del {
                subject: Subject::read(environment, network()?)?,
                netns: environment.netns.as_ref().map(PathBuf::from),
            }),
            "CHECK" => {
                let network = network()?;
                since(network.version, "CHECK", SpecVersion::V0_4_0)?;
                if network.before.is_none() {
                    return Err(Failure::Config("`prevResult` is missing".to_owned()));
                }
                Ok(Self::Check {
                    subject: Subject::read(environment, network)?,
                    pod: PodName::read(environment)?,
                    netns: netns(environment)?,
                })
            }
            "GC" => {
                let network = network()?;
                since(network.version, "GC", SpecVersion::V1_1_0)?;
                if network.valid.is_none() {
                    let message = "`cni.dev/valid-attachments` is missing".to_owned();
                    return Err(Failure::Config(message));
                }
                Ok(Self::Gc(network))
            }
            "STATUS" => {
                let network = network()?;
                since(network.version, "STATUS", SpecVersion::V1_1_0)?;
                Ok(Self::Status(network))
            }
            other => Err(Failure::Environment {
                name: "CNI_COMMAND",
                problem: format!("`{other}` is none of ADD, DEL, CHECK, GC, STATUS and VERSION"),
            }),
        }
    }

    /// How long it may take.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::Add { subject, .. } | Self::Del { subject, .. } | Self::Check { subject, .. } => {
                subject.network.patience
            }
            Self::Gc(network) => network.patience,
            Self::Status(network) => network.patience.min(STATUS_PATIENCE),
            Self::Version(_) => Duration::ZERO,
        }
    }
}

impl Subject {
    fn read(environment: &Environment, network: Network) -> Result<Self, Failure> {
        let container = required("CNI_CONTAINERID", environment.container.as_deref())?;
        let interface = required("CNI_IFNAME", environment.interface.as_deref())?;
        Ok(Self {
            network,
            container: ContainerId::parse(container)?,
            interface: InterfaceName::parse(interface)?,
        })
    }
}

impl ContainerId {
    /// Proves an identifier.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if first && text.len() <= 128 && text.chars().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(Failure::Environment {
            name: "CNI_CONTAINERID",
            problem:
                "1 to 128 letters, digits, `-`, `_` and `.` are needed, the first a letter or digit"
                    .to_owned(),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl InterfaceName {
    /// Proves a name.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
        let reserved = matches!(text, "" | "." | ".." | "lo");
        if !reserved && text.len() <= 15 && text.chars().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(Failure::Environment {
            name: "CNI_IFNAME",
            problem: format!("`{text}` cannot be the name of a pod's interface"),
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl PodName {
    /// Kubernetes' runtimes say in `CNI_ARGS` which pod it is.
    fn read(environment: &Environment) -> Result<Self, Failure> {
        let args = environment.args.as_deref().unwrap_or_default();
        let found = |key: &str| {
            let mut pairs = args.split(';').filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(name, _)| *name == key).map(|(_, value)| value);
            found.filter(|value| !value.is_empty())
        };
        let value = |key: &str| {
            found(key).ok_or_else(|| Failure::Environment {
                name: "CNI_ARGS",
                problem: format!("{key} is missing: only pods of Kubernetes are connected"),
            })
        };
        Ok(Self {
            namespace: value("K8S_POD_NAMESPACE")?.to_owned(),
            name: value("K8S_POD_NAME")?.to_owned(),
            uid: found("K8S_POD_UID").map(str::to_owned),
        })
    }
}

fn required<'a>(name: &'static str, value: Option<&'a str>) -> Result<&'a str, Failure> {
    value.ok_or_else(|| Failure::Environment {
        name,
        problem: "it is not set".to_owned(),
    })
}

fn netns(environment: &Environment) -> Result<PathBuf, Failure> {
    let path = Path::new(required("CNI_NETNS", environment.netns.as_deref())?);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(Failure::Environment {
        name: "CNI_NETNS",
        problem: format!("`{}` is no absolute path", path.display()),
    })
}

#[cfg(test)]
mod tests;
