// SPDX-License-Identifier: Apache-2.0
//! Addresses that a node has given to its pods, announced by itself.
//!
//! A pod's own status names its address only a second after the pod runs. Until then the word of its
//! node counts, and only for exactly the pod that it speaks of: see `World`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::{NodeName, PodRef};

/// The most bytes of a UID: Kubernetes' own have 36, the one of a static pod 32.
const LONGEST: usize = 128;

/// What tells an object from a later one of the same name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid(Box<str>);

/// A text that is no UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a UID has 1 to {LONGEST} visible characters")]
pub struct InvalidUid;

impl Uid {
    /// Proves it.
    pub fn new(text: &str) -> Result<Self, InvalidUid> {
        let legal =
            (1..=LONGEST).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
        legal.then(|| Self(text.into())).ok_or(InvalidUid)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a pod was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    pub uid: Uid,
    pub addresses: Vec<IpAddr>,
}

/// Everything that a node announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePods {
    pub node: NodeName,
    pub pods: BTreeMap<PodRef, Given>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_uid() {
        for (text, legal) in [
            ("8a7f7f3e-6f0b-4f0b-9a53-0f6d8f7b6a11", true),
            ("0", true),
            ("", false),
            ("a b", false),
            ("ä", false),
            (&"x".repeat(LONGEST), true),
            (&"x".repeat(LONGEST + 1), false),
        ] {
            assert_eq!(Uid::new(text).is_ok(), legal, "{text}");
        }
    }
}
