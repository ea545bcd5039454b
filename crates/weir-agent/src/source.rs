// SPDX-License-Identifier: Apache-2.0
//! Where the cluster's objects come from: a folder or an API server.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use weir_cluster::api::Told;
use weir_cluster::{ApiAccess, ApiWatcher, ApiWriter, SourceError, Watcher};

use crate::core::Input;
use crate::shared::Shared;

/// The subsystem that says how the API server is.
const KUBERNETES: &str = "kubernetes";
/// The one that says how addresses of new pods reach the other nodes.
const ANNOUNCEMENTS: &str = "announcements";

/// A source that is being followed; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Source {
    _folder: Option<Watcher>,
    api: Option<ApiWatcher>,
}

impl Source {
    /// Follows the folder, or the API server where there is none.
    pub(crate) fn start(
        objects: Option<&Path>,
        access: &ApiAccess,
        shared: &Arc<Shared>,
        inputs: &Sender<Input>,
    ) -> Result<Self, SourceError> {
        let inputs = inputs.clone();
        if let Some(objects) = objects {
            let folder = Watcher::start(objects, move |look| {
                let _ = inputs.send(Input::Source(look));
            })?;
            return Ok(Self {
                _folder: Some(folder),
                api: None,
            });
        }
        let of_watches = Arc::clone(shared);
        let node = shared.node.clone();
        let api = ApiWatcher::start(access, node, move |told| match told {
            Told::Objects(look) => {
                let _ = inputs.send(Input::Source(look));
            }
            Told::Health(health) => of_watches.report(KUBERNETES, health.healthy, health.message),
            Told::Announcing(how) => of_watches.report(ANNOUNCEMENTS, how.healthy, how.message),
        })?;
        Ok(Self {
            _folder: None,
            api: Some(api),
        })
    }

    /// A way to write to where the objects come from; a folder has none.
    pub(crate) fn writer(&self) -> Option<ApiWriter> {
        self.api.as_ref().map(ApiWatcher::writer)
    }
}
