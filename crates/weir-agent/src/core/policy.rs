// SPDX-License-Identifier: Apache-2.0
//! Policies, and the rows of pods and nodes with what policy adds to them.

use std::sync::Arc;

use weir_abi::map;
use weir_compile::policy::{PolicyCompiler, PolicyInput, PolicyLimits, RowChanges};
use weir_compile::{Rows, plan, plan_delta};
use weir_datapath::execute;
use weir_model::Touched;

use super::Core;
use crate::error::chain;

/// What the loop knows of policy.
#[derive(Debug, Default)]
pub(super) struct Policy {
    /// What the compiler changed since the kernel had all that it desired; none: that is not known.
    changes: Option<RowChanges>,
    /// Changes of policies so far.
    revision: u64,
    /// The revision that every endpoint has.
    realized: u64,
}

impl Core {
    /// Goes on with the numbers of rows that an agent before this one left.
    pub(super) fn restore_policy(&mut self, found: &Rows) {
        *self.shared.directory.policy_mut() = PolicyCompiler::restore(found);
        self.policy.changes = None;
    }

    /// The kernel holds something else than was thought: everything is compared next time.
    pub(super) fn forget_policy(&mut self) {
        self.policy.changes = None;
    }

    /// Works out what differs because of what was touched; tells whether anything does.
    pub(super) fn update_policy(&mut self, touched: &Touched) -> bool {
        let Some(kernel) = &self.kernel else {
            return false;
        };
        let maps = &kernel.datapath.maps;
        let limits = PolicyLimits {
            policy: maps.policy.size(),
            policy_hits: maps.policy_hits.size(),
            ipcache: maps.ipcache.size(),
        };
        if touched.all || !touched.policies.is_empty() {
            self.policy.revision += 1;
        }
        let directory = Arc::clone(&self.shared.directory);
        let delta = {
            let world = self.shared.world();
            let services = directory.services();
            let input = PolicyInput {
                world: &world,
                base: &self.compiled,
                identities: &self.identities,
                service_addresses: &services.rows().addresses,
                limits,
            };
            directory.policy_mut().update(&input, touched)
        };
        if delta.problems_changed || !touched.policies.is_empty() {
            self.remark_on_unenforced(touched);
        }
        let differs = delta.changes != RowChanges::default();
        directory.note_cookies(delta.cookies);
        if delta.problems_changed || touched.all {
            self.report_policy();
        }
        // Changes that are not in the kernel yet cannot be told apart from new ones.
        self.policy.changes = match self.policy.changes.take() {
            Some(before) if before == RowChanges::default() => Some(delta.changes),
            Some(_) | None => None,
        };
        differs
    }

    fn report_policy(&self) {
        let policy = self.shared.directory.policy();
        let problems: Vec<_> = policy.problems().iter().map(ToString::to_string).collect();
        let message = if problems.is_empty() {
            let count = self.shared.world().policies().count();
            let rows = policy.rows().policy.len();
            format!(
                "{count} policies, {rows} rows, revision {}",
                self.policy.revision
            )
        } else {
            problems.join("; ")
        };
        self.shared.report("policy", problems.is_empty(), message);
    }

    /// Writes the rows of nodes, pods and policy that differ.
    pub(super) fn write_rows(&mut self) -> Result<(), String> {
        let Some(kernel) = &self.kernel else {
            return Ok(());
        };
        let directory = Arc::clone(&self.shared.directory);
        let plan = {
            let policy = directory.policy();
            match &self.policy.changes {
                Some(changes) => plan_delta(&self.realized, policy.rows(), changes),
                None => plan(&self.realized, policy.rows()),
            }
        };
        let as_desired = |rows: &Rows| format!("{} rows as desired", rows.len());
        if plan.is_empty() {
            self.policy.changes = Some(RowChanges::default());
            self.policy.realized = self.policy.revision;
            self.shared.ran("map-sync", Ok("nothing to do".to_owned()));
            let message = as_desired(&self.realized);
            self.shared.report("maps", true, message);
            return Ok(());
        }
        let changes = plan.changes().count();
        let outcome = execute(&kernel.datapath.maps, &plan);
        let failed: Vec<_> = outcome
            .failures
            .iter()
            .map(|failure| &failure.operation)
            .collect();
        let done = plan
            .changes()
            .filter(|operation| !failed.contains(operation));
        for operation in done {
            self.realized.apply(operation);
            tracing::debug!("{operation}");
        }
        let of_map = |map: &map::MapInfo| {
            let changes = plan.changes();
            changes
                .filter(|operation| operation.map() == map.name)
                .count()
        };
        for (map, event, noun) in [
            (map::IPCACHE, "ipcache-updated", "prefixes"),
            (map::POLICY, "policy-updated", "rows"),
        ] {
            let count = of_map(&map);
            if count > 0 {
                self.shared.events.agent(event, &format!("{count} {noun}"));
            }
        }
        match outcome.failures.first() {
            None => {
                self.policy.changes = Some(RowChanges::default());
                self.policy.realized = self.policy.revision;
                self.shared
                    .ran("map-sync", Ok(format!("{changes} rows written")));
                let message = as_desired(&self.realized);
                self.shared.report("maps", true, message);
                Ok(())
            }
            Some(first) => {
                self.policy.changes = None;
                let (count, cause) = (outcome.failures.len(), chain(&first.error));
                let message = format!(
                    "{count} of {changes} rows refused, the first: {}: {cause}",
                    first.operation
                );
                self.shared.ran("map-sync", Err(message.clone()));
                self.shared.report("maps", false, message.clone());
                Err(message)
            }
        }
    }

    /// Changes of policies so far, and how many of them every endpoint has.
    pub(super) const fn policy_revisions(&self) -> (u64, u64) {
        (self.policy.revision, self.policy.realized)
    }
}
