// SPDX-License-Identifier: Apache-2.0
//! Network policies (`networking.k8s.io/v1`), proven.
//!
//! What Kubernetes expresses by absent and empty lists is said by types here: a policy that says
//! nothing about a direction has `None` for it, one that isolates and allows nothing has an empty
//! list of rules, and a rule that names no peers or ports means all of them.

mod block;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use weir_abi::Protocol;
use weir_abi::policy::PolicyDirection;

use crate::name::{InvalidName, Namespace, PolicyName};
use crate::{LabelSelector, Labels, logging};

pub use block::{InvalidExcept, IpBlock};

/// A policy's full name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyRef {
    pub namespace: Namespace,
    pub name: PolicyName,
}

impl PolicyRef {
    /// Proves both names.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            namespace: Namespace::new(namespace)?,
            name: PolicyName::new(name)?,
        })
    }
}

impl FromStr for PolicyRef {
    type Err = InvalidName;

    /// `namespace/name`.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (namespace, name) = text.split_once('/').ok_or(InvalidName::Empty)?;
        Self::new(namespace, name)
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a policy was refused: it isolates what it selects and allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// `spec.ingress[0].from[1].ipBlock.except[0]`; empty where no single field is to blame.
    pub field: String,
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A policy of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    pub reference: PolicyRef,
    /// The pods of the namespace that the policy isolates.
    pub pod_selector: LabelSelector,
    /// What may come in; `None`: the policy says nothing about it.
    pub ingress: Option<Vec<PolicyRule>>,
    /// What may go out; `None`: the policy says nothing about it.
    pub egress: Option<Vec<PolicyRule>>,
    /// Annotations that this product acts on.
    pub annotations: BTreeMap<String, String>,
    /// The object could not be read; see [`Refusal`].
    pub refused: Option<Refusal>,
}

impl NetworkPolicy {
    /// The rules of a direction; `None`: the policy does not isolate in it.
    pub fn rules(&self, direction: PolicyDirection) -> Option<&[PolicyRule]> {
        match direction {
            PolicyDirection::Ingress => self.ingress.as_deref(),
            PolicyDirection::Egress => self.egress.as_deref(),
        }
    }

    /// Whether what it allows is logged where that is left to policies.
    pub fn logs_allowed(&self) -> bool {
        let value = self.annotations.get(logging::LOG_ALLOWED);
        value.is_some_and(|value| logging::is_yes(value))
    }

    /// Whether it selects a pod with these labels. Pods on their node's network are never selected,
    /// which their owner has to see to.
    pub fn selects(&self, namespace: &Namespace, labels: &Labels) -> bool {
        self.reference.namespace == *namespace && self.pod_selector.matches(labels)
    }
}

/// Peers and ports that are allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PolicyRule {
    /// One of these; empty: everybody.
    pub peers: Vec<PolicyPeer>,
    /// One of these; empty: every port and protocol.
    pub ports: Vec<PolicyPort>,
}

/// Which namespaces a peer's pods are in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerNamespaces {
    /// The policy's own.
    Own,
    /// Those with matching labels.
    Selected(LabelSelector),
}

/// Who may be at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyPeer {
    /// Pods that match, in namespaces that match.
    Pods {
        namespaces: PeerNamespaces,
        pods: LabelSelector,
    },
    /// Addresses.
    Block(IpBlock),
}

/// Ports that are allowed, of one protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyPort {
    pub protocol: Protocol,
    pub ports: PortMatch,
}

/// Which ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// All of the protocol.
    All,
    /// First to last.
    Range(u16, u16),
    /// Those that a container of the destination pod calls so.
    Named(String),
}

impl fmt::Display for PolicyPort {
    /// `80/TCP`, `8000-8080/TCP`, `http/TCP`, `*/UDP`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ports {
            PortMatch::All => f.write_str("*")?,
            PortMatch::Range(first, last) if first == last => first.fmt(f)?,
            PortMatch::Range(first, last) => write!(f, "{first}-{last}")?,
            PortMatch::Named(name) => f.write_str(name)?,
        }
        write!(f, "/{}", self.protocol)
    }
}

impl fmt::Display for PolicyPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Block(block) => write!(f, "addresses {block}"),
            Self::Pods {
                namespaces: PeerNamespaces::Own,
                pods,
            } => write!(f, "pods {pods}"),
            Self::Pods {
                namespaces: PeerNamespaces::Selected(selector),
                pods,
            } => write!(f, "pods {pods} in namespaces {selector}"),
        }
    }
}
