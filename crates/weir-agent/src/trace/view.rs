// SPDX-License-Identifier: Apache-2.0
//! A node's rows in memory: read back from this kernel, or compiled as any node should have them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use weir_abi::ipcache::PrefixKey;
use weir_abi::map::{self, MapInfo};
use weir_abi::service::FrontendKey;
use weir_abi::{
    Address, DatapathConfig, EndpointId, Identity, IfIndex, MacAddress, PolicyCookie, ServiceId,
};
use weir_api::policy::PolicyRule;
use weir_compile::exempt::default_exempt;
use weir_compile::policy::{PolicyCompiler, PolicyInput, PolicyLimits};
use weir_compile::prefix::prefix_key;
use weir_compile::service::{
    ServiceCompiler, ServiceRows, ServiceSettings, TableSize, address_row,
};
use weir_compile::{LocalEndpoint, NodeIndices, RoutingMode, Rows, Settings, compile};
use weir_datapath::Maps;
use weir_model::{IdentityTable, LabelSet, Node, NodeName, Pod, Touched, World, Zone};
use weir_verdict::Route;
use weir_verdict::memory::MemoryTables;

use crate::config;
use crate::directory::{Directory, policy_rule};
use crate::shared::Shared;
use crate::snapshot::Snapshot;

/// Stands for an underlay device of which nothing is known.
const SOME_DEVICE: IfIndex = IfIndex(2);
/// Stands for `weir_host` of another node.
const SOME_HOST: IfIndex = IfIndex(3);
/// The first link that stands for one of a pod.
const FIRST_LINK: u32 = 1_000_000;
const SOME_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

/// What one node decides by, and what its numbers mean.
pub(super) struct View {
    pub(super) node: NodeName,
    pub(super) tables: MemoryTables,
    pub(super) identities: Arc<IdentityTable>,
    /// An underlay device.
    pub(super) device: IfIndex,
    /// `weir_host`
    pub(super) host: IfIndex,
    meanings: Meanings,
}

/// What numbers of rules and services mean.
enum Meanings {
    Live(Arc<Directory>),
    Compiled(Box<PolicyCompiler>, Box<ServiceCompiler>),
}

impl View {
    /// This node's, as the kernel has it now.
    pub(super) fn live(
        shared: &Shared,
        snapshot: &Snapshot,
        maps: &Maps,
        config: &DatapathConfig,
    ) -> weir_datapath::Result<Self> {
        let (rows, addresses) = maps.read_back_split()?;
        let services = read_services(maps, addresses, config)?;
        let device = snapshot.devices.first();
        let device = device.map_or(SOME_DEVICE, |device| IfIndex(device.ifindex));
        Ok(Self {
            node: shared.node.clone(),
            tables: tables(&rows, &services, *config, device),
            identities: Arc::clone(&snapshot.identities),
            device,
            host: config.host,
            meanings: Meanings::Live(Arc::clone(&shared.directory)),
        })
    }

    /// Any node's, as it should be by what is known here.
    pub(super) fn compiled(
        shared: &Shared,
        snapshot: &Snapshot,
        world: &World,
        node: &Node,
        config: &DatapathConfig,
    ) -> Self {
        let own = node.name == shared.node;
        let sizes = Sizes(snapshot.maps.as_deref());
        let endpoints = endpoints(snapshot, world, &node.name, own);
        let settings = settings(shared, snapshot, node, config, &sizes);
        let (mut identities, mut indices) = (IdentityTable::default(), NodeIndices::default());
        let base = compile(world, &settings, &endpoints, &mut identities, &mut indices);
        let base = Arc::new(base);
        let mut services = ServiceCompiler::new();
        let mut node_addresses = node.addresses.clone();
        node_addresses.extend(settings.node_addresses.iter().copied());
        node_addresses.sort();
        node_addresses.dedup();
        let zone = node.labels.get(Zone::LABEL);
        let of_services = ServiceSettings {
            node: node.name.clone(),
            zone: zone.and_then(|zone| Zone::new(zone).ok()),
            node_addresses,
            maglev: TableSize::new(config.maglev_size),
            frontends_size: sizes.of(&map::FRONTENDS),
            backends_size: sizes.of(&map::BACKENDS),
            service_backends_size: sizes.of(&map::SERVICE_BACKENDS),
            source_ranges_size: sizes.of(&map::SOURCE_RANGES),
            maglev_size: sizes.of(&map::MAGLEV),
            keep_unknown: false,
        };
        let everything = Touched::everything();
        services.update(world, &everything, &of_services);
        let mut policy = PolicyCompiler::new();
        let input = PolicyInput {
            world,
            base: &base,
            identities: &identities,
            service_addresses: &services.rows().addresses,
            limits: PolicyLimits {
                policy: sizes.of(&map::POLICY),
                policy_hits: sizes.of(&map::POLICY_HITS),
                ipcache: sizes.of(&map::IPCACHE),
            },
        };
        policy.update(&input, &everything);
        let address = |ip: Option<IpAddr>| ip.map_or(Address::UNSPECIFIED, Into::into);
        let config = if own {
            *config
        } else {
            DatapathConfig {
                host: SOME_HOST,
                node_ipv4: address(node.ipv4()),
                node_ipv6: address(node.ipv6()),
                node_namespace: 0,
                ..*config
            }
        };
        Self {
            node: node.name.clone(),
            tables: tables(policy.rows(), services.rows(), config, SOME_DEVICE),
            identities: Arc::new(identities),
            device: SOME_DEVICE,
            host: config.host,
            meanings: Meanings::Compiled(Box::new(policy), Box::new(services)),
        }
    }

    /// The rows are those of this node's kernel, and so are the numbers.
    pub(super) const fn is_live(&self) -> bool {
        matches!(self.meanings, Meanings::Live(_))
    }

    /// The rules behind a cookie.
    pub(super) fn rules(&self, cookie: PolicyCookie) -> Vec<PolicyRule> {
        match &self.meanings {
            Meanings::Live(directory) => directory
                .rules(cookie)
                .map_or_else(Vec::new, |rules| rules.to_vec()),
            Meanings::Compiled(policy, _) => {
                policy.origins(cookie).map_or_else(Vec::new, |origins| {
                    origins.iter().map(policy_rule).collect()
                })
            }
        }
    }

    /// `shop/web`
    pub(super) fn service(&self, id: ServiceId) -> Option<String> {
        match &self.meanings {
            Meanings::Live(directory) => directory.service_name(id).map(|name| name.to_string()),
            Meanings::Compiled(_, services) => services.owner_of(id).map(ToString::to_string),
        }
    }

    /// Why a frontend has no backend for clients of this node, or of others.
    pub(super) fn no_backend(
        &self,
        key: &FrontendKey,
        internal: bool,
        world: &World,
    ) -> Option<String> {
        let find = |services: &ServiceCompiler| {
            let listing = services.listing_at(key, world)?;
            let reason = if internal {
                listing.internal_reason
            } else {
                listing.external_reason
            };
            reason.map(|reason| reason.to_string())
        };
        match &self.meanings {
            Meanings::Live(directory) => find(&directory.services()),
            Meanings::Compiled(_, services) => find(services),
        }
    }

    /// The labels behind an identity, in one text.
    pub(super) fn labels(&self, identity: Identity) -> String {
        let labels = self.identities.display_labels(identity);
        if labels.is_empty() {
            "unknown".to_owned()
        } else {
            labels.join(",")
        }
    }
}

/// Sizes of the maps here; other nodes are taken to be configured alike.
struct Sizes<'a>(Option<&'a Maps>);

impl Sizes<'_> {
    fn of(&self, map: &MapInfo) -> u32 {
        let table = self.0.and_then(|maps| maps.by_name(map.name));
        table.map_or(map.default_size, |table| table.info().size)
    }
}

/// The rows of services that packets can meet. Places behind the last run are not read: there are
/// many of them.
fn read_services(
    maps: &Maps,
    addresses: BTreeSet<Address>,
    config: &DatapathConfig,
) -> weir_datapath::Result<ServiceRows> {
    if config.maglev_size != 0 {
        return maps.read_back_services(addresses);
    }
    let mut rows = ServiceRows {
        frontends: maps.frontends.entries()?.into_iter().collect(),
        service_backends: maps.service_backends.entries()?.into_iter().collect(),
        source_ranges: maps.source_ranges.keys()?,
        addresses,
        ..ServiceRows::default()
    };
    let runs = rows
        .frontends
        .values()
        .flat_map(|row| [row.internal, row.external]);
    let ends = runs.map(|run| run.first.saturating_add(run.count));
    let end = ends.max().unwrap_or_default().min(maps.backends.size());
    for (place, row) in (0..).zip(maps.backends.places(0, end)?) {
        rows.backends.set(place, row);
    }
    Ok(rows)
}

fn settings(
    shared: &Shared,
    snapshot: &Snapshot,
    node: &Node,
    config: &DatapathConfig,
    sizes: &Sizes<'_>,
) -> Settings {
    let own = node.name == shared.node;
    let devices = snapshot.devices.iter().filter(|_| own);
    let addresses = devices.flat_map(|device| &device.addresses);
    Settings {
        node: node.name.clone(),
        routing: match shared.config.routing_mode {
            config::RoutingMode::Tunnel => RoutingMode::Tunnel,
            config::RoutingMode::Native => RoutingMode::Native,
        },
        direct_return: shared.config.load_balancer_mode == config::LoadBalancerMode::Dsr,
        masquerade: shared.config.masquerade,
        non_masquerade: shared
            .config
            .non_masquerade_cidrs
            .clone()
            .unwrap_or_else(default_exempt),
        node_addresses: addresses.filter_map(|text| text.parse().ok()).collect(),
        pod_mtu: u32::from(config.pod_mtu),
        endpoints_size: sizes.of(&map::ENDPOINTS),
        ipcache_size: sizes.of(&map::IPCACHE),
        masquerade_exempt_size: sizes.of(&map::MASQUERADE_EXEMPT),
        nodes_size: sizes.of(&map::NODES),
    }
}

/// The pods of a node: those that are connected here, and whoever else runs there by the objects.
fn endpoints(snapshot: &Snapshot, world: &World, node: &NodeName, own: bool) -> Vec<LocalEndpoint> {
    let runs_there = |pod: &&Arc<Pod>| {
        pod.node.as_ref() == Some(node) && !pod.host_network && !pod.addresses.is_empty()
    };
    let connected = |pod: &Pod| {
        let name = pod.reference.to_string();
        let mut all = snapshot.endpoints.iter().filter(|_| own);
        all.find(|one| one.status.external_identifiers.pod_name == name)
    };
    let pods = world.pods().filter(runs_there);
    let numbered = (1..).zip(pods).map(|(number, pod): (u16, _)| {
        let known = connected(pod);
        let link = known.map(|one| one.status.networking.interface_index);
        let mac = known.and_then(|one| parse_mac(&one.status.networking.mac));
        let [high, low] = number.to_be_bytes();
        LocalEndpoint {
            // Beyond what is given out soon: numbers of what is not connected are not shown.
            id: EndpointId(known.map_or(u16::MAX - number, |one| one.id)),
            pod: pod.reference.clone(),
            interface: IfIndex(link.unwrap_or(FIRST_LINK + u32::from(number))),
            mac: mac.unwrap_or(MacAddress([2, 0, 0, 1, high, low])),
            addresses: pod.addresses.clone(),
            labels: Some(LabelSet::of(pod)),
        }
    });
    numbered.collect()
}

fn parse_mac(text: &str) -> Option<MacAddress> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    Some(MacAddress(bytes))
}

fn tables(
    rows: &Rows,
    services: &ServiceRows,
    config: DatapathConfig,
    device: IfIndex,
) -> MemoryTables {
    let mut tables = MemoryTables::default();
    let of_services = services
        .addresses
        .iter()
        .map(|address| (PrefixKey::host(*address), address_row()));
    tables.ipcache = of_services.collect();
    // What policy needs at a service's address wins.
    tables
        .ipcache
        .extend(rows.ipcache.iter().map(|(key, row)| (*key, *row)));
    tables.endpoints = rows
        .endpoints
        .iter()
        .map(|(key, row)| (*key, *row))
        .collect();
    tables.masquerade_exempt = rows
        .masquerade_exempt
        .iter()
        .map(|key| (*key, ()))
        .collect();
    tables.nodes = rows.nodes.iter().map(|(key, row)| (key.0, *row)).collect();
    tables.policy = rows.policy.iter().map(|(key, row)| (*key, *row)).collect();
    tables.frontends = services
        .frontends
        .iter()
        .map(|(key, row)| (*key, *row))
        .collect();
    tables.backends = services
        .backends
        .iter()
        .map(|(place, row)| (place, *row))
        .collect();
    for (service, backends) in services.service_backends.iter() {
        let rows = backends.iter().map(|one| (one.key(service), one.row()));
        tables.service_backends.extend(rows);
    }
    for (table, entries) in &services.maglev {
        let first = table.saturating_mul(config.maglev_size);
        tables.maglev.extend((first..).zip(entries.iter().copied()));
    }
    tables.source_ranges.clone_from(&services.source_ranges);
    // Routes are the kernel's, and are not asked here: every address has one.
    let route = Route {
        destination_mac: SOME_MAC,
        mtu: config.underlay_mtu,
        source_mac: SOME_MAC,
        egress: device,
    };
    for any in [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ] {
        if let Ok(net) = IpNet::new(any, 0) {
            tables.routes.insert(prefix_key(net), Ok(route));
        }
    }
    tables.config = config;
    tables.now.set(weir_datapath::clock::now().get());
    tables
}
