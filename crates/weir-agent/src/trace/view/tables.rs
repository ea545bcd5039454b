// SPDX-License-Identifier: Apache-2.0
//! Rows as the tables that decisions in memory are made over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weir_abi::ipcache::PrefixKey;
use weir_abi::{DatapathConfig, IfIndex, MacAddress};
use weir_compile::Rows;
use weir_compile::prefix::prefix_key;
use weir_compile::service::{ServiceRows, address_row};
use weir_verdict::Route;
use weir_verdict::memory::MemoryTables;

const SOME_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

pub(super) fn tables(
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
