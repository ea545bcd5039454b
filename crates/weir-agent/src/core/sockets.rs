// SPDX-License-Identifier: Apache-2.0
//! Programs at the sockets of the node and of its pods.

use std::path::PathBuf;

use weir_datapath::Attached;

use super::Core;
use crate::error::chain;

impl Core {
    /// A program at every socket call of the node's cgroup.
    pub(super) fn attach_sockets(&mut self) {
        let Some(kernel) = self.kernel.as_ref().filter(|kernel| kernel.active) else {
            return;
        };
        let attached = self
            .cgroup()
            .map(|path| (kernel.datapath.attach_sockets(&path), path));
        match attached {
            Ok((Ok(changed), path)) => {
                let known = std::mem::replace(&mut self.sockets_attached, true);
                for (hook, how) in changed {
                    if known && how == Attached::New {
                        let what =
                            format!("program {} at the node's cgroup was missing", hook.name());
                        self.shared.repaired(&what);
                    }
                }
                let pods = if self.shared.config.socket_lb {
                    "node and pods"
                } else {
                    "node only"
                };
                let message = format!("{pods}, at {}", path.display());
                self.shared.report("sockets", true, message);
            }
            Ok((Err(error), _)) => self.shared.report("sockets", false, chain(&error)),
            Err(message) => self.shared.report("sockets", false, message),
        }
    }

    /// The configured cgroup, or the root of the hierarchy that is mounted.
    fn cgroup(&self) -> Result<PathBuf, String> {
        match &self.shared.config.cgroup_root {
            Some(path) => Ok(path.clone()),
            None => weir_net::cgroup::mount_point().map_err(|error| {
                format!(
                    "sockets of the node are not translated, name its cgroup2 directory in cgroupRoot: {}",
                    chain(&error)
                )
            }),
        }
    }
}
