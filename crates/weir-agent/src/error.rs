// SPDX-License-Identifier: Apache-2.0
//! Why the agent, or one of its requests, cannot go on.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use weir_model::InvalidName;

use crate::config::ConfigError;
use crate::ipam::IpamError;
use crate::store::StoreError;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the node's name is refused: {0}")]
    NodeName(InvalidName),
    #[error("cannot find the node's name: {0}")]
    Hostname(io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Source(#[from] weir_cluster::SourceError),
    #[error("another agent serves {path}")]
    Running { path: PathBuf },
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the loop of the agent has ended unexpectedly")]
    LoopEnded,
    #[error("cannot start {what}: {source}")]
    Start {
        what: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Network(#[from] weir_net::Error),
    #[error(transparent)]
    Datapath(#[from] weir_datapath::Error),
}

/// Why an endpoint's request is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum EndpointError {
    #[error("{field}: {message}")]
    Invalid {
        field: &'static str,
        message: String,
    },
    #[error("pod {pod}: {source}")]
    Address { pod: String, source: IpamError },
    #[error("network namespace {netns} of pod {pod}: {source}")]
    Namespace {
        pod: String,
        netns: String,
        source: weir_net::Error,
    },
    #[error("pod {pod} has an interface {interface} already")]
    InterfaceTaken { pod: String, interface: String },
    #[error("link of pod {pod}: {source}")]
    Link {
        pod: String,
        source: weir_net::Error,
    },
    #[error("every endpoint number is in use")]
    NoNumber,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the datapath is not loaded: {0}")]
    NoDatapath(String),
    #[error("the cluster's objects have not been read yet")]
    NotSynced,
    #[error("no endpoint {0}")]
    Unknown(String),
    #[error("pod {pod} could not be realized: {message}")]
    Rows { pod: String, message: String },
    #[error("the agent is stopping")]
    Stopping,
}

impl EndpointError {
    /// What to do about it, where that is not plain from the error itself.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Address {
                source: IpamError::Full { .. },
                ..
            } => Some("give the node a wider pod range, or a second one, or remove pods"),
            Self::Address {
                source: IpamError::NoRanges,
                ..
            } => Some("the Node object needs spec.podCIDRs, or the configuration podCIDRs"),
            Self::NoDatapath(_) => Some("see `weir status`"),
            Self::NotSynced => Some("see the subsystem `source` in `weir status`; then try again"),
            Self::Invalid { .. }
            | Self::Address { .. }
            | Self::Namespace { .. }
            | Self::InterfaceTaken { .. }
            | Self::Link { .. }
            | Self::NoNumber
            | Self::Store(_)
            | Self::Unknown(_)
            | Self::Rows { .. }
            | Self::Stopping => None,
        }
    }
}

/// An error with everything that caused it, in one line. Causes that an error has put into its own
/// text are not repeated.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
