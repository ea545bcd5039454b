// SPDX-License-Identifier: Apache-2.0
//! All maps of the datapath, open and typed.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use weir_abi::counter::{Counter, Direction, Metric, metric_index};
use weir_abi::flow::FlowEntry;
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::ipcache::{IpcacheRow, PrefixKey};
use weir_abi::map::{self, MapInfo, MapShape};
use weir_abi::node::{NodeRow, TunnelMtu};
use weir_abi::policy::{PolicyHits, PolicyKey, PolicyRow};
use weir_abi::service::{
    AffinityKey, AffinityRow, BackendRow, FrontendKey, FrontendRow, ServiceBackendKey,
    ServiceBackendRow, SocketKey, SocketRow, SourceRangeKey,
};
use weir_abi::{Address, EndpointRow, FlowKey, Generation, Slot};

use crate::table::{KeySet, PerCpu, RawTable, Table};
use crate::{Error, PinRoot, Result, sys};

/// The pinned maps: what the programs read and write, seen from user space.
#[derive(Debug)]
pub struct Maps {
    /// Connections, the programs' own.
    pub flows: Table<FlowKey, FlowEntry>,
    /// Ports of fragmented datagrams, the programs' own.
    pub fragments: Table<FragmentKey, FragmentRow>,
    /// Pods of this node.
    pub endpoints: Table<Address, EndpointRow>,
    /// Who is behind an address.
    pub ipcache: Table<PrefixKey, IpcacheRow>,
    /// Destinations that are not masqueraded.
    pub masquerade_exempt: KeySet<PrefixKey>,
    /// Tunnel ends; an array, all zero where there is none.
    pub nodes: Table<u32, NodeRow>,
    /// What the programs learned about the way to other nodes.
    pub tunnel_mtu: Table<Address, TunnelMtu>,
    /// Versions of what flows depend on.
    pub generations: Table<u32, Generation>,
    /// What stands at an address and port.
    pub frontends: Table<FrontendKey, FrontendRow>,
    /// Runs of backends that frontends name; an array, all zero where nothing is.
    pub backends: Table<u32, BackendRow>,
    /// Which backends a service still has.
    pub service_backends: Table<ServiceBackendKey, ServiceBackendRow>,
    /// Maglev tables, one after the other: places inside a run.
    pub maglev: Table<u32, u16>,
    /// Who may connect to a service that restricts it.
    pub source_ranges: KeySet<SourceRangeKey>,
    /// Which backend a client sticks to, the programs' own.
    pub affinity: Table<AffinityKey, AffinityRow>,
    /// What translated sockets talk to, the programs' own.
    pub socket_services: Table<SocketKey, SocketRow>,
    /// What policy sets allow.
    pub policy: Table<PolicyKey, PolicyRow>,
    /// How often each policy rule decided, the programs' own.
    pub policy_hits: Table<u32, PolicyHits>,
    /// Packets and bytes by reason and direction.
    pub metrics: PerCpu<Metric>,
    /// What the programs count beside packets.
    pub counters: PerCpu<u64>,
    /// The ring that events come through.
    pub events: RawTable,
    /// Entries of one Maglev table, as the programs were told; 0: there are none.
    pub(crate) maglev_size: u32,
}

/// How full a map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MapUsage {
    /// Name, title and shape.
    pub map: MapInfo,
    /// Rows (bytes for the ring buffer) that fit.
    pub size: u32,
    /// Rows in use; none where it means nothing.
    pub used: Option<u64>,
    /// Writes that the kernel refused since this process opened the map.
    pub failed_writes: u64,
}

impl MapUsage {
    /// Used rows for each hundred.
    #[expect(clippy::cast_precision_loss, reason = "map sizes are far below 2^52")]
    pub fn percent(&self) -> Option<f64> {
        self.used
            .map(|used| used as f64 * 100.0 / f64::from(self.size.max(1)))
    }
}

impl Maps {
    /// Opens the maps that a loader pinned.
    pub fn open(root: &PinRoot) -> Result<Self> {
        Self::open_at(&|map| root.map(map.name), 0)
    }

    pub(crate) fn open_at(path: &dyn Fn(&MapInfo) -> PathBuf, maglev_size: u32) -> Result<Self> {
        let open = |map: &MapInfo| -> Result<OwnedFd> {
            let path = path(map);
            sys::pin::get(&path).map_err(|source| Error::file("open pinned map", path, source))
        };
        Ok(Self {
            flows: Table::new(&map::FLOWS, open(&map::FLOWS)?)?,
            fragments: Table::new(&map::FRAGMENTS, open(&map::FRAGMENTS)?)?,
            endpoints: Table::new(&map::ENDPOINTS, open(&map::ENDPOINTS)?)?,
            ipcache: Table::new(&map::IPCACHE, open(&map::IPCACHE)?)?,
            masquerade_exempt: KeySet::new(
                &map::MASQUERADE_EXEMPT,
                open(&map::MASQUERADE_EXEMPT)?,
            )?,
            nodes: Table::new(&map::NODES, open(&map::NODES)?)?,
            tunnel_mtu: Table::new(&map::TUNNEL_MTU, open(&map::TUNNEL_MTU)?)?,
            generations: Table::new(&map::GENERATIONS, open(&map::GENERATIONS)?)?,
            frontends: Table::new(&map::FRONTENDS, open(&map::FRONTENDS)?)?,
            backends: Table::new(&map::BACKENDS, open(&map::BACKENDS)?)?,
            service_backends: Table::new(&map::SERVICE_BACKENDS, open(&map::SERVICE_BACKENDS)?)?,
            maglev: Table::new(&map::MAGLEV, open(&map::MAGLEV)?)?,
            source_ranges: KeySet::new(&map::SOURCE_RANGES, open(&map::SOURCE_RANGES)?)?,
            affinity: Table::new(&map::AFFINITY, open(&map::AFFINITY)?)?,
            socket_services: Table::new(&map::SOCKET_SERVICES, open(&map::SOCKET_SERVICES)?)?,
            policy: Table::new(&map::POLICY, open(&map::POLICY)?)?,
            policy_hits: Table::new(&map::POLICY_HITS, open(&map::POLICY_HITS)?)?,
            metrics: PerCpu::new(&map::METRICS, open(&map::METRICS)?)?,
            counters: PerCpu::new(&map::COUNTERS, open(&map::COUNTERS)?)?,
            events: RawTable::new(&map::EVENTS, open(&map::EVENTS)?)?,
            maglev_size,
        })
    }

    /// The maps as bytes, in the order of their declaration.
    pub fn raw(&self) -> [&RawTable; 20] {
        let Self {
            flows,
            fragments,
            endpoints,
            ipcache,
            masquerade_exempt,
            nodes,
            tunnel_mtu,
            generations,
            frontends,
            backends,
            service_backends,
            maglev,
            source_ranges,
            affinity,
            socket_services,
            policy,
            policy_hits,
            metrics,
            counters,
            events,
            maglev_size: _,
        } = self;
        [
            flows.raw(),
            fragments.raw(),
            endpoints.raw(),
            ipcache.raw(),
            masquerade_exempt.raw(),
            nodes.raw(),
            tunnel_mtu.raw(),
            generations.raw(),
            frontends.raw(),
            backends.raw(),
            service_backends.raw(),
            maglev.raw(),
            source_ranges.raw(),
            affinity.raw(),
            socket_services.raw(),
            policy.raw(),
            policy_hits.raw(),
            metrics.raw(),
            counters.raw(),
            events,
        ]
    }

    /// One map as bytes.
    pub fn by_name(&self, name: &str) -> Option<&RawTable> {
        self.raw()
            .into_iter()
            .find(|table| table.info().map.name == name)
    }

    /// How full the maps are. Counts rows one by one: for people and for metrics, not for every second.
    pub fn usage(&self) -> Result<Vec<MapUsage>> {
        self.raw()
            .into_iter()
            .map(|table| self.usage_of(table))
            .collect()
    }

    fn usage_of(&self, table: &RawTable) -> Result<MapUsage> {
        let info = table.info();
        let used = match info.map.shape {
            MapShape::Hash | MapShape::LruHash | MapShape::LongestPrefix => Some(table.count()?),
            MapShape::Array if info.map.name == map::NODES.name => {
                Some(self.read_back_nodes()?.len() as u64)
            }
            MapShape::Array if info.map.name == map::BACKENDS.name => Some(self.places_in_use()?),
            MapShape::Array if info.map.name == map::MAGLEV.name && self.maglev_size > 0 => {
                Some(self.tables_in_use()? * u64::from(self.maglev_size))
            }
            MapShape::Array | MapShape::PerCpuArray | MapShape::RingBuffer => None,
        };
        Ok(MapUsage {
            map: info.map,
            size: info.size,
            used,
            failed_writes: table.failed_writes(),
        })
    }

    /// Maglev tables that a frontend names.
    fn tables_in_use(&self) -> Result<u64> {
        let mut tables = BTreeSet::new();
        self.frontends.for_each(|_, row| {
            let named = [row.internal.maglev, row.external.maglev];
            tables.extend(named.into_iter().filter(|table| *table > 0));
        })?;
        Ok(tables.len() as u64)
    }

    /// Places of `backends` that a frontend names; runs are shared.
    fn places_in_use(&self) -> Result<u64> {
        let mut runs = BTreeSet::new();
        self.frontends.for_each(|_, row| {
            for run in [row.internal, row.external] {
                runs.insert((run.first, run.count));
            }
        })?;
        Ok(runs.iter().map(|(_, count)| u64::from(*count)).sum())
    }

    /// Refused writes of each map since this process opened it.
    pub fn failed_writes(&self) -> BTreeMap<&'static str, u64> {
        self.raw()
            .into_iter()
            .map(|table| (table.info().map.name, table.failed_writes()))
            .collect()
    }

    /// Has every flow that depends on a slot decided again. Call it after the new rows are in place.
    pub fn bump(&self, slot: Slot) -> Result<()> {
        let key = u32::from(slot.get());
        let old = self.generations.get(&key)?.unwrap_or_default();
        self.generations
            .upsert(&key, &Generation(old.get().wrapping_add(1)))
    }

    /// A counter over all CPUs.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        self.counters.sum(counter as u32)
    }

    /// Packets and bytes of a drop reason's number (0: forwarded) in one direction.
    pub fn metric(&self, reason: u8, direction: Direction) -> Result<Metric> {
        self.metrics.sum(metric_index(reason, direction))
    }
}
