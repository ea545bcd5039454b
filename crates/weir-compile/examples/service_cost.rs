// SPDX-License-Identifier: Apache-2.0
//! What many services cost: time of a full update, of one changed endpoint, of a restart, and memory.
//!
//! `cargo run --release -p weir-compile --example service_cost -- [SERVICES] [ENDPOINTS] [TABLE]`

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use weir_abi::Protocol;
use weir_compile::service::{ServiceCompiler, ServiceRows, ServiceSettings, TableSize, plan};
use weir_model::{
    Change, Endpoint, EndpointSlice, Family, NodeName, PodName, Service, ServiceName, ServicePort,
    ServiceRef, ServiceSelector, ServiceType, SlicePort, SliceRef, TargetPort, Touched,
    TrafficPolicy, World, Zone,
};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| {
        let text = arguments.next();
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (services, endpoints, table) = (number(10_000), number(10), number(0));
    let mut world = World::default();
    let start = memory();
    for index in 0..services {
        world.apply(Change::Service(Arc::new(service(index))));
        let slice = slice(index, 0..endpoints);
        world.apply(Change::EndpointSlice(Arc::new(slice)));
    }
    println!("world: {} KiB", memory() - start);
    let begin = Instant::now();
    let copy = world.clone();
    println!(
        "a copy of it: {:?}, {} KiB in all",
        begin.elapsed(),
        memory() - start
    );
    drop(copy);
    let settings = settings(table);

    let before = memory();
    let mut compiler = ServiceCompiler::new();
    let begin = Instant::now();
    let delta = compiler.update(&world, &Touched::everything(), &settings);
    println!(
        "full update: {:?}, {} operations, {} KiB with them, {} problems",
        begin.elapsed(),
        delta.operations.len(),
        memory() - before,
        compiler.problems().count()
    );
    let mut kernel = ServiceRows::default();
    for operation in &delta.operations {
        kernel.apply(operation);
    }
    drop(delta);
    println!("compiler and a copy of its rows: {} KiB", memory() - before);
    compiler.executed();

    let mut times = Vec::new();
    for step in 0..1000 {
        let index = step * 7919 % services;
        let change = Change::EndpointSlice(Arc::new(slice(index, step % 2..endpoints)));
        let begin = Instant::now();
        let mut touched = Touched::default();
        world.apply_noting(change, &mut touched);
        let delta = compiler.update(&world, &touched, &settings);
        times.push(begin.elapsed());
        for operation in &delta.operations {
            kernel.apply(operation);
        }
        compiler.executed();
    }
    times.sort_unstable();
    println!(
        "one endpoint: median {:?}, 99 % {:?}, worst {:?}",
        times[500], times[990], times[999]
    );

    let begin = Instant::now();
    let mut check = compiler.rows().check();
    for (key, row) in &kernel.frontends {
        check.frontend(key, row);
    }
    for (place, row) in kernel.backends.iter() {
        check.backend(place, row);
    }
    for (service, all) in kernel.service_backends.iter() {
        for one in all.iter() {
            check.service_backend(&one.key(service), &one.row());
        }
    }
    for (number, entries) in &kernel.maglev {
        check.maglev(*number, entries);
    }
    for address in &kernel.addresses {
        check.address(address);
    }
    println!("check: {:?}, clean: {}", begin.elapsed(), check.is_clean());
    let begin = Instant::now();
    let repairs = plan(&kernel, compiler.rows()).len();
    println!(
        "full comparison: {:?}, {repairs} operations",
        begin.elapsed()
    );

    let begin = Instant::now();
    let mut restored = ServiceCompiler::restore(kernel);
    let delta = restored.update(&world, &Touched::everything(), &settings);
    println!(
        "restart: {:?}, {} operations",
        begin.elapsed(),
        delta.operations.len()
    );
    drop(compiler);
    drop(delta);
    println!("all: {} KiB of {} KiB", memory() - start, memory());
}

fn settings(table: u32) -> ServiceSettings {
    ServiceSettings {
        node: node(0),
        zone: Zone::new("a").ok(),
        node_addresses: vec![IpAddr::from([172, 18, 0, 2])],
        maglev: TableSize::new(table),
        frontends_size: 65_536,
        backends_size: 262_144,
        service_backends_size: 262_144,
        source_ranges_size: 16_384,
        maglev_size: table * 11_000,
        keep_unknown: false,
    }
}

fn node(index: u32) -> NodeName {
    NodeName::new(&format!("node-{}", index % 3)).expect("a legal name")
}

fn service(index: u32) -> Service {
    let name = format!("service-{index}");
    Service {
        reference: ServiceRef::new("default", &name).expect("legal names"),
        created: 1_700_000_000 + i64::from(index),
        kind: ServiceType::ClusterIp,
        headless: false,
        exclusion: None,
        ports: [ServicePort {
            name: "http".into(),
            port: 80,
            protocol: Protocol::TCP,
            target: TargetPort::Number(8080),
            node_port: None,
        }]
        .into(),
        selector: ServiceSelector::new([("app", name)]).expect("a legal label"),
        cluster_ips: [IpAddr::from(Ipv4Addr::from(0x0a60_0000 + index))].into(),
        external_ips: Box::default(),
        ingress: Box::default(),
        source_ranges: Box::default(),
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity_seconds: None,
        publish_not_ready: false,
        health_check_port: None,
        allocate_node_ports: true,
        distribution: None,
        topology_mode: None,
    }
}

fn slice(index: u32, range: std::ops::Range<u32>) -> EndpointSlice {
    let nodes: Vec<_> = (0..3).map(node).collect();
    let zone = Zone::new("a").ok();
    let endpoint = |number: u32| Endpoint {
        address: Ipv4Addr::from(0x0af4_0000 + index * 16 + number).into(),
        ready: true,
        serving: true,
        terminating: false,
        node: nodes.get((number % 3) as usize).cloned(),
        zone: zone.clone(),
        hints: None,
        pod: PodName::new(&format!("service-{index}-7d4b9c6f58-{number:05}")).ok(),
    };
    EndpointSlice {
        reference: SliceRef::new("default", &format!("service-{index}-x7k2p")).expect("legal"),
        service: ServiceName::new(&format!("service-{index}")).expect("a legal name"),
        family: Family::V4,
        ports: [SlicePort {
            name: "http".into(),
            protocol: Protocol::TCP,
            port: Some(8080),
        }]
        .into(),
        endpoints: range.map(endpoint).collect(),
    }
}

/// Resident memory, KiB.
fn memory() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}
