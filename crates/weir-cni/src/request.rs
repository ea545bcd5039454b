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
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"cniVersion": "1.1.0", "name": "weir"}"#;

    fn environment(command: &str) -> Environment {
        Environment {
            command: Some(command.to_owned()),
            container: Some("3b1c".to_owned()),
            netns: Some("/run/netns/a".to_owned()),
            interface: Some("eth0".to_owned()),
            args: Some(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u".to_owned(),
            ),
        }
    }

    #[track_caller]
    fn check_refused(environment: &Environment, config: &str, code: u32, words: &str) {
        let failure = Call::read(environment, config).unwrap_err();
        assert_eq!(failure.code(), code, "{failure}");
        assert!(failure.to_string().contains(words), "{failure}");
    }

    #[test]
    fn a_pod_is_named_by_the_arguments() {
        let call = Call::read(&environment("ADD"), CONFIG).unwrap();
        let Call::Add {
            subject,
            pod,
            netns,
        } = call
        else {
            panic!("{call:?}");
        };
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("shop", "web"));
        assert_eq!(pod.uid.as_deref(), Some("u"));
        assert_eq!(subject.container.as_str(), "3b1c");
        assert_eq!(subject.interface.as_str(), "eth0");
        assert_eq!(netns, PathBuf::from("/run/netns/a"));
    }

    #[test]
    fn a_deletion_needs_neither_namespace_nor_pod() {
        let bare = Environment {
            netns: None,
            args: None,
            ..environment("DEL")
        };
        let call = Call::read(&bare, CONFIG).unwrap();
        assert!(matches!(call, Call::Del { netns: None, .. }), "{call:?}");
        check_refused(
            &Environment {
                command: Some("ADD".to_owned()),
                ..bare
            },
            CONFIG,
            4,
            "CNI_ARGS",
        );
    }

    #[test]
    fn version_needs_nothing() {
        let bare = Environment {
            command: Some("VERSION".to_owned()),
            ..Environment::default()
        };
        assert_eq!(
            Call::read(&bare, "").unwrap(),
            Call::Version(SpecVersion::V1_1_0)
        );
    }

    #[test]
    fn commands_are_as_old_as_their_version() {
        let old = CONFIG.replace("1.1.0", "1.0.0");
        check_refused(
            &environment("GC"),
            &old,
            1,
            "GC does not exist in version 1.0.0",
        );
        check_refused(&environment("STATUS"), &old, 1, "STATUS");
        let older = CONFIG.replace("1.1.0", "0.3.1");
        check_refused(&environment("CHECK"), &older, 1, "CHECK");
        check_refused(&environment("CHECK"), CONFIG, 7, "prevResult");
        check_refused(&environment("GC"), CONFIG, 7, "valid-attachments");
        check_refused(&environment("add"), CONFIG, 4, "`add`");
    }

    #[test]
    fn variables_are_proven() {
        type Edit = fn(&mut Environment);
        let cases: [(Edit, &str); 8] = [
            (|e| e.command = None, "CNI_COMMAND"),
            (|e| e.container = None, "CNI_CONTAINERID"),
            (|e| e.container = Some("../x".to_owned()), "CNI_CONTAINERID"),
            (|e| e.interface = Some("a/b".to_owned()), "CNI_IFNAME"),
            (
                |e| e.interface = Some("0123456789abcdef".to_owned()),
                "CNI_IFNAME",
            ),
            (|e| e.netns = None, "CNI_NETNS"),
            (|e| e.netns = Some("run/netns/a".to_owned()), "CNI_NETNS"),
            (
                |e| e.args = Some("K8S_POD_NAMESPACE=shop".to_owned()),
                "K8S_POD_NAME",
            ),
        ];
        for (edit, words) in cases {
            let mut environment = environment("ADD");
            edit(&mut environment);
            check_refused(&environment, CONFIG, 4, words);
        }
    }

    #[test]
    fn every_call_ends() {
        let of = |command| {
            Call::read(&environment(command), CONFIG)
                .unwrap()
                .patience()
        };
        assert_eq!(of("ADD"), Duration::from_secs(30));
        assert_eq!(of("STATUS"), Duration::from_secs(5));
    }
}
