// SPDX-License-Identifier: Apache-2.0
//! Whose a frontend is, and who comes first where several want one.

use std::collections::BTreeSet;
use std::fmt;

use weir_model::{PodRef, ServiceRef, World};

/// Whose a frontend is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrontendOwner {
    Service(ServiceRef),
    /// By a host port.
    Pod(PodRef),
}

impl FrontendOwner {
    /// `service shop/web`.
    pub fn describe(&self) -> String {
        match self {
            Self::Service(name) => format!("service {name}"),
            Self::Pod(name) => format!("pod {name}"),
        }
    }
}

impl fmt::Display for FrontendOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => name.fmt(f),
            Self::Pod(name) => name.fmt(f),
        }
    }
}

/// Of two that claim one thing the lower one gets it: the older, unknown ages last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    unknown: bool,
    created: i64,
}

impl Age {
    const fn new(created: i64) -> Self {
        Self {
            unknown: created == 0,
            created,
        }
    }
}

/// Who is to be looked at: the oldest first, so that nobody takes what is another's.
pub(super) type Queue = BTreeSet<(Age, FrontendOwner)>;

pub(super) fn age_of(owner: &FrontendOwner, world: &World) -> Age {
    let created = match owner {
        FrontendOwner::Service(name) => world.service(name).map(|service| service.created),
        FrontendOwner::Pod(name) => world.pod(name).map(|pod| pod.created),
    };
    Age::new(created.unwrap_or_default())
}
