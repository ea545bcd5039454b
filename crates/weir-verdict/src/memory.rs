// SPDX-License-Identifier: Apache-2.0
//! Tables in memory: what the maps are in the kernel, for tests and explanation.

use crate::live::LiveFlow;
use crate::tables::{EXISTS, Insert, Route, Tables};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;
use weir_abi::config::features;
use weir_abi::counter::{Counter, Direction};
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::node::{NodeRow, TunnelMtu};
use weir_abi::policy::{PolicyKey, PolicyRow};
use weir_abi::service::{
    AffinityKey, AffinityRow, BackendRow, FrontendKey, FrontendRow, ServiceBackendKey,
    ServiceBackendRow, SocketKey, SocketRow, SourceRangeKey,
};
use weir_abi::{
    Address, DatapathConfig, EndpointRow, FlowEntry, FlowKey, Generation, NodeIndex, PolicyCookie,
    Seconds, ServiceId, Slot,
};

/// All tables. Fields are public: a fixture fills them.
#[derive(Debug, Default)]
pub struct MemoryTables {
    pub config: DatapathConfig,
    pub now: Cell<u32>,
    pub endpoints: HashMap<Address, EndpointRow>,
    pub ipcache: BTreeMap<PrefixKey, IpcacheRow>,
    #[expect(
        clippy::zero_sized_map_values,
        reason = "one search serves all prefix tables"
    )]
    pub masquerade_exempt: BTreeMap<PrefixKey, ()>,
    pub nodes: BTreeMap<u16, NodeRow>,
    /// The routing table: the longest prefix that holds the destination.
    pub routes: BTreeMap<PrefixKey, Result<Route, i32>>,
    pub generations: RefCell<HashMap<u16, u32>>,
    pub frontends: HashMap<FrontendKey, FrontendRow>,
    pub backends: BTreeMap<u32, BackendRow>,
    pub service_backends: HashMap<ServiceBackendKey, ServiceBackendRow>,
    pub maglev: BTreeMap<u32, u16>,
    pub source_ranges: BTreeSet<SourceRangeKey>,
    pub affinity: RefCell<HashMap<AffinityKey, AffinityRow>>,
    pub socket_services: RefCell<HashMap<SocketKey, SocketRow>>,
    pub policy: HashMap<PolicyKey, PolicyRow>,
    pub policy_hits: RefCell<HashMap<PolicyCookie, u64>>,
    pub tunnel_mtu: RefCell<HashMap<Address, TunnelMtu>>,
    pub fragments: RefCell<HashMap<FragmentKey, FragmentRow>>,
    pub counters: RefCell<HashMap<u32, u64>>,
    pub packets: RefCell<HashMap<(u8, u8), u64>>,
    pub signals: Cell<u32>,
    flows: RefCell<HashMap<FlowKey, NonNull<FlowEntry>>>,
    /// Entries that were replaced: references to them may live as long as the table.
    retired: RefCell<Vec<NonNull<FlowEntry>>>,
}

impl MemoryTables {
    fn dry(&self) -> bool {
        self.config.has(features::DRY_RUN)
    }

    /// The flow table in the order of its keys.
    pub fn flows(&self) -> BTreeMap<FlowKey, FlowEntry> {
        let flows = self.flows.borrow();
        // SAFETY: entries are allocated until the table is dropped and the table is not shared
        // between threads.
        flows
            .iter()
            .map(|(key, entry)| (*key, unsafe { *entry.as_ptr() }))
            .collect()
    }

    /// Forgets one entry, as an eviction would.
    pub fn evict(&self, key: &FlowKey) {
        if let Some(entry) = self.flows.borrow_mut().remove(key) {
            self.retired.borrow_mut().push(entry);
        }
    }

    /// Writes one entry whatever the mode.
    pub fn put_flow(&self, key: &FlowKey, entry: &FlowEntry) {
        let new = NonNull::from(Box::leak(Box::new(*entry)));
        if let Some(old) = self.flows.borrow_mut().insert(*key, new) {
            self.retired.borrow_mut().push(old);
        }
    }

    /// Moves a slot to its next generation; with everything goes what is routed.
    pub fn bump(&self, slot: Slot) {
        let mut generations = self.generations.borrow_mut();
        *generations.entry(slot.0).or_default() += 1;
        if slot == Slot::ALL {
            *generations.entry(Slot::ROUTES.0).or_default() += 1;
        }
    }
}

impl Drop for MemoryTables {
    fn drop(&mut self) {
        let flows = self.flows.get_mut().drain().map(|(_, entry)| entry);
        for entry in flows.chain(self.retired.get_mut().drain(..)) {
            // SAFETY: made by `Box::leak` in `put_flow`, listed once, and no reference outlives
            // the table.
            drop(unsafe { Box::from_raw(entry.as_ptr()) });
        }
    }
}

/// Every prefix that holds an address, the longest first.
fn prefixes(address: &Address) -> impl Iterator<Item = PrefixKey> {
    let bits = u128::from_be_bytes(address.0);
    (0..=128).rev().map(move |length| {
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        PrefixKey {
            length,
            address: Address((bits & mask).to_be_bytes()),
        }
    })
}

/// The value of the longest prefix that holds an address.
fn longest<'a, V>(table: &'a BTreeMap<PrefixKey, V>, address: &Address) -> Option<&'a V> {
    prefixes(address).find_map(|prefix| table.get(&prefix))
}

impl Tables for MemoryTables {
    fn config<V: Copy>(&self, field: impl Fn(&DatapathConfig) -> &V) -> V {
        *field(&self.config)
    }

    fn now(&self) -> Seconds {
        Seconds(self.now.get())
    }

    fn flow(&self, key: &FlowKey) -> Option<LiveFlow<'_>> {
        let entry = *self.flows.borrow().get(key)?;
        // SAFETY: entries are allocated until the table is dropped.
        Some(unsafe { LiveFlow::new(entry) })
    }

    fn insert_flow(&self, key: &FlowKey, entry: &FlowEntry, insert: Insert) -> Result<(), i32> {
        if insert == Insert::Reserve && self.flows.borrow().contains_key(key) {
            return Err(EXISTS);
        }
        if !self.dry() {
            self.put_flow(key, entry);
        }
        Ok(())
    }

    fn endpoint(&self, address: &Address) -> Option<EndpointRow> {
        self.endpoints.get(address).copied()
    }

    fn ipcache(&self, address: &Address) -> Option<IpcacheRow> {
        longest(&self.ipcache, address).copied()
    }

    fn masquerade_exempt(&self, address: &Address) -> bool {
        longest(&self.masquerade_exempt, address).is_some()
    }

    fn node(&self, index: NodeIndex) -> Option<&NodeRow> {
        const NOBODY: &NodeRow = &NodeRow {
            local: Address::UNSPECIFIED,
            remote: Address::UNSPECIFIED,
        };
        Some(self.nodes.get(&index.0).unwrap_or(NOBODY))
    }

    fn generation(&self, slot: Slot) -> Generation {
        Generation(self.generations.borrow().get(&slot.0).copied().unwrap_or(0))
    }

    fn frontend(&self, key: &FrontendKey) -> Option<&FrontendRow> {
        self.frontends.get(key)
    }

    fn backend(&self, place: u32) -> Option<&BackendRow> {
        self.backends.get(&place)
    }

    fn service_backend(&self, key: &ServiceBackendKey) -> Option<ServiceBackendRow> {
        self.service_backends.get(key).copied()
    }

    fn maglev(&self, place: u32) -> u16 {
        self.maglev.get(&place).copied().unwrap_or(0)
    }

    fn source_range(&self, service: ServiceId, address: &Address) -> bool {
        prefixes(address).any(|PrefixKey { length, address }| {
            self.source_ranges.contains(&SourceRangeKey {
                length: length + 32,
                service,
                address,
            })
        })
    }

    fn affinity(&self, key: &AffinityKey) -> Option<AffinityRow> {
        self.affinity.borrow().get(key).copied()
    }

    fn remember_affinity(&self, key: &AffinityKey, row: &AffinityRow) {
        if !self.dry() {
            self.affinity.borrow_mut().insert(*key, *row);
        }
    }

    fn socket_service(&self, key: &SocketKey) -> Option<SocketRow> {
        self.socket_services.borrow().get(key).copied()
    }

    fn remember_socket(&self, key: &SocketKey, row: &SocketRow) {
        if !self.dry() {
            self.socket_services.borrow_mut().insert(*key, *row);
        }
    }

    fn note_host_backend(&self) {
        if !self.dry() {
            let mut generations = self.generations.borrow_mut();
            generations.insert(Slot::HOST_BACKENDS.0, 1);
        }
    }

    fn policy(&self, key: &PolicyKey) -> Option<&PolicyRow> {
        self.policy.get(key)
    }

    fn count_policy(&self, cookie: PolicyCookie, _bytes: u32) {
        if !self.dry() {
            *self.policy_hits.borrow_mut().entry(cookie).or_default() += 1;
        }
    }

    fn tunnel_mtu(&self, remote: &Address) -> Option<TunnelMtu> {
        self.tunnel_mtu.borrow().get(remote).copied()
    }

    fn learn_tunnel_mtu(&self, remote: &Address, mtu: &TunnelMtu) {
        if !self.dry() {
            self.tunnel_mtu.borrow_mut().insert(*remote, *mtu);
        }
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentRow> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, row: &FragmentRow) {
        if !self.dry() {
            self.fragments.borrow_mut().insert(*key, *row);
        }
    }

    fn route(&self, _source: &Address, destination: &Address, found: &mut Route) -> i32 {
        // `BPF_FIB_LKUP_RET_NOT_FWDED`, the kernel's answer where no route is found.
        match longest(&self.routes, destination) {
            Some(Ok(route)) => {
                *found = *route;
                0
            }
            Some(Err(code)) => *code,
            None => 4,
        }
    }

    fn count(&self, counter: Counter) {
        if !self.dry() {
            *self
                .counters
                .borrow_mut()
                .entry(counter as u32)
                .or_default() += 1;
        }
    }

    fn count_packet(&self, reason: u8, direction: Direction, _bytes: u32) {
        if !self.dry() {
            *self
                .packets
                .borrow_mut()
                .entry((reason, direction as u8))
                .or_default() += 1;
        }
    }

    fn signal_garbage(&self) {
        if !self.dry() {
            self.signals.set(self.signals.get() + 1);
        }
    }
}
