// SPDX-License-Identifier: Apache-2.0
//! May this packet come from where it came?

use crate::decision::{Decision, Outcome};
use crate::direct;
use crate::run::Arrival;
use crate::tables::Tables;
use weir_abi::config::features;
use weir_abi::ipcache::flags;
use weir_abi::observation::Hook;
use weir_abi::{Address, BlockGroup, DropReason, Identity, NodeIndex, endpoint};
use weir_packet::Summary;

/// Checks the source address against the place of arrival and notes the source's identity.
///
/// A pod may use its own addresses only. The tunnel may bring only what belongs to the node that
/// sent it. The underlay may not bring a local pod's address, nor, in tunnel mode, a remote pod's.
#[inline(always)]
pub fn check<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    decision: &mut Decision,
) -> Result<(), Outcome> {
    let source = &summary.key.source;
    if matches!(arrival.hook, Hook::FromContainer) {
        return match tables.endpoint(source) {
            Some(row) if row.ifindex == arrival.ifindex => {
                decision.source.set_endpoint(&row);
                if row.flags & endpoint::flags::READY == 0 {
                    return Err(Outcome::Drop(DropReason::EndpointNotReady));
                }
                Ok(())
            }
            _ => Err(Outcome::Drop(DropReason::InvalidSourceIp)),
        };
    }
    let row = tables.ipcache(source);
    let (node, row_flags) = row.map_or((NodeIndex::NONE, 0), |row| (row.node, row.flags));
    let (identity, blocks) = row.map_or((world(source), BlockGroup::NONE), |row| {
        (row.identity, row.blocks)
    });
    decision.source.set_other(identity, blocks);
    match arrival.hook {
        Hook::FromContainer => Ok(()),
        Hook::FromNetdev => match &arrival.tunnel_source {
            Some(outer) if direct::is_named(tables, arrival) => {
                direct::check_sender(tables, outer, identity).into_step()
            }
            Some(outer) => check_tunnel(tables, outer, node),
            None => {
                let tunnelled = tables.config(|config| &config.features) & features::TUNNEL != 0
                    && (row_flags & flags::POD_RANGE != 0
                        || decision.source.identity >= Identity::FIRST_POD);
                // Nobody else has this node's own addresses, nor those of its pods.
                if identity == Identity::HOST
                    || tables.endpoint(source).is_some()
                    || row_flags & flags::LOCAL_RANGE != 0
                    || (tunnelled && node != NodeIndex::NONE)
                {
                    Err(Outcome::Drop(DropReason::InvalidIdentity))
                } else {
                    Ok(())
                }
            }
        },
        Hook::FromHost => {
            // The node's own stack must not bring back what pods sent: it would go in a circle.
            if tables.endpoint(source).is_some() {
                return Err(Outcome::Drop(DropReason::InvalidSourceIp));
            }
            Ok(())
        }
        Hook::ToNetdev => {
            // Only the node's own connections are followed here.
            if identity == Identity::HOST {
                Ok(())
            } else {
                Err(Outcome::Pass)
            }
        }
    }
}

/// The tunnel's sender must be the node behind which the source address lives.
#[inline(always)]
fn check_tunnel<T: Tables>(tables: &T, outer: &Address, node: NodeIndex) -> Result<(), Outcome> {
    match tables.node(node) {
        Some(row) if node != NodeIndex::NONE && row.remote.0 == outer.0 => Ok(()),
        _ => {
            // Tell a stranger from a node that brings somebody else's packet.
            let known = tables
                .ipcache(outer)
                .is_some_and(|row| row.identity == Identity::REMOTE_NODE);
            Err(Outcome::Drop(if known {
                DropReason::InvalidIdentity
            } else {
                DropReason::UnknownSender
            }))
        }
    }
}

/// The identity of an address that nothing is known about.
#[inline(always)]
pub const fn world(address: &Address) -> Identity {
    if address.is_v4() {
        Identity::WORLD_IPV4
    } else {
        Identity::WORLD_IPV6
    }
}
