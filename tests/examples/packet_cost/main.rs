// SPDX-License-Identifier: Apache-2.0
//! Measures what a packet costs in the loaded programs, for `cargo xtask bench packets`. Needs root; works in
//! namespaces of its own and leaves nothing behind. Prints a line of JSON for each case.

mod compared;
mod driver;
mod features;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use weir_abi::counter::Counter;
use weir_abi::endpoint::flags::READY;
use weir_abi::{Address, DatapathConfig, EndpointId, EndpointRow, Identity, IfIndex, MacAddress};
use weir_datapath::{
    Datapath, EventSource, Hook, Loader, MapSizes, PinRoot, Program, TestRun, per_packet,
};
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
/// Packets between two looks at the ring, which has room for more than three times as many events.
const EVENTS: usize = 1_000;
const REDIRECT: i32 = 7;
const DROP: i32 = 2;

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
        let bench = Bench::new(datapath, family)?;
        measure(&bench)?;
        let lost = bench.datapath.maps.counter(Counter::EventsLost)?;
        ensure!(
            lost == 0,
            "{lost} events found no room: what they cost was not measured"
        );
    }
    Ok(())
}

/// The loaded programs, and the reader of their events, which keeps up: a full ring refuses an event for less than it
/// costs.
struct Bench {
    datapath: Datapath,
    family: Family,
    events: RefCell<EventSource>,
}

impl Bench {
    fn new(datapath: Datapath, family: Family) -> Result<Self> {
        let events = RefCell::new(EventSource::open(&datapath.maps)?);
        Ok(Self {
            datapath,
            family,
            events,
        })
    }

    fn program(&self) -> &Program {
        self.datapath.programs.get(Hook::FromContainer)
    }

    /// Sends one packet, which must meet this verdict.
    fn expect(&self, frame: &[u8], verdict: i32) -> Result<()> {
        let answer = TestRun::new(frame)
            .device(IfIndex(LINK))
            .run(self.program())?;
        ensure!(
            answer.verdict == verdict,
            "verdict {} for {frame:x?}",
            answer.verdict
        );
        Ok(())
    }

    /// Mean of a packet that follows others like it, as in a burst.
    fn in_a_row(&self, frame: &[u8]) -> Result<f64> {
        let runs = vec![TestRun::new(frame).device(IfIndex(LINK)); ROUNDS];
        self.mean(&runs, IN_A_ROW)
    }

    /// Mean over packets each of which is a run of its own.
    fn alone(&self, frames: &[Vec<u8>]) -> Result<f64> {
        let runs = frames
            .iter()
            .map(|frame| TestRun::new(frame).device(IfIndex(LINK)));
        self.mean(&runs.collect::<Vec<_>>(), 1)
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    fn mean(&self, runs: &[TestRun<'_>], repeat: u32) -> Result<f64> {
        let mut total = 0.0;
        for chunk in runs.chunks(EVENTS / repeat as usize) {
            self.events.borrow_mut().drain(usize::MAX, |_| {});
            total += per_packet(self.program(), chunk, repeat)? * chunk.len() as f64;
        }
        Ok(total / runs.len() as f64)
    }

    fn report(&self, case: &str, nanoseconds: f64, measured: f64) {
        let line = serde_json::json!({
            "program": "from_container", "case": case, "family": self.family.number(), "ns": nanoseconds,
            "measured": measured,
        });
        anstream::println!("{line}");
    }

    /// What one side costs against the other one.
    fn report_ratio(&self, case: &str, [one, other]: [f64; 2]) {
        let line = serde_json::json!({
            "program": "from_container", "case": case, "family": self.family.number(), "ratio": one / other,
            "sides": [one, other],
        });
        anstream::println!("{line}");
    }
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

fn measure(bench: &Bench) -> Result<()> {
    let Bench {
        datapath, family, ..
    } = bench;
    let packet = family.frame(1, 40_000, false);
    bench.expect(&family.frame(1, 40_000, true), REDIRECT)?;
    let in_a_row = bench.in_a_row(&packet)?;
    bench.report("established", in_a_row, in_a_row);
    // Every flow is another packet, and every packet a run of its own, which begins with cold caches and reads the
    // clock. What that costs is taken off; it is the same flow's difference between the two ways to measure.
    let own_cost = bench.alone(&vec![packet; ROUNDS * 20])? - in_a_row;

    features::measure(bench, own_cost)?;
    compared::policy(bench)?;
    driver::measure(bench)?;

    let flows = flows();
    // The first ones find the table's memory in the caches, as a node does that opens a few thousand connections a
    // second; a quarter of a million in a row go through memory that nothing has touched before.
    let (few, many) = flows.split_at(FEW);
    let frames = |flows: &[(u16, u16)], syn| -> Vec<Vec<u8>> {
        let frame = |&(client, port)| family.frame(client, port, syn);
        flows.iter().map(frame).collect()
    };
    let new = bench.alone(&frames(few, true))?;
    bench.report("new", new - own_cost, new);
    let new = bench.alone(&frames(many, true))?;
    bench.report("new-250k", new - own_cost, new);
    let entries = datapath.maps.flows.count()?;
    ensure!(
        entries >= 2 * u64::try_from(CONNECTIONS)?,
        "only {entries} entries are in the flow table"
    );
    let random = bench.alone(&frames(&shuffled(flows), false))?;
    bench.report("established-500k", random - own_cost, random);
    compared::changes(bench)
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
