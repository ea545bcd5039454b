// SPDX-License-Identifier: Apache-2.0
//! What an agent tells its node about itself: that pods can be connected, and that they never will be again.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use weir_cluster::ApiAccess;
use weir_cluster::api::{DaemonSetRef, Fate};

use crate::cni::CniArgs;
use crate::core::OnLoaded;
use crate::error::chain;
use crate::shared::Shared;

/// How long an agent that is being stopped waits to hear whether it is to come back. Whoever stops it
/// waits ten seconds.
const LAST_QUESTION: Duration = Duration::from_secs(4);

/// An agent as it was installed on its node.
#[derive(Clone, Debug)]
pub(crate) struct Installed {
    pub(crate) access: ApiAccess,
    /// What runs the agent, where that is known.
    pub(crate) set: Option<DaemonSetRef>,
    pub(crate) cni: CniArgs,
    pub(crate) socket: PathBuf,
}

impl Installed {
    /// Pods can be connected from now on, so the container runtime is told.
    pub(crate) fn then_arrive(&self, shared: &Arc<Shared>, then: OnLoaded) -> OnLoaded {
        let (installed, shared) = (self.clone(), Arc::clone(shared));
        Box::new(move |maps| {
            then(maps);
            match installed.cni.install(&installed.socket) {
                Ok(Some(place)) => shared.report("cni", true, place),
                Ok(None) => return,
                Err(error) => return shared.report("cni", false, chain(&error)),
            }
            installed.remove_taints(&shared);
        })
    }

    /// On a thread of its own, which ends when that is done: a server may be away for long.
    fn remove_taints(self, shared: &Arc<Shared>) {
        if self.set.is_none() {
            return;
        }
        let node = shared.node.clone();
        let remover = thread::Builder::new().name("taints".to_owned());
        let removing = remover.spawn(move || {
            self.access.remove_taints(&node, |key| {
                tracing::info!(key, "pods can be connected: taint removed from this node");
            });
        });
        if let Err(error) = removing {
            tracing::warn!(%error, "taints that wait for the agent stay");
        }
    }

    /// With its DaemonSet gone, nobody would answer the container runtime any more: it is told so.
    pub(crate) fn leave(&self) {
        let Some(set) = &self.set else { return };
        if self.access.fate(set, LAST_QUESTION) != Fate::Gone {
            return;
        }
        match self.cni.remove() {
            Ok(()) => tracing::info!(%set, "the DaemonSet is gone: CNI configuration removed"),
            Err(error) => tracing::error!(error = chain(&error), "the CNI configuration stays"),
        }
    }
}
