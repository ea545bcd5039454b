// SPDX-License-Identifier: Apache-2.0
//! How announcing goes, in one line for people.

/// How it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcing {
    pub healthy: bool,
    pub message: String,
}

impl Announcing {
    pub(super) fn done(pods: usize) -> Self {
        Self {
            healthy: true,
            message: format!("addresses of {pods} new pods announced"),
        }
    }

    /// A cluster need not have it.
    pub(super) fn unknown() -> Self {
        let message =
            "no nodepods.weir.dev there: other nodes know a new pod's address only by its status";
        Self {
            healthy: true,
            message: message.to_owned(),
        }
    }

    pub(super) fn failed(pods: usize, reason: &str) -> Self {
        Self {
            healthy: false,
            message: format!(
                "addresses of {pods} new pods wait ({reason}); until then, or until their status says them, other \
                 nodes do not know them"
            ),
        }
    }
}
