// SPDX-License-Identifier: Apache-2.0
//! Ten thousand services with ten endpoints each.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::{Value, json};
use weir_abi::service::FrontendKey;
use weir_abi::{Address, Port, Protocol};
use weir_datapath::Maps;

use super::node::{pinned_maps, wait, with_node};
use super::process::{Agent, percentile, put, realized, revise};

const SERVICES: usize = 10_000;
const ENDPOINTS: u32 = 10;
const CHANGES: usize = 300;
/// Slices of services with these numbers change, and have a file each.
const CHANGING: usize = 20;
/// Connections through one service before the other has its turn, and turns.
const CONNECTIONS: u32 = 2000;
const TURNS: usize = 21;
const MAPS: &str =
    "--map-sizes=flows=4096,ipcache=32768,frontends=32768,backends=262144,service_backends=262144";

fn address(number: usize) -> Ipv4Addr {
    let [.., a, b] = number.to_be_bytes();
    Ipv4Addr::new(10, 100, a, b)
}

fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("s{number}"), "namespace": "shop", "uid": format!("u{number}")},
        "spec": {"clusterIP": address(number), "clusterIPs": [address(number)], "ports": [{"port": 80, "protocol": "UDP", "targetPort": 8080}]},
    })
}

fn slice(number: usize, endpoints: u32) -> Value {
    let endpoints = (0..endpoints).map(|place| {
        let pod = (number * 7 + place as usize) % 250 + 2;
        json!({"addresses": [format!("10.244.2.{pod}")], "nodeName": "n2", "conditions": {"ready": true}})
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("s{number}-a"), "namespace": "shop",
                     "labels": {"kubernetes.io/service-name": format!("s{number}")}},
        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "UDP"}], "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

/// Backends that a service has in the kernel.
fn backends(maps: &Maps, number: usize) -> u32 {
    let key = FrontendKey::new(
        Address::from_v4(address(number).octets()),
        Port::new(80),
        Protocol::UDP,
    );
    maps.frontends
        .get(&key)
        .unwrap()
        .map_or(0, |row| row.internal.count)
}

/// Nanoseconds that a datagram socket takes to be connected, which is where it is translated.
fn connect(to: usize) -> f64 {
    let to = SocketAddr::from((address(to), 80));
    let begin = Instant::now();
    for _ in 0..CONNECTIONS {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(to).unwrap();
    }
    begin.elapsed().as_secs_f64() * 1e9 / f64::from(CONNECTIONS)
}

/// Has this process be in a control group while something is done.
fn within<T>(group: &Path, work: impl FnOnce() -> T) -> T {
    let root = weir_net::cgroup::mount_point().unwrap();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap()
        .to_owned();
    let join = |group: &Path| {
        fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    };
    join(group);
    let done = work();
    join(&root.join(own));
    done
}

#[test]
#[ignore = "measures, and takes minutes"]
fn what_services_cost() {
    with_node(|node| {
        let services = (0..SERVICES).map(service);
        let slices = (CHANGING..SERVICES).map(|number| slice(number, ENDPOINTS));
        let mut all = String::new();
        for one in services.chain(slices) {
            let _ = writeln!(all, "---\n{one}");
        }
        put(node, "services.yaml", &all);
        for number in 0..CHANGING {
            put(
                node,
                &format!("s{number}.yaml"),
                &slice(number, ENDPOINTS).to_string(),
            );
        }
        revise(node, 1);
        let begin = Instant::now();
        let agent = Agent::start(node, &[MAPS]);
        wait("the agent", || realized(node, 1));
        let maps = pinned_maps();
        assert_eq!(backends(&maps, SERVICES - 1), ENDPOINTS);
        println!(
            "{SERVICES} services with {ENDPOINTS} endpoints, from the start of the agent to the last row: {:?}, {:.1} MB",
            begin.elapsed(),
            agent.resident_mb()
        );

        let mut times: Vec<_> = (0..CHANGES)
            .map(|round| {
                let number = round % CHANGING;
                let fewer = u32::from(round / CHANGING % 2 == 1);
                let right = ENDPOINTS - 1 - fewer;
                put(
                    node,
                    &format!("s{number}.yaml"),
                    &slice(number, right).to_string(),
                );
                let begin = Instant::now();
                revise(node, 2 + round as u64);
                while backends(&maps, number) != right {
                    assert!(begin.elapsed() < Duration::from_secs(10), "{number}");
                    thread::yield_now();
                }
                begin.elapsed()
            })
            .collect();
        let half = percentile(&mut times, 50);
        println!(
            "a changed endpoint is in the kernel after {half:?} (median), {:?} (p99), {:.1} MB",
            percentile(&mut times, 99),
            agent.resident_mb()
        );

        let mut turns = within(&node.cgroup, || {
            let turn = |_| connect(SERVICES - 1) / connect(0);
            (0..TURNS).map(turn).collect::<Vec<f64>>()
        });
        let known = maps.socket_services.entries().unwrap();
        assert!(!known.is_empty(), "no socket was translated");
        turns.sort_unstable_by(f64::total_cmp);
        println!(
            "to connect through the last service takes {:.3} times what it takes through the first",
            turns[TURNS / 2]
        );
    });
}
