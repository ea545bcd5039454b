// SPDX-License-Identifier: Apache-2.0
//! What a packet costs that the program at a driver turns around: a client's, through a node port with source NAT.

use anyhow::{Result, ensure};
use weir_abi::flow::{Action, Kind};
use weir_abi::{Address, FlowEntry, FlowKey, IfIndex, MacAddress, Port, Protocol, Seconds};
use weir_datapath::{Datapath, Programs, clock};
use weir_packet::checksum::{address_delta, port_delta};

use super::{Bench, Family, IN_A_ROW, LINK, ROUNDS};

const XDP_TX: i32 = 3;
/// Service addresses that stand for the node and for the backend elsewhere.
const NODE: u32 = 70_000;
const BACKEND: u32 = 70_001;
const CLIENT: u16 = 1;

/// A tuple: from there to here.
#[derive(Clone, Copy)]
struct Ends {
    from: (Address, u16),
    to: (Address, u16),
}

pub(crate) fn measure(bench: &Bench) -> Result<()> {
    let Bench {
        datapath, family, ..
    } = bench;
    let asked = Ends {
        from: (family.pod(CLIENT), 50_000),
        to: (family.service(NODE), 30_080),
    };
    let relayed = Ends {
        from: (family.service(NODE), 40_000),
        to: (family.service(BACKEND), 8_080),
    };
    // A packet is run again as the run before left it, so the relayed one has to become the first one again.
    follow(datapath, asked, relayed)?;
    follow(datapath, relayed, asked)?;
    let frame = family.frame_to(CLIENT, asked.from.1, asked.to.0, asked.to.1, false);
    let mut total = 0_u64;
    for _ in 0..ROUNDS {
        total += u64::from(one(&datapath.programs, &frame)?);
    }
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mean = total as f64 / ROUNDS as f64;
    report(*family, mean);
    Ok(())
}

/// Mean nanoseconds of one packet in a row of its like.
fn one(programs: &Programs, frame: &[u8]) -> Result<u32> {
    let output = programs.run_at_driver(IfIndex(LINK), frame, IN_A_ROW)?;
    ensure!(output.verdict == XDP_TX, "verdict {}", output.verdict);
    Ok(output.nanoseconds)
}

/// An entry that makes a packet of these ends one of those, and sends it out again.
fn follow(datapath: &Datapath, from: Ends, to: Ends) -> Result<()> {
    let mut key = FlowKey::new(from.from.0, from.to.0, Protocol::TCP);
    let port = |ends: Ends| [Port::new(ends.from.1), Port::new(ends.to.1)];
    let [source, destination] = port(from);
    key.set_ports(source, destination);
    let [translated_source_port, translated_destination_port] = port(to);
    let now = clock::now();
    let entry = FlowEntry {
        expires: Seconds(now.get() + 3_600),
        last_report: now,
        kind: Kind(0)
            .with(Kind::TRANSLATE_SOURCE)
            .with(Kind::TRANSLATE_DESTINATION),
        action: Action::ToDevice as u8,
        ingress: IfIndex(LINK),
        egress: IfIndex(LINK),
        mtu: 1_500,
        source_mac: MacAddress([2, 0, 0, 0, 0, 1]),
        destination_mac: MacAddress([2, 0, 0, 0, 0, 2]),
        translated_source: to.from.0,
        translated_destination: to.to.0,
        translated_source_port,
        translated_destination_port,
        address_delta: address_delta([&from.from.0, &from.to.0], [&to.from.0, &to.to.0]),
        port_delta: port_delta(port(from), port(to)),
        ..FlowEntry::default()
    };
    datapath.maps.flows.upsert(&key, &entry)?;
    Ok(())
}

fn report(family: Family, nanoseconds: f64) {
    let line = serde_json::json!({
        "program": Programs::AT_DRIVER, "case": "nodeport-established", "family": family.number(),
        "ns": nanoseconds, "measured": nanoseconds,
    });
    anstream::println!("{line}");
}
