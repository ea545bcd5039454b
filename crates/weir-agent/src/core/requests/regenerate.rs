// SPDX-License-Identifier: Apache-2.0
//! What an endpoint has is put right: all of it when somebody asks, its link when the MTU changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weir_abi::ipcache::PrefixKey;
use weir_abi::policy::{PolicyKey, PolicyRow};
use weir_abi::{Address, PolicySet};
use weir_api::endpoint::{EndpointState, Regenerated};
use weir_compile::{Operation, Plan, Rows, plan};
use weir_datapath::execute;
use weir_model::PodRef;

use crate::core::Core;
use crate::core::links::{self, PodLink};
use crate::endpoint::{Endpoint, Record};
use crate::error::{EndpointError, chain};

impl Core {
    /// Rebuilds everything of one endpoint; tells what differed.
    pub(in crate::core) fn regenerate(&mut self, id: u16) -> Result<Regenerated, EndpointError> {
        let endpoint = self
            .endpoints
            .get_mut(&id)
            .ok_or_else(|| EndpointError::Unknown(id.to_string()))?;
        endpoint.enter(EndpointState::Regenerating, "asked for");
        let record = endpoint.record.clone();
        let pod = endpoint.pod.clone();
        let mut repaired = self.repair_rows(&record, &pod)?;
        repaired.extend(self.repair_link(&record, &pod)?);
        for what in &repaired {
            self.shared.repaired(what);
        }
        if let Some(endpoint) = self.endpoints.get_mut(&id) {
            let message = format!("regenerated: {} repaired", repaired.len());
            endpoint.note("OK", &message);
        }
        self.mark();
        self.settle();
        Ok(Regenerated { id, repaired })
    }

    /// Gives every pod the MTU that the underlay allows now. Which overhead tunnels have depends on
    /// the other nodes, so their objects must be known.
    pub(in crate::core) fn follow_mtu(&mut self) {
        let mtu = u32::from(self.network.pod_mtu);
        if !self.synced || mtu == 0 {
            return;
        }
        let other = |endpoint: &&Endpoint| endpoint.record.mtu != mtu;
        let ids: Vec<_> = self
            .endpoints
            .values()
            .filter(other)
            .map(|one| one.record.id)
            .collect();
        for id in ids {
            let Some(endpoint) = self.endpoints.get_mut(&id) else {
                continue;
            };
            endpoint.note("OK", &format!("MTU {} becomes {mtu}", endpoint.record.mtu));
            endpoint.record.mtu = mtu;
            let (record, pod) = (endpoint.record.clone(), endpoint.pod.clone());
            if let Err(error) = self.store.save_endpoint(&record) {
                tracing::warn!(endpoint = id, error = chain(&error), "state not saved");
            }
            if let Err(error) = self.repair_link(&record, &pod) {
                tracing::warn!(endpoint = id, error = chain(&error), "MTU not changed");
            }
        }
    }

    /// Compares the endpoint's own rows, and those of its policy set, with the kernel, whatever was remembered.
    fn repair_rows(&mut self, record: &Record, pod: &PodRef) -> Result<Vec<String>, EndpointError> {
        let Some(kernel) = &self.kernel else {
            return Err(EndpointError::NoDatapath("see `weir status`".to_owned()));
        };
        let maps = &kernel.datapath.maps;
        let rows = |message: String| EndpointError::Rows {
            pod: pod.to_string(),
            message,
        };
        let read = |error: weir_datapath::Error| rows(chain(&error));
        let directory = Arc::clone(&self.shared.directory);
        let policy = directory.policy();
        let desired = policy.rows();
        let (mut found, mut wanted) = (Rows::default(), Rows::default());
        let mut sets = BTreeSet::new();
        for address in record.addresses.iter().map(|ip| Address::from(*ip)) {
            let key = PrefixKey::host(address);
            let there = maps.endpoints.get(&address).map_err(read)?;
            sets.extend(there.map(|row| row.policy_set));
            found.endpoints.extend(there.map(|row| (address, row)));
            // A longest-prefix look-up may find the range instead.
            let behind = self.realized.ipcache.get(&key).copied();
            let exact = maps.ipcache.get(&key).map_err(read)?;
            found.ipcache.extend(
                exact
                    .filter(|row| behind == Some(*row))
                    .map(|row| (key, row)),
            );
            let row = desired.endpoints.get(&address);
            sets.extend(row.map(|row| row.policy_set));
            wanted.endpoints.extend(row.map(|row| (address, *row)));
            wanted
                .ipcache
                .extend(desired.ipcache.get(&key).map(|row| (key, *row)));
        }
        sets.remove(&PolicySet::NONE);
        let of_sets = |rows: &BTreeMap<PolicyKey, PolicyRow>| -> BTreeMap<PolicyKey, PolicyRow> {
            let rows = rows.iter().filter(|(key, _)| sets.contains(&key.set));
            rows.map(|(key, row)| (*key, *row)).collect()
        };
        if !sets.is_empty() {
            let all = maps.policy.entries().map_err(read)?;
            found.policy = of_sets(&all.into_iter().collect());
            wanted.policy = of_sets(&desired.policy);
        }
        let plan: Plan = plan(&found, &wanted);
        let outcome = execute(maps, &plan);
        if let Some(failure) = outcome.failures.first() {
            return Err(rows(format!(
                "{}: {}",
                failure.operation,
                chain(&failure.error)
            )));
        }
        for operation in plan.changes() {
            self.realized.apply(operation);
        }
        Ok(plan.changes().map(Operation::to_string).collect())
    }

    fn repair_link(&mut self, record: &Record, pod: &PodRef) -> Result<Vec<String>, EndpointError> {
        let failed = |source| EndpointError::Link {
            pod: pod.to_string(),
            source,
        };
        let index = weir_net::IfIndex::new(record.host_index);
        let link = self.netlink.link_by_index(index).map_err(failed)?;
        let Some(link) = link.filter(|link| link.name == record.host_interface) else {
            return Ok(vec![format!("interface {} is gone", record.host_interface)]);
        };
        let mut repaired =
            links::ensure_host_side(&mut self.netlink, &link, record.mtu).map_err(failed)?;
        if let Some(namespace) = record.namespace() {
            let wanted = PodLink::of(record);
            let inside = namespace.run_in(|| links::configure_inside(&wanted));
            repaired.extend(inside.flatten().map_err(failed)?);
        }
        Ok(repaired)
    }
}
