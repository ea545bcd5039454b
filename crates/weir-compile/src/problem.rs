// SPDX-License-Identifier: Apache-2.0
//! What could not be realized as it was written: always with the object, never silent.

use std::net::IpAddr;

use weir_model::{NodeName, PodCidr, PodRef};

use crate::compile::Owner;
use crate::service::FrontendOwner;

/// Something in the world that has no rows, or not those that it asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("{second} claims address {address}, which {first} has: {first} keeps it")]
    DuplicateAddress {
        address: IpAddr,
        first: Owner,
        second: Owner,
    },
    #[error(
        "node {second} claims pod range {cidr}, which overlaps with one of node {first}: node {first} keeps it"
    )]
    OverlappingCidr {
        cidr: String,
        first: NodeName,
        second: NodeName,
    },
    #[error("node {node} has no address")]
    NodeWithoutAddress { node: NodeName },
    #[error("node {node} shares no address family with this node: there is no way to it")]
    NoCommonFamily { node: NodeName },
    #[error(
        "node {node} has no address of the family of its pod range {cidr}: native routing cannot reach it"
    )]
    NoGateway { node: NodeName, cidr: String },
    #[error("node {node} finds no place among the {places} tunnel ends")]
    TooManyNodes { node: NodeName, places: u32 },
    #[error("map {map} is full with {size} entries: {object} is left out; raise mapSizes.{map}")]
    MapFull {
        map: &'static str,
        size: u32,
        object: String,
    },
    #[error(
        "{} claims {frontend}, which {} has: {} keeps it",
        second.describe(), first.describe(), first.describe()
    )]
    DuplicateFrontend {
        frontend: String,
        first: FrontendOwner,
        second: FrontendOwner,
    },
    #[error(
        "policies {policies} allow {count} ranges of ports ({direction}, {peer}), at most {most} fit: {pods} are cut off; allow wider ranges or let fewer policies select the same pods"
    )]
    PolicyTooLarge {
        pods: String,
        policies: String,
        direction: &'static str,
        peer: String,
        count: usize,
        most: usize,
    },
    #[error("pod {pod} has no identity: all {count} numbers are in use")]
    NoIdentity { pod: PodRef, count: u32 },
    #[error("this node, {node}, is not among the cluster's nodes")]
    UnknownNode { node: NodeName },
}

// Ranges are kept as text in problems, so that these sort and print without more.
impl Problem {
    pub(crate) fn overlap(cidr: PodCidr, first: &NodeName, second: &NodeName) -> Self {
        Self::OverlappingCidr {
            cidr: cidr.to_string(),
            first: first.clone(),
            second: second.clone(),
        }
    }
}
