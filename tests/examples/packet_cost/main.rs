// SPDX-License-Identifier: Apache-2.0
//! Measures what a packet costs in the loaded programs, for `cargo xtask bench packets`. Needs root; works in
//! namespaces of its own and leaves nothing behind. Prints a line of JSON for each case.

mod features;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use weir_abi::endpoint::flags::READY;
use weir_abi::{Address, DatapathConfig, EndpointId, EndpointRow, Identity, IfIndex, MacAddress};
use weir_datapath::{Datapath, Hook, Loader, MapSizes, PinRoot, Program, TestRun, per_packet};
use weir_net::mount;
use weir_net::netns::{Namespace, enter_new};
use weir_net::{LinkChange, Netlink};
use weir_tests::mutate::Numbers;

/// The loopback interface, which stands for every pod's link: a test run redirects nowhere.
const LINK: u32 = 1;
/// A packet loses one hop with each run in a row, so that many fit.
const IN_A_ROW: u32 = 200;
const ROUNDS: usize = 500;
/// Connections, each two entries, for the table that does not fit into the caches.
const CONNECTIONS: usize = 250_000;
/// New flows that are measured first.
const FEW: usize = 2_000;
const CLIENTS: u16 = 8;
const REDIRECT: i32 = 7;

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

fn main() -> Result<()> {
    enter_new(&[Namespace::Network, Namespace::Mount]).context("namespaces need root")?;
    mount::bpffs(Path::new("/sys/fs/bpf"))?;
    let mut netlink = Netlink::open()?;
    let link = netlink.require_link("lo")?.index;
    netlink.change_link(link, &LinkChange::up())?;

    for family in [Family::V4, Family::V6] {
        let root = PinRoot::new(Path::new("/sys/fs/bpf").join(family.name()));
        let sizes = MapSizes::from_config(&BTreeMap::from([("flows".to_owned(), 600_000)]))?;
        let datapath = Loader::new(root).with_sizes(sizes).load(&DatapathConfig {
            report_interval: 3600,
            ..DatapathConfig::DEFAULT
        })?;
        add_pods(&datapath, family)?;
        measure(&datapath, family)?;
    }
    Ok(())
}

fn add_pods(datapath: &Datapath, family: Family) -> Result<()> {
    for (pod, id) in (0..=CLIENTS).zip(1..) {
        let row = EndpointRow {
            ifindex: IfIndex(LINK),
            identity: Identity::FIRST_POD,
            id: EndpointId(id),
            flags: READY,
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            ..EndpointRow::default()
        };
        datapath.maps.endpoints.upsert(&family.pod(pod), &row)?;
    }
    Ok(())
}

fn measure(datapath: &Datapath, family: Family) -> Result<()> {
    let program = datapath.programs.get(Hook::FromContainer);
    let syn = family.frame(1, 40_000, true);
    let packet = family.frame(1, 40_000, false);
    let first = TestRun::new(&syn).device(IfIndex(LINK)).run(program)?;
    ensure!(
        first.verdict == REDIRECT,
        "the first packet is not forwarded (verdict {})",
        first.verdict
    );

    let hot = TestRun::new(&packet).device(IfIndex(LINK));
    let in_a_row = per_packet(program, &vec![hot.clone(); ROUNDS], IN_A_ROW)?;
    report("established", family, in_a_row, in_a_row);
    // Every flow is another packet, and every packet a run of its own, which begins with cold caches and reads the
    // clock. What that costs is taken off; it is the same flow's difference between the two ways to measure.
    let single = per_packet(program, &vec![hot; ROUNDS * 20], 1)?;
    let own_cost = single - in_a_row;

    features::measure(datapath, family, own_cost)?;

    let flows = flows();
    // The first ones find the table's memory in the caches, as a node does that opens a few thousand connections a
    // second; a quarter of a million in a row go through memory that nothing has touched before.
    let (few, many) = flows.split_at(FEW);
    let frames = |flows: &[(u16, u16)], syn| -> Vec<Vec<u8>> {
        let frame = |&(client, port)| family.frame(client, port, syn);
        flows.iter().map(frame).collect()
    };
    let new = single_runs(program, &frames(few, true))?;
    report("new", family, new - own_cost, new);
    let new = single_runs(program, &frames(many, true))?;
    report("new-250k", family, new - own_cost, new);
    let entries = datapath.maps.flows.count()?;
    ensure!(
        entries >= 2 * u64::try_from(CONNECTIONS)?,
        "only {entries} entries are in the flow table"
    );
    let random = single_runs(program, &frames(&shuffled(flows), false))?;
    report("established-500k", family, random - own_cost, random);
    Ok(())
}

fn report(case: &str, family: Family, nanoseconds: f64, measured: f64) {
    let line = serde_json::json!({
        "program": "from_container", "case": case, "family": family.number(), "ns": nanoseconds, "measured": measured,
    });
    anstream::println!("{line}");
}

/// (client, source port) of every connection.
fn flows() -> Vec<(u16, u16)> {
    (1..=CLIENTS)
        .flat_map(|client| (1024..u16::MAX).map(move |port| (client, port)))
        .take(CONNECTIONS)
        .collect()
}

fn shuffled(mut flows: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    let mut numbers = Numbers::new(7);
    for at in (1..flows.len()).rev() {
        flows.swap(at, numbers.below(at + 1));
    }
    flows
}

/// Mean over packets that are all of different flows.
fn single_runs(program: &Program, frames: &[Vec<u8>]) -> Result<f64> {
    let mut total = 0.0;
    for chunk in frames.chunks(1000) {
        let runs: Vec<TestRun<'_>> = chunk
            .iter()
            .map(|frame| TestRun::new(frame).device(IfIndex(LINK)))
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "a thousand at a time")]
        let length = chunk.len() as f64;
        total += per_packet(program, &runs, 1)? * length;
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    Ok(total / frames.len() as f64)
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::V4 => 4,
            Self::V6 => 6,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// Pod 0 is the server.
    fn pod(self, pod: u16) -> Address {
        let [high, low] = pod.to_be_bytes();
        match self {
            Self::V4 => Address::from_v4([10, 244, high, low]),
            Self::V6 => Address([0xfd, 0, 2, 0x44, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, high, low]),
        }
    }

    fn service(self, number: u32) -> Address {
        let [_, a, b, c] = number.to_be_bytes();
        match self {
            Self::V4 => Address::from_v4([10, 96 + a, b, c]),
            Self::V6 => Address([0xfd, 0, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c]),
        }
    }

    /// A TCP packet from a client to the server.
    fn frame(self, client: u16, port: u16, syn: bool) -> Vec<u8> {
        self.frame_to(client, port, self.pod(0), 80, syn)
    }

    /// A TCP packet from a client.
    fn frame_to(self, client: u16, source: u16, to: Address, port: u16, syn: bool) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], MacAddress::GATEWAY.0);
        let from = self.pod(client);
        let ip = match self {
            Self::V4 => ethernet.ipv4(from.v4_octets(), to.v4_octets(), 255),
            Self::V6 => ethernet.ipv6(from.0, to.0, 255),
        };
        let tcp = ip.tcp(source, port, 1, 64_240);
        let tcp = if syn { tcp.syn() } else { tcp.ack(1) };
        let mut frame = Vec::new();
        tcp.write(&mut frame, &[])
            .expect("a vector takes every byte");
        frame
    }
}
