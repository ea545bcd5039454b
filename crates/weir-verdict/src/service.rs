// SPDX-License-Identifier: Apache-2.0
//! Which backend takes a new connection to a service?
//!
//! The same choice serves packets (here) and sockets ([`crate::socket`]): what sticks to a client
//! first, then Maglev's table or a hash.

use crate::decision::{Decision, Outcome, Workspace};
use crate::run::Arrival;
use crate::tables::Tables;
use weir_abi::observation::Hook;
use weir_abi::service::{
    AffinityKey, AffinityRow, FrontendKey, FrontendKind, FrontendRow, ServiceBackendKey,
    backend_flags, flags,
};
use weir_abi::{DropReason, FlowKey, Protocol, Seconds, Slot};
use weir_packet::Summary;
use weir_packet::dispatch::Backend;
use weir_packet::hash::{hash_of, hash_of_address};

/// The service that a new connection is for, if it is for one. `wanted` is memory for its key.
#[inline(always)]
pub fn addressed<'t, T: Tables>(
    tables: &'t T,
    key: &FlowKey,
    wanted: &mut FrontendKey,
) -> Option<&'t FrontendRow> {
    if !has_services(key.protocol) {
        return None;
    }
    *wanted = FrontendKey::new(key.destination, key.destination_port, key.protocol);
    tables.frontend(wanted)
}

/// Step of the slow path for a new connection that is for a service: [`Decision::after`] gets the
/// address of a backend.
#[inline(always)]
pub fn select<T: Tables>(tables: &T, workspace: &mut Workspace, frontend: &FrontendRow) -> Outcome {
    let Workspace {
        decision,
        arrival,
        summary,
        ..
    } = workspace;
    Outcome::of(translate(tables, arrival, summary, decision, frontend))
}

#[inline(always)]
fn translate<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    summary: &Summary,
    decision: &mut Decision,
    frontend: &FrontendRow,
) -> Result<(), Outcome> {
    let key = &summary.key;
    decision.service = frontend.service;
    let scope = Scope::of(arrival.hook);
    if matches!(scope, Scope::External) && frontend.kind == FrontendKind::ClusterIp as u8 {
        return Err(Outcome::Drop(DropReason::IsClusterIp));
    }
    if frontend.flags & flags::SOURCE_RANGES != 0
        && !tables.source_range(frontend.service, &key.source)
    {
        return Err(Outcome::Drop(DropReason::SourceRangeDenied));
    }
    let client = Client {
        affinity: AffinityKey {
            client: key.source,
            service: frontend.service,
            reserved: 0,
        },
        tuple: hash_of(key),
        now: decision.now,
    };
    let Some(backend) = choose(tables, frontend, scope, &client) else {
        // A node that keeps to its own backends and has none is silent: load balancers find out by
        // its health check, and others would learn of a node that they should not have asked.
        let silent =
            matches!(scope, Scope::External) && frontend.flags & flags::EXTERNAL_LOCAL != 0;
        decision.rejects = !silent && tables.config(|config| &config.no_backend_drops) == 0;
        return Err(Outcome::Drop(DropReason::ServiceBackendNotFound));
    };
    decision.translated = true;
    decision.after.destination = backend.address;
    decision.after.destination_port = backend.port;
    depend_on(tables, decision);
    Ok(())
}

/// The decision depends on the service's address and on the backend's.
#[inline(always)]
pub fn depend_on<T: Tables>(tables: &T, decision: &mut Decision) {
    let slot = Slot::of_address(&decision.after.destination);
    let generation = tables.generation(slot);
    let dependencies = &mut decision.entry.dependencies;
    let [_, place, service, _] = &mut dependencies.slots;
    *service = *place;
    *place = slot;
    let [_, place, service, _] = &mut dependencies.generations;
    *service = *place;
    *place = generation;
}

/// Whether a known connection may go on with its backend; where it has none, it cannot have lost it.
///
/// One that has been answered stays for as long as the service has the backend. One that has not
/// begun yet is a new connection in all but name, which a backend that is leaving must not get: its
/// next attempt may come after the backend's end.
#[inline(never)]
pub fn keeps_backend<T: Tables>(
    tables: &T,
    arrival: &Arrival,
    key: &FlowKey,
    after: &FlowKey,
    opening: bool,
) -> bool {
    let frontend = FrontendKey::new(key.destination, key.destination_port, key.protocol);
    let Some(row) = tables.frontend(&frontend) else {
        return false;
    };
    let backend = ServiceBackendKey {
        address: after.destination,
        service: row.service,
        port: after.destination_port,
        reserved: [0; 2],
    };
    let Some(state) = tables.service_backend(&backend) else {
        return false;
    };
    !opening || state.flags & Scope::of(arrival.hook).bit() != 0
}

/// Protocols that services have.
#[inline(always)]
pub const fn has_services(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP)
}

/// Which of a frontend's two sets applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The client belongs to this node.
    Internal,
    /// The network brought it.
    External,
}

impl Scope {
    #[inline(always)]
    const fn of(hook: Hook) -> Self {
        match hook {
            Hook::FromContainer | Hook::FromHost | Hook::ToNetdev => Self::Internal,
            Hook::FromNetdev => Self::External,
        }
    }

    /// The bit of [`backend_flags`] that backends of this scope have.
    #[inline(always)]
    const fn bit(self) -> u32 {
        match self {
            Self::Internal => backend_flags::INTERNAL,
            Self::External => backend_flags::EXTERNAL,
        }
    }
}

/// Who asks, as far as the choice depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub affinity: AffinityKey,
    /// A hash of what tells this connection from others.
    pub tuple: u32,
    pub now: Seconds,
}

/// Chooses a backend; `None` where the scope has none.
#[inline(always)]
pub fn choose<T: Tables>(
    tables: &T,
    frontend: &FrontendRow,
    scope: Scope,
    client: &Client,
) -> Option<Backend> {
    let run = match scope {
        Scope::Internal => &frontend.internal,
        Scope::External => &frontend.external,
    };
    if run.count == 0 {
        return None;
    }
    let service = frontend.service;
    let timeout = frontend.affinity_timeout;
    if timeout != 0
        && let Some(backend) = known(tables, client, timeout, scope.bit())
    {
        remember(tables, client, &backend);
        return Some(backend);
    }
    let index = if run.maglev == 0 {
        let seed = tables.config(|config| &config.seed);
        scale(mix(client.tuple ^ seed), run.count)
    } else {
        // Clients that stick take the same backend from every node.
        let hash = if timeout == 0 {
            client.tuple
        } else {
            hash_of_address(&client.affinity.client)
        };
        let size = tables.config(|config| &config.maglev_size);
        let table = run.maglev.wrapping_sub(1).wrapping_mul(size);
        u32::from(tables.maglev(table.wrapping_add(scale(mix(hash), size))))
    };
    let place = run
        .first
        .wrapping_add(if index < run.count { index } else { 0 });
    let row = tables.backend(place)?;
    if row.service != service {
        return None;
    }
    let backend = Backend {
        address: row.address,
        port: row.port,
    };
    if timeout != 0 {
        remember(tables, client, &backend);
    }
    Some(backend)
}

/// The backend that the client has had, if it may go on having it.
#[inline(always)]
fn known<T: Tables>(tables: &T, client: &Client, timeout: u32, bit: u32) -> Option<Backend> {
    let row = tables.affinity(&client.affinity)?;
    if client.now.0.wrapping_sub(row.last_used.0) >= timeout {
        return None;
    }
    let key = ServiceBackendKey {
        address: row.backend,
        service: client.affinity.service,
        port: row.port,
        reserved: [0; 2],
    };
    let state = tables.service_backend(&key)?;
    (state.flags & bit != 0).then_some(Backend {
        address: row.backend,
        port: row.port,
    })
}

#[inline(always)]
fn remember<T: Tables>(tables: &T, client: &Client, backend: &Backend) {
    let row = AffinityRow {
        backend: backend.address,
        port: backend.port,
        reserved: [0; 2],
        last_used: client.now,
    };
    tables.remember_affinity(&client.affinity, &row);
}

/// Spreads a hash evenly over `0..count`.
#[inline(always)]
const fn scale(hash: u32, count: u32) -> u32 {
    ((hash as u64).wrapping_mul(count as u64) >> 32) as u32
}

/// Makes every bit of the result depend on every bit of the hash (the finisher of `MurmurHash3`).
#[inline(always)]
const fn mix(hash: u32) -> u32 {
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
