// SPDX-License-Identifier: Apache-2.0
//! Why a call fails, as the error object of the CNI specification.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use weir_api::ClientError;

use crate::version::SpecVersion;

/// Why a call fails. Codes below 100 are the specification's, the others are this plugin's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// 1
    #[error("version {0} of the CNI specification is not supported")]
    Version(String),
    /// 1
    #[error("{command} does not exist in version {version} of the CNI specification")]
    Command {
        command: &'static str,
        version: SpecVersion,
    },
    /// 2
    #[error("field `{field}` of the network configuration is not supported")]
    Field {
        field: &'static str,
        hint: &'static str,
    },
    /// 3
    #[error("container {container} has no interface {interface} in this network")]
    UnknownContainer {
        container: String,
        interface: String,
    },
    /// 4
    #[error("environment variable {name}: {problem}")]
    Environment { name: &'static str, problem: String },
    /// 5
    #[error("cannot read the network configuration: {0}")]
    Input(io::Error),
    /// 6
    #[error("the network configuration is not what the specification says: {0}")]
    Decode(serde_json::Error),
    /// 7
    #[error("network configuration: {0}")]
    Config(String),
    /// 11
    #[error("no answer from the agent within {} s: {source}", within.as_secs())]
    Later {
        within: Duration,
        socket: PathBuf,
        source: ClientError,
    },
    /// 11
    #[error("the call was not done after {} s", after.as_secs())]
    Stuck { after: Duration },
    /// 50
    #[error("the agent is not ready: {0}")]
    NotReady(String),
    /// 100
    #[error("{0}")]
    Refused(ClientError),
    /// 101
    #[error("no address for the pod: {0}")]
    NoAddress(ClientError),
    /// 102
    #[error("the pod's network is not as it was made: {}", .0.join("; "))]
    Differs(Vec<String>),
    /// 103
    #[error("not removed: {}", .0.join("; "))]
    NotRemoved(Vec<String>),
}

impl Failure {
    /// The number that runtimes act on.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Version(_) | Self::Command { .. } => 1,
            Self::Field { .. } => 2,
            Self::UnknownContainer { .. } => 3,
            Self::Environment { .. } => 4,
            Self::Input(_) => 5,
            Self::Decode(_) => 6,
            Self::Config(_) => 7,
            Self::Later { .. } | Self::Stuck { .. } => 11,
            Self::NotReady(_) => 50,
            Self::Refused(_) => 100,
            Self::NoAddress(_) => 101,
            Self::Differs(_) => 102,
            Self::NotRemoved(_) => 103,
        }
    }

    /// What to do about it.
    fn hint(&self) -> String {
        let text = match self {
            Self::Version(_) | Self::Command { .. } => {
                let spoken = SpecVersion::ALL.map(SpecVersion::text).join(", ");
                return format!("`cniVersion` of the configuration can be one of {spoken}");
            }
            Self::Field { hint, .. } => hint,
            Self::UnknownContainer { .. } => "the pod has to be made anew",
            Self::Environment { .. } => {
                "a container runtime sets the variables of the CNI specification; people ask `weir status`"
            }
            Self::Input(_) => "the network configuration comes on stdin",
            Self::Decode(_) | Self::Config(_) => {
                "the agent writes a right one into the directory of its flag --cni-conf-dir"
            }
            Self::Later { socket, .. } => {
                return format!(
                    "is the agent running on this node, and does it listen at {}? its log and `weir status` say more",
                    socket.display()
                );
            }
            Self::Stuck { .. } | Self::NotReady(_) => "see `weir status` and the agent's log",
            Self::Refused(ClientError::Refused { problem, .. })
            | Self::NoAddress(ClientError::Refused { problem, .. }) => {
                problem.hint.as_deref().unwrap_or("see the agent's log")
            }
            Self::Refused(_) | Self::NoAddress(_) => "see the agent's log",
            Self::Differs(_) => "`weir endpoint regenerate` repairs what can be repaired",
            Self::NotRemoved(_) => "the runtime asks again; see the agent's log",
        };
        text.to_owned()
    }

    /// The error object.
    pub(crate) fn object(&self, version: SpecVersion) -> Value {
        json!({
            "cniVersion": version.text(),
            "code": self.code(),
            "msg": self.to_string(),
            "details": format!("hint: {}", self.hint()),
        })
    }
}

#[cfg(test)]
mod tests {
    use weir_api::Problem;

    use super::*;

    #[track_caller]
    fn check(failure: &Failure, expected: &Value) {
        assert_eq!(&failure.object(SpecVersion::V1_1_0), expected);
    }

    #[test]
    fn objects_have_a_code_and_a_hint() {
        check(
            &Failure::Version("9.9.9".to_owned()),
            &json!({
                "cniVersion": "1.1.0",
                "code": 1,
                "msg": "version 9.9.9 of the CNI specification is not supported",
                "details": "hint: `cniVersion` of the configuration can be one of 0.3.1, 0.4.0, 1.0.0, 1.1.0",
            }),
        );
        let away = ClientError::Connect {
            path: "/run/weir/weir.sock".into(),
            source: io::ErrorKind::NotFound.into(),
        };
        check(
            &Failure::Later {
                within: Duration::from_secs(30),
                socket: "/run/weir/weir.sock".into(),
                source: away,
            },
            &json!({
                "cniVersion": "1.1.0",
                "code": 11,
                "msg": "no answer from the agent within 30 s: cannot reach the agent at /run/weir/weir.sock: entity not found",
                "details": "hint: is the agent running on this node, and does it listen at /run/weir/weir.sock? its log and `weir status` say more",
            }),
        );
        let full = ClientError::Refused {
            status: 507,
            problem: Problem {
                error: "pod shop/web: every address of 10.1.0.0/30 is in use".to_owned(),
                hint: Some("give the node a wider pod range".to_owned()),
            },
        };
        check(
            &Failure::NoAddress(full),
            &json!({
                "cniVersion": "1.1.0",
                "code": 101,
                "msg": "no address for the pod: pod shop/web: every address of 10.1.0.0/30 is in use",
                "details": "hint: give the node a wider pod range",
            }),
        );
    }
}
