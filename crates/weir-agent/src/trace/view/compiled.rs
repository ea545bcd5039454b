// SPDX-License-Identifier: Apache-2.0
//! A node's rows as they should be by what is known here, for kernels that cannot be asked.

use std::net::IpAddr;
use std::sync::Arc;

use weir_abi::map::{self, MapInfo};
use weir_abi::{Address, DatapathConfig, EndpointId, IfIndex, MacAddress};
use weir_compile::exempt::default_exempt;
use weir_compile::policy::{PolicyCompiler, PolicyInput, PolicyLimits};
use weir_compile::service::{ServiceCompiler, ServiceSettings, TableSize};
use weir_compile::{LocalEndpoint, NodeIndices, RoutingMode, Settings, compile};
use weir_datapath::Maps;
use weir_model::{IdentityTable, LabelSet, Node, NodeName, Pod, Touched, World, Zone};

use super::tables::tables;
use super::{Meanings, SOME_DEVICE, View};
use crate::config;
use crate::shared::Shared;
use crate::snapshot::Snapshot;

/// Stands for `weir_host` of another node.
const SOME_HOST: IfIndex = IfIndex(3);
/// The first link that stands for one of a pod.
const FIRST_LINK: u32 = 1_000_000;

impl View {
    /// Any node's, as it should be by what is known here.
    pub(in crate::trace) fn compiled(
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
}

/// Sizes of the maps here; other nodes are taken to be configured alike.
struct Sizes<'a>(Option<&'a Maps>);

impl Sizes<'_> {
    fn of(&self, map: &MapInfo) -> u32 {
        let table = self.0.and_then(|maps| maps.by_name(map.name));
        table.map_or(map.default_size, |table| table.info().size)
    }
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
