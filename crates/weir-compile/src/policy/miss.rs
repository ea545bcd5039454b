// SPDX-License-Identifier: Apache-2.0
//! What keeps a rule from matching, and how far off that is.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use weir_abi::Protocol;
use weir_abi::policy::PolicyDirection;
use weir_model::{IpBlock, Namespace, NetworkPolicy, PolicyPort, PolicyRef, Refusal, Requirement};

/// One thing that is not as a rule or its policy wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// A label of the other end.
    PeerLabel {
        requirement: Requirement,
        found: Option<String>,
    },
    /// A label of the other end's namespace.
    NamespaceLabel {
        requirement: Requirement,
        namespace: Namespace,
        found: Option<String>,
    },
    /// A `podSelector` alone means pods of the policy's own namespace.
    OwnNamespace { wanted: Namespace, found: Namespace },
    /// Selectors mean pods.
    NotAPod { is: &'static str },
    /// To policy, a pod on its node's network is the node.
    HostNetwork,
    /// The address is in another place.
    OutsideBlock { block: IpBlock, address: IpAddr },
    /// The address is one of those that are left out.
    Excepted { except: IpNet, address: IpAddr },
    /// The peer's address is not known.
    NoAddress { block: IpBlock },
    /// Another port.
    Port {
        allowed: Vec<PolicyPort>,
        protocol: Protocol,
        port: u16,
        /// The protocol at least is right.
        same_protocol: bool,
    },
    /// The right port of another protocol.
    Protocol {
        allowed: Vec<PolicyPort>,
        protocol: Protocol,
        port: u16,
    },
    /// A name that means another port at the destination, or none.
    NamedPort {
        name: String,
        allowed: Protocol,
        numbers: Vec<u16>,
        protocol: Protocol,
        port: u16,
    },
    /// The rule is about ports, the protocol has none.
    Portless { protocol: Protocol },
    /// A label of the pod that the policy does not select.
    SubjectLabel {
        requirement: Requirement,
        found: Option<String>,
    },
    /// The policy is in another namespace than the pod.
    SubjectNamespace { wanted: Namespace, found: Namespace },
    /// The rule is about the other direction.
    Direction,
    /// The policy isolates and allows nothing.
    NoRules,
    /// The policy could not be read, so it isolates and allows nothing.
    Refused(Refusal),
}

impl Miss {
    /// How far off it is: what somebody writes wrong by a slip is near.
    pub const fn distance(&self) -> u32 {
        match self {
            Self::PeerLabel { found: Some(_), .. }
            | Self::NamespaceLabel { found: Some(_), .. }
            | Self::Protocol { .. }
            | Self::Port {
                same_protocol: true,
                ..
            }
            | Self::NamedPort { .. }
            | Self::OwnNamespace { .. }
            | Self::Excepted { .. }
            | Self::Portless { .. }
            | Self::HostNetwork => 10,
            Self::PeerLabel { found: None, .. } | Self::NamespaceLabel { found: None, .. } => 12,
            Self::SubjectLabel { .. } | Self::Direction => 14,
            Self::SubjectNamespace { .. } => 16,
            Self::Port {
                same_protocol: false,
                ..
            } => 18,
            Self::OutsideBlock { .. } | Self::NoAddress { .. } => 20,
            // Another kind of peer altogether.
            Self::NotAPod { .. } => 30,
            Self::Refused(_) => 45,
            Self::NoRules => 50,
        }
    }
}

/// The rule that comes nearest to allowing a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    pub policy: PolicyRef,
    /// The direction that the rule is written for.
    pub direction: PolicyDirection,
    /// Its place in the policy's list; none: the policy has no rules.
    pub rule: Option<u32>,
    pub misses: Vec<Miss>,
}

impl NearMiss {
    pub(super) fn new(
        policy: &NetworkPolicy,
        direction: PolicyDirection,
        rule: Option<u32>,
        misses: Vec<Miss>,
    ) -> Self {
        Self {
            policy: policy.reference.clone(),
            direction,
            rule,
            misses,
        }
    }

    /// How far off it is.
    pub fn distance(&self) -> u32 {
        self.misses.iter().map(Miss::distance).sum()
    }
}

impl fmt::Display for NearMiss {
    /// `shop/web ingress[0]: it wants pods with app=client, the peer has app=cilent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.policy, self.direction.name())?;
        if let Some(rule) = self.rule {
            write!(f, "[{rule}]")?;
        }
        for (place, miss) in self.misses.iter().enumerate() {
            f.write_str(if place == 0 { ": " } else { "; " })?;
            miss.fmt(f)?;
        }
        Ok(())
    }
}

/// `has app=web`, `has no label app`.
fn has(requirement: &Requirement, found: Option<&str>) -> String {
    let key = requirement.key();
    match found {
        Some(value) => format!("has {key}={value}"),
        None => format!("has no label {key}"),
    }
}

fn list(ports: &[PolicyPort]) -> String {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    ports.join(", ")
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerLabel { requirement, found } => {
                let has = has(requirement, found.as_deref());
                write!(f, "it means pods with {requirement}, the peer {has}")
            }
            Self::NamespaceLabel {
                requirement,
                namespace,
                found,
            } => {
                let has = has(requirement, found.as_deref());
                write!(
                    f,
                    "it means namespaces with {requirement}, {namespace} {has}"
                )
            }
            Self::OwnNamespace { wanted, found } => write!(
                f,
                "it means pods of {wanted} only, the peer is in {found}: a podSelector without \
                 namespaceSelector stays in the policy's namespace"
            ),
            Self::NotAPod { is } => write!(f, "it means pods, the peer is {is}"),
            Self::HostNetwork => f.write_str(
                "the peer is on its node's network: selectors do not mean it, an ipBlock with the \
                 node's address does",
            ),
            Self::OutsideBlock { block, address } => {
                write!(f, "it means addresses in {block}, the peer has {address}")
            }
            Self::Excepted { except, address } => {
                write!(
                    f,
                    "it leaves out {except}, where the peer's address {address} is"
                )
            }
            Self::NoAddress { block } => {
                write!(f, "it means addresses in {block}, the peer's is not known")
            }
            Self::Port {
                allowed,
                protocol,
                port,
                same_protocol: _,
            }
            | Self::Protocol {
                allowed,
                protocol,
                port,
            } => write!(f, "it allows {}, not {port}/{protocol}", list(allowed)),
            Self::NamedPort {
                name,
                allowed,
                numbers,
                protocol,
                port,
            } => {
                let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                if numbers.is_empty() {
                    write!(
                        f,
                        "it allows port {name}/{allowed}, which the destination does not have"
                    )
                } else {
                    let numbers = numbers.join(", ");
                    write!(
                        f,
                        "it allows port {name}, {numbers}/{allowed} at the destination, not {port}/{protocol}"
                    )
                }
            }
            Self::Portless { protocol } => {
                write!(
                    f,
                    "it allows ports, {protocol} has none: a rule without ports allows it"
                )
            }
            Self::SubjectLabel { requirement, found } => {
                let has = has(requirement, found.as_deref());
                write!(
                    f,
                    "its policy selects pods with {requirement}, the pod {has}"
                )
            }
            Self::SubjectNamespace { wanted, found } => {
                write!(
                    f,
                    "its policy selects pods of {wanted}, the pod is in {found}"
                )
            }
            Self::Direction => f.write_str("it is written for the other direction"),
            Self::NoRules => f.write_str("it isolates the pod and allows nothing"),
            Self::Refused(refusal) => {
                write!(
                    f,
                    "it was refused, so it isolates and allows nothing: {refusal}"
                )
            }
        }
    }
}
