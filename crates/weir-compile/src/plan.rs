// SPDX-License-Identifier: Apache-2.0
//! From the rows that are realized to those that are desired, in an order that is safe at each step.
//!
//! Rows that others point to come first (a node before the addresses behind it), removals follow
//! once nothing points to what they remove, and generations are bumped last: a flow that is decided
//! again must find the new rows. A plan that ends in the middle leaves no dangling row; what it did
//! not bump, the executor makes good by bumping [`Slot::ALL`]. How policy is kept closed on the way
//! is told in `order`.

mod difference;
mod order;
mod widths;

use std::fmt;
use std::sync::Arc;

use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::node::NodeRow;
use weir_abi::policy::{PolicyKey, PolicyRow};
use weir_abi::service::{BackendRow, FrontendKey, FrontendRow, SourceRangeKey};
use weir_abi::{Address, EndpointRow, NodeIndex, PolicyCookie, ServiceId, Slot};

use crate::prefix::display_prefix;
use crate::service::{ServiceBackend, socket};

pub use order::{plan, plan_delta};

/// One write to one map; lists are shared with the rows that they come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    UpsertNode(NodeIndex, NodeRow),
    UpsertEndpoint(Address, EndpointRow),
    UpsertIpcache(PrefixKey, IpcacheRow),
    UpsertMasqueradeExempt(PrefixKey),
    DeleteIpcache(PrefixKey),
    DeleteEndpoint(Address),
    DeleteMasqueradeExempt(PrefixKey),
    /// Writes an all-zero row: places of an array cannot be removed.
    DeleteNode(NodeIndex),
    UpsertPolicy(PolicyKey, PolicyRow),
    DeletePolicy(PolicyKey),
    /// Writes zeros: the place is another rule's from now on.
    ResetHits(PolicyCookie),
    /// Writes a run of places, from the first one on.
    UpsertBackends(u32, Arc<[BackendRow]>),
    /// Backends of one service port.
    UpsertServiceBackends(ServiceId, Arc<[ServiceBackend]>),
    /// A whole table, by its number.
    UpsertMaglev(u32, Arc<[u16]>),
    UpsertSourceRange(SourceRangeKey),
    /// Marks an address as a service's: [`crate::service::address_row`] in the `ipcache` map.
    UpsertServiceAddress(Address),
    UpsertFrontend(FrontendKey, FrontendRow),
    DeleteFrontend(FrontendKey),
    DeleteServiceAddress(Address),
    DeleteSourceRange(SourceRangeKey),
    /// Writes zeros.
    DeleteMaglev(u32),
    DeleteServiceBackends(ServiceId, Arc<[ServiceBackend]>),
    /// Writes all-zero rows to as many places, from the first one on.
    DeleteBackends(u32, u32),
    /// Has the flows that depend on this slot decided again.
    Bump(Slot),
}

impl Operation {
    /// The name of the map that is written.
    pub const fn map(&self) -> &'static str {
        match self {
            Self::UpsertNode(..) | Self::DeleteNode(_) => weir_abi::map::NODES.name,
            Self::UpsertEndpoint(..) | Self::DeleteEndpoint(_) => weir_abi::map::ENDPOINTS.name,
            Self::UpsertIpcache(..) | Self::DeleteIpcache(_) => weir_abi::map::IPCACHE.name,
            Self::UpsertMasqueradeExempt(_) | Self::DeleteMasqueradeExempt(_) => {
                weir_abi::map::MASQUERADE_EXEMPT.name
            }
            Self::UpsertPolicy(..) | Self::DeletePolicy(_) => weir_abi::map::POLICY.name,
            Self::ResetHits(_) => weir_abi::map::POLICY_HITS.name,
            Self::UpsertBackends(..) | Self::DeleteBackends(..) => weir_abi::map::BACKENDS.name,
            Self::UpsertServiceBackends(..) | Self::DeleteServiceBackends(..) => {
                weir_abi::map::SERVICE_BACKENDS.name
            }
            Self::UpsertMaglev(..) | Self::DeleteMaglev(_) => weir_abi::map::MAGLEV.name,
            Self::UpsertSourceRange(_) | Self::DeleteSourceRange(_) => {
                weir_abi::map::SOURCE_RANGES.name
            }
            Self::UpsertServiceAddress(_) | Self::DeleteServiceAddress(_) => {
                weir_abi::map::IPCACHE.name
            }
            Self::UpsertFrontend(..) | Self::DeleteFrontend(_) => weir_abi::map::FRONTENDS.name,
            Self::Bump(_) => weir_abi::map::GENERATIONS.name,
        }
    }

    /// Whether the operation takes away what an operation before it should have made unused: where
    /// one of those has failed, this one must wait for another plan.
    pub const fn waits(&self) -> bool {
        match self {
            Self::DeleteIpcache(_)
            | Self::DeleteEndpoint(_)
            | Self::DeleteMasqueradeExempt(_)
            | Self::DeleteNode(_)
            | Self::DeletePolicy(_)
            | Self::DeleteServiceAddress(_)
            | Self::DeleteSourceRange(_)
            | Self::DeleteMaglev(_)
            | Self::DeleteServiceBackends(..)
            | Self::DeleteBackends(..) => true,
            Self::UpsertNode(..)
            | Self::UpsertEndpoint(..)
            | Self::UpsertIpcache(..)
            | Self::UpsertMasqueradeExempt(_)
            | Self::UpsertPolicy(..)
            | Self::ResetHits(_)
            | Self::UpsertBackends(..)
            | Self::UpsertServiceBackends(..)
            | Self::UpsertMaglev(..)
            | Self::UpsertSourceRange(_)
            | Self::UpsertServiceAddress(_)
            | Self::UpsertFrontend(..)
            | Self::DeleteFrontend(_)
            | Self::Bump(_) => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let map = self.map();
        match self {
            Self::UpsertNode(index, row) => {
                write!(f, "set {map} {index}: {} -> {}", row.local, row.remote)
            }
            Self::UpsertEndpoint(address, row) => write!(
                f,
                "set {map} {address}: endpoint {} identity {} interface {} policy set {} flags {:#x} blocks {}",
                row.id, row.identity.0, row.ifindex, row.policy_set, row.flags, row.blocks
            ),
            Self::UpsertIpcache(key, row) => write!(
                f,
                "set {map} {}: identity {} node {} blocks {}",
                display_prefix(key),
                row.identity.0,
                row.node,
                row.blocks
            ),
            Self::UpsertMasqueradeExempt(key) => write!(f, "set {map} {}", display_prefix(key)),
            Self::DeleteIpcache(key) | Self::DeleteMasqueradeExempt(key) => {
                write!(f, "delete {map} {}", display_prefix(key))
            }
            Self::DeleteEndpoint(address) | Self::DeleteServiceAddress(address) => {
                write!(f, "delete {map} {address}")
            }
            Self::DeleteNode(index) => write!(f, "delete {map} {index}"),
            Self::UpsertPolicy(key, row) => {
                write!(f, "set {map} {}: {} rules", peer(key), row.count)
            }
            Self::DeletePolicy(key) => write!(f, "delete {map} {}", peer(key)),
            Self::ResetHits(cookie) => write!(f, "reset {map} {cookie}"),
            Self::UpsertBackends(first, rows) => {
                write!(f, "set {map} {first}:")?;
                for row in rows.iter() {
                    write!(f, " {}", socket(row.address, row.port))?;
                }
                Ok(())
            }
            Self::UpsertServiceBackends(service, some) => {
                write!(f, "set {map} of service {service}:")?;
                for one in some.iter() {
                    let socket = socket(one.address, one.port);
                    write!(f, " {socket} flags {:#x}", one.flags)?;
                }
                Ok(())
            }
            Self::UpsertMaglev(table, entries) => {
                write!(f, "set {map} {table}: {} entries", entries.len())
            }
            Self::UpsertSourceRange(key) => write!(f, "set {map} {}", range(key)),
            Self::UpsertServiceAddress(address) => write!(f, "set {map} {address}: service"),
            Self::UpsertFrontend(key, row) => write!(
                f,
                "set {map} {}/{}: id {} service {} backends {}+{} and {}+{}",
                socket(key.address, key.port),
                key.protocol,
                row.id,
                row.service,
                row.internal.first,
                row.internal.count,
                row.external.first,
                row.external.count
            ),
            Self::DeleteFrontend(key) => {
                let socket = socket(key.address, key.port);
                write!(f, "delete {map} {socket}/{}", key.protocol)
            }
            Self::DeleteSourceRange(key) => write!(f, "delete {map} {}", range(key)),
            Self::DeleteMaglev(table) => write!(f, "delete {map} {table}"),
            Self::DeleteServiceBackends(service, some) => {
                write!(f, "delete {map} of service {service}:")?;
                for one in some.iter() {
                    write!(f, " {}", socket(one.address, one.port))?;
                }
                Ok(())
            }
            Self::DeleteBackends(first, count) => write!(f, "delete {map} {first}+{count}"),
            Self::Bump(slot) => write!(f, "bump {map} {slot}"),
        }
    }
}

/// What a policy row is about.
fn peer(key: &PolicyKey) -> impl fmt::Display {
    let direction = match key.direction {
        0 => "ingress",
        _ => "egress",
    };
    let kind = match key.peer_kind {
        0 => "any",
        1 => "identity",
        _ => "blocks",
    };
    let PolicyKey {
        set, peer, part, ..
    } = key;
    format!("{set} {direction} {kind} {peer} part {part}")
}

/// A range and the service port that it is about.
fn range(key: &SourceRangeKey) -> impl fmt::Display {
    let prefix = PrefixKey {
        length: key.length.saturating_sub(32),
        address: key.address,
    };
    format!("{} of service {}", display_prefix(&prefix), key.service)
}

/// What takes the kernel from realized to desired, in the order in which it has to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub operations: Vec<Operation>,
}

impl Plan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The row changes, without the bumps.
    pub fn changes(&self) -> impl Iterator<Item = &Operation> {
        self.operations
            .iter()
            .filter(|operation| !matches!(operation, Operation::Bump(_)))
    }
}

#[cfg(test)]
mod tests;
