// SPDX-License-Identifier: Apache-2.0
//! Whether drivers forward changes nothing: two nodes see the same packets, one of them with the program at its
//! driver, and send the same ones and remember the same flows.

use proptest::prelude::*;
use weir_abi::Slot;
use weir_abi::counter::Counter;
use weir_abi::flow::Kind;
use weir_datapath::Hook;
use weir_packet::memory::MemoryPacket;
use weir_verdict::memory::MemoryTables;
use weir_verdict::{Redirect, Verdict, Workspace, accelerate};

use super::LINKS;
use super::judge::faults;
use super::properties::run;
use super::relayed::{ACK, Mode, Relayed, SYN};
use super::table::{direct_rows, rows};

/// The packet at the driver, and behind it where it is passed on; tells whether it was.
fn run_accelerated(tables: &MemoryTables, frame: &[u8]) -> (Verdict, Vec<u8>, bool) {
    let mut packet = MemoryPacket::new(frame.to_vec());
    let mut workspace = Workspace::default();
    let fate = accelerate::forward(&mut packet, tables, LINKS.underlay, &mut workspace);
    let verdict = fate.verdict();
    if verdict == Verdict::Pass {
        assert_eq!(packet.bytes(), frame, "passed on as it came");
        let (verdict, sent) = run(tables, Hook::FromNetdev, LINKS.underlay, frame);
        return (verdict, sent, false);
    }
    // All that a driver can be asked for.
    assert_eq!(verdict, Verdict::Redirect(Redirect::Egress(LINKS.underlay)));
    (verdict, packet.bytes().to_vec(), true)
}

/// One packet on both nodes; answers what was sent, and whether the driver sent it.
fn both(
    plain: &MemoryTables,
    accelerated: &MemoryTables,
    frame: &[u8],
) -> Result<(Vec<u8>, bool), TestCaseError> {
    let (expected, sent) = run(plain, Hook::FromNetdev, LINKS.underlay, frame);
    let (verdict, bytes, driven) = run_accelerated(accelerated, frame);
    prop_assert_eq!(verdict, expected);
    prop_assert_eq!(&bytes, &sent);
    prop_assert_eq!(accelerated.flows(), plain.flows());
    if matches!(verdict, Verdict::Redirect(_)) {
        prop_assert_eq!(faults(&sent), Vec::<String>::new());
    }
    Ok((sent, driven))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn connections_are_forwarded_alike(
        mode in prop::sample::select(Mode::ALL.to_vec()),
        family in 0..2_usize,
        steps in prop::collection::vec(
            (any::<bool>(), 1000..1003_u16, 1..6_u8, any::<prop::sample::Index>()),
            1..40,
        ),
    ) {
        let (plain, accelerated) = (mode.tables(&LINKS), mode.tables(&LINKS));
        let mut now = 1000;
        for (is_tcp, port, packets, change) in steps {
            let connection = Relayed { family, is_tcp, port };
            plain.now.set(now);
            accelerated.now.set(now);
            for packet in 0..packets {
                let first = packet == 0;
                let question = connection.question(if first { SYN } else { ACK });
                // The first packets after a change are decided behind the driver.
                let settled = packet > 1;
                let (sent, driven) = both(&plain, &accelerated, &question)?;
                prop_assert!(driven || !settled, "a question is forwarded by the driver");
                let flags = if first { SYN | ACK } else { ACK };
                if let Some(answer) = connection.answer(mode, &sent, flags) {
                    let (_, driven) = both(&plain, &accelerated, &answer)?;
                    prop_assert!(driven || !settled, "an answer is forwarded by the driver");
                }
            }
            match change.index(5) {
                0 => [&plain, &accelerated].map(|tables| tables.bump(Slot::ALL)).into_iter().collect(),
                1 => now += 100,
                2 => {
                    // Half of a connection, which the next packet puts back.
                    let flows = plain.flows();
                    let halves = flows.iter().filter(|(_, entry)| !entry.kind.contains(Kind::REPLY));
                    let keys: Vec<_> = halves.map(|(key, _)| *key).collect();
                    let key = keys[change.index(keys.len())];
                    plain.evict(&key);
                    accelerated.evict(&key);
                }
                _ => {}
            }
        }
        prop_assert_eq!(&accelerated.packets, &plain.packets);
        accelerated.counters.borrow_mut().remove(&(Counter::Accelerated as u32));
        prop_assert_eq!(&accelerated.counters, &plain.counters);
    }
}

/// Every packet of the tables: hostile ones, errors, fragments and all that is not the driver's business.
#[test]
fn the_packet_tables_end_alike() -> Result<(), TestCaseError> {
    for mode in Mode::ALL {
        for family in 0..2 {
            let (plain, accelerated) = (mode.tables(&LINKS), mode.tables(&LINKS));
            plain.now.set(1000);
            accelerated.now.set(1000);
            let rows = match mode {
                Mode::Native => rows(&LINKS, family, true),
                Mode::Tunnel => rows(&LINKS, family, false),
                Mode::NativeDirect => direct_rows(&LINKS, family, true),
                Mode::TunnelDirect => direct_rows(&LINKS, family, false),
            };
            for row in rows {
                if row.hook == Hook::FromNetdev {
                    both(&plain, &accelerated, &row.frame)?;
                } else {
                    for tables in [&plain, &accelerated] {
                        run(tables, row.hook, row.interface, &row.frame);
                    }
                }
            }
        }
    }
    Ok(())
}
