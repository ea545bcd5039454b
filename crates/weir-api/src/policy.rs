// SPDX-License-Identifier: Apache-2.0
//! Policies: what is in force, whom it selects, and the rows that enforce it.

use serde::{Deserialize, Serialize};

/// A policy, or one of its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PolicyRule {
    /// `NetworkPolicy`; `Implicit` for what is allowed by definition.
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// Number of the rule inside its direction, from 0; absent: the policy as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
}

impl std::fmt::Display for PolicyRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)?;
        } else {
            write!(f, "{}/{}", self.namespace, self.name)?;
        }
        match self.rule {
            Some(rule) => write!(f, " rule {rule}"),
            None => Ok(()),
        }
    }
}

/// Answer of `/v1/policies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// Grows with every change of a policy.
    pub revision: u64,
    /// The revision that every endpoint of this node has realized.
    pub realized: u64,
    pub policies: Vec<Policy>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// The pods that it is about, as a selector.
    pub selector: String,
    pub ingress: PolicySide,
    pub egress: PolicySide,
    /// Pods of this node that it selects.
    pub selects: Vec<String>,
    /// Pods of the whole cluster that it selects.
    pub selected_pods: u64,
    /// What in it does nothing, or not what it seems to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Why an update of it is not in force, or all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// What a policy says about one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySide {
    /// Pods are isolated in this direction.
    pub isolates: bool,
    /// A sentence for each rule.
    pub rules: Vec<String>,
}

/// A selector that policies use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    pub selector: String,
    /// Policies that use it.
    pub users: Vec<PolicyRule>,
    /// Identities that it matches on this node.
    pub identities: Vec<u32>,
    /// Pods that it matches in the cluster.
    pub pods: u64,
}

/// A rule of a policy set, as it is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyRow {
    pub set: u32,
    /// `Allow` or `Deny`.
    pub action: String,
    /// `Ingress` or `Egress`.
    pub direction: String,
    /// `any`, `identity` or `blocks`.
    pub peer_kind: String,
    /// The identity or the group of blocks; 0 for any.
    pub peer: u32,
    /// Labels of the identity, or the blocks.
    pub labels: Vec<String>,
    /// `ANY`, `80/TCP`, `8000-9000/UDP`.
    pub port: String,
    pub precedence: u16,
    pub cookie: u32,
    /// Connections that the rule decided.
    pub packets: u64,
    pub bytes: u64,
    /// The rules of policies behind it.
    pub rules: Vec<PolicyRule>,
    /// `sync`, `foreign`, `changed` or `missing`.
    pub state: String,
}

/// The rows of one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPolicy {
    pub endpoint: u16,
    pub pod: String,
    pub set: u32,
    pub ingress_enforced: bool,
    pub egress_enforced: bool,
    pub rows: Vec<PolicyRow>,
}
