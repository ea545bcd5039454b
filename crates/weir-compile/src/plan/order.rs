// SPDX-License-Identifier: Apache-2.0
//! The order of a plan, in which no step allows what neither the state before nor the one after does.
//!
//! A packet meets a policy row if the endpoint's set is enforced and the peer's address has the
//! identity or group that the row is about. A connection passes two endpoints, so what one of them
//! may from now on must wait until the other one may no longer what it is to lose. So:
//!
//! 1. rows of sets that nothing enforces yet are written as they will be; rows that packets meet now,
//!    or will meet as soon as an address has another group, are cut down to what both states allow;
//! 2. addresses pass to their new identities and groups, each in one step: of prefixes the longest
//!    first, so that nobody falls to a shorter one that is not meant for him;
//! 3. endpoints become isolated;
//! 4. endpoints are freed (before the second step if none becomes isolated, since rows that they lean
//!    on may go with a group), and rows get what the new state allows beyond the old one;
//! 5. rows that nothing can meet any more are removed.
//!
//! What both states allow stays allowed on the way when a policy comes or goes. When rules and
//! addresses change places in one plan it may be refused for a moment.
//!
//! `chain` makes the steps of policy rows and `endpoints` those of endpoints; `met` and `ways` tell what
//! packets can meet on the way; `bumps` has flows decided again.

mod bumps;
mod chain;
mod endpoints;
mod met;
mod ways;

use std::collections::BTreeSet;

use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::node::NodeRow;
use weir_abi::policy::PolicyKey;
use weir_abi::{Address, EndpointRow, NodeIndex, PolicyCookie, PolicySet, Slot};

use super::difference::{Difference, parts, strays};
use super::{Operation, Plan};
use crate::Rows;
use crate::policy::RowChanges;
use met::{Met, met};

/// Compares what is realized with what is desired.
pub fn plan(realized: &Rows, desired: &Rows) -> Plan {
    let chains = |rows: &Rows| {
        let firsts = rows.policy.keys().map(|key| PolicyKey { part: 0, ..*key });
        firsts.collect::<BTreeSet<_>>()
    };
    let differs = |first: &PolicyKey| parts(realized, first).ne(parts(desired, first));
    let mut chains: BTreeSet<_> = chains(realized).union(&chains(desired)).copied().collect();
    chains.retain(differs);
    let exempt = |one: &Rows, other: &Rows| {
        let only = one.masquerade_exempt.difference(&other.masquerade_exempt);
        only.copied().collect()
    };
    Order {
        realized,
        desired,
        nodes: Difference::of(&realized.nodes, &desired.nodes),
        endpoints: Difference::of(&realized.endpoints, &desired.endpoints),
        ipcache: Difference::of(&realized.ipcache, &desired.ipcache),
        exempt: exempt(desired, realized),
        not_exempt: exempt(realized, desired),
        sets: chains.iter().map(|key| key.set).collect(),
        chains,
        strays: strays(realized).collect(),
        met: Met::Whole {
            before: met(realized),
            after: met(desired),
        },
    }
    .plan()
}

/// The same where it is known which rows may differ; nothing else is looked at.
pub fn plan_delta(realized: &Rows, desired: &Rows, changes: &RowChanges) -> Plan {
    let exempt = changes.masquerade_exempt.iter().copied();
    let (exempt, not_exempt): (Vec<_>, Vec<_>) = exempt
        .filter(|key| {
            realized.masquerade_exempt.contains(key) != desired.masquerade_exempt.contains(key)
        })
        .partition(|key| desired.masquerade_exempt.contains(key));
    let chains = changes.policy.iter().copied();
    Order {
        realized,
        desired,
        nodes: Difference::among(&changes.nodes, &realized.nodes, &desired.nodes),
        endpoints: Difference::among(&changes.endpoints, &realized.endpoints, &desired.endpoints),
        ipcache: Difference::among(&changes.ipcache, &realized.ipcache, &desired.ipcache),
        exempt,
        not_exempt,
        sets: changes.sets.clone(),
        chains: chains
            .filter(|first| parts(realized, first).ne(parts(desired, first)))
            .collect(),
        strays: Vec::new(),
        met: Met::Delta {
            fresh: &changes.fresh,
            gone: &changes.gone,
        },
    }
    .plan()
}

struct Order<'a> {
    realized: &'a Rows,
    desired: &'a Rows,
    nodes: Difference<NodeIndex, NodeRow>,
    endpoints: Difference<Address, EndpointRow>,
    ipcache: Difference<PrefixKey, IpcacheRow>,
    exempt: Vec<PrefixKey>,
    not_exempt: Vec<PrefixKey>,
    /// First keys of the policy rows that differ.
    chains: BTreeSet<PolicyKey>,
    /// Policy rows that nothing leads to.
    strays: Vec<PolicyKey>,
    /// Sets that decide otherwise.
    sets: BTreeSet<PolicySet>,
    met: Met<'a>,
}

/// The steps for policy rows and endpoints, each a list of operations.
#[derive(Default)]
struct Steps {
    prepare: Vec<Operation>,
    new_endpoints: Vec<Operation>,
    free_at_once: Vec<Operation>,
    /// Endpoints that become something else.
    endpoints: Vec<Operation>,
    isolate: Vec<Operation>,
    grow: Vec<Operation>,
    remove: Vec<Operation>,
    /// Counters that start again.
    reset: BTreeSet<PolicyCookie>,
}

impl Order<'_> {
    fn plan(mut self) -> Plan {
        let mut steps = Steps::default();
        // One that is in the way of a longer chain is written over below.
        let strays = self.strays.iter().copied();
        steps.prepare.extend(strays.map(Operation::DeletePolicy));
        let ways = self.ways();
        for first in &self.chains {
            self.chain(first, &ways, &mut steps);
        }
        self.endpoint_steps(&ways, &mut steps);
        // Longest prefixes first, shortest removed first: see above.
        let upserts = &mut self.ipcache.upserts;
        upserts.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
        self.ipcache.deletes.sort();
        let bumps = self.bumps();

        let mut operations = Vec::new();
        let nodes = self.nodes.upserts.into_iter();
        operations.extend(nodes.map(|(key, row)| Operation::UpsertNode(key, row)));
        operations.extend(steps.reset.into_iter().map(Operation::ResetHits));
        operations.append(&mut steps.prepare);
        operations.append(&mut steps.new_endpoints);
        operations.append(&mut steps.free_at_once);
        let ipcache = self.ipcache.upserts.into_iter();
        operations.extend(ipcache.map(|(key, row)| Operation::UpsertIpcache(key, row)));
        let exempt = self.exempt.into_iter();
        operations.extend(exempt.map(Operation::UpsertMasqueradeExempt));
        let gone = self.ipcache.deletes.into_iter();
        operations.extend(gone.map(Operation::DeleteIpcache));
        operations.append(&mut steps.endpoints);
        operations.append(&mut steps.isolate);
        let gone = self.endpoints.deletes.into_iter();
        operations.extend(gone.map(Operation::DeleteEndpoint));
        operations.append(&mut steps.grow);
        operations.append(&mut steps.remove);
        let not_exempt = self.not_exempt.into_iter();
        operations.extend(not_exempt.map(Operation::DeleteMasqueradeExempt));
        let gone = self.nodes.deletes.into_iter();
        operations.extend(gone.map(Operation::DeleteNode));

        // A bump of everything covers the others.
        if bumps.contains(&Slot::ALL) {
            operations.extend([Operation::Bump(Slot::ALL), Operation::Bump(Slot::ROUTES)]);
        } else {
            operations.extend(bumps.into_iter().map(Operation::Bump));
        }
        Plan { operations }
    }
}
