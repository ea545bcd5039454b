// SPDX-License-Identifier: Apache-2.0
//! Which decisions of policies are written to the policy log.

/// What the object `NetworkLogging` named `default` asks for; without it, nothing is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkLogging {
    /// Connections that policies allow.
    pub allow: LogScope,
    /// Connections that policies deny.
    pub deny: LogScope,
}

impl NetworkLogging {
    /// Whether anything may have to be logged.
    pub fn is_on(self) -> bool {
        self != Self::default()
    }
}

/// Which ones of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogScope {
    /// None.
    #[default]
    Nothing,
    /// All.
    Everything,
    /// Allowed: by policies with [`LOG_ALLOWED`]. Denied: of pods in namespaces with [`LOG_DENIED`].
    Delegated,
}

impl LogScope {
    /// From the two fields of the object; none: they contradict each other.
    pub const fn new(log: bool, delegate: bool) -> Option<Self> {
        match (log, delegate) {
            (false, false) => Some(Self::Nothing),
            (true, false) => Some(Self::Everything),
            (true, true) => Some(Self::Delegated),
            (false, true) => None,
        }
    }
}

/// Annotation of policies: what they allow is logged where that is delegated.
pub const LOG_ALLOWED: &str = "policy.network.gke.io/enable-logging";
/// Annotation of namespaces: what their pods are denied is logged where that is delegated.
pub const LOG_DENIED: &str = "policy.network.gke.io/enable-deny-logging";

/// Whether the value of one of these annotations says yes.
pub fn is_yes(value: &str) -> bool {
    value == "true"
}
