// SPDX-License-Identifier: Apache-2.0
//! Why a command could not run, and what to do about it.

use std::io;
use std::path::PathBuf;
use weir_api::ClientError;

/// A command that could not do its work: exit status 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// Nobody reads what is printed, or the disk is full.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error(transparent)]
    Agent(ClientError),
    /// Connected, but no answer in time.
    #[error("the agent at {} does not answer", .0.display())]
    Silent(PathBuf),
    #[error("the answer cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the answer cannot be written as YAML: {0}")]
    Yaml(String),
    /// What was typed makes no sense.
    #[error("{message}")]
    Typed { message: String, hint: String },
    /// What was asked for is not there.
    #[error("{message}")]
    Missing { message: String, hint: String },
    #[error("the agent went away and did not come back")]
    StreamEnded,
    /// The lab or the agent itself failed.
    #[error("{0:#}")]
    Part(anyhow::Error),
}

impl CliError {
    pub(crate) fn yaml(error: &impl ToString) -> Self {
        Self::Yaml(error.to_string())
    }

    pub(crate) fn typed(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Typed {
            message: message.into(),
            hint: hint.into(),
        }
    }

    pub(crate) fn missing(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Missing {
            message: message.into(),
            hint: hint.into(),
        }
    }

    /// The reader of the output went away, as in `weir monitor | head -1`: no error.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Typed { hint, .. } | Self::Missing { hint, .. } => Some(hint.clone()),
            Self::Agent(ClientError::Refused { problem, .. }) => problem.hint.clone(),
            Self::Agent(ClientError::Connect { source, .. }) => {
                Some(unreachable(source.kind()).to_owned())
            }
            Self::Silent(_) => Some(
                "it is there but busy or stuck: see its log; `--timeout` of `status` waits longer"
                    .to_owned(),
            ),
            Self::Agent(ClientError::Decode { .. } | ClientError::Protocol { .. }) => Some(
                "agent and command may be of different versions: see `weir version`".to_owned(),
            ),
            Self::StreamEnded => {
                Some("traffic goes on without it; see its log, or start it again".to_owned())
            }
            Self::Agent(_) | Self::Output(_) | Self::Json(_) | Self::Yaml(_) | Self::Part(_) => {
                None
            }
        }
    }
}

fn unreachable(kind: io::ErrorKind) -> &'static str {
    if kind == io::ErrorKind::PermissionDenied {
        "the socket belongs to root: use `sudo`"
    } else if kind == io::ErrorKind::ConnectionRefused {
        "the agent is not running (any more): see its log, or start it"
    } else {
        "is the agent running here? In a lab: `weir lab node NODE -- weir …`; another socket: `--socket PATH` or WEIR_SOCK"
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        if let ClientError::Io { path, source } = &error
            && is_timeout(source)
        {
            return Self::Silent(path.clone());
        }
        Self::Agent(error)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
