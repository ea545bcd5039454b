// SPDX-License-Identifier: Apache-2.0
//! Packets through the loaded programs and through the user-space build of the same decisions.

#[cfg(test)]
#[path = "support/both.rs"]
mod both;
#[cfg(test)]
#[path = "support/judge.rs"]
mod judge;
#[cfg(test)]
#[path = "support/kernel_world.rs"]
mod kernel_world;
#[cfg(test)]
#[path = "support/node.rs"]
mod node;
#[cfg(test)]
#[path = "support/raw.rs"]
mod raw;
#[cfg(test)]
#[path = "support/services.rs"]
mod services;
#[cfg(test)]
#[path = "support/table.rs"]
mod table;
#[cfg(test)]
#[path = "support/tuple.rs"]
mod tuple;
#[cfg(test)]
#[path = "support/veth.rs"]
mod veth;
#[cfg(test)]
#[path = "support/world.rs"]
mod world;

#[cfg(test)]
mod kernel {
    use std::collections::BTreeMap;

    use weir_abi::config::features;
    use weir_abi::event::kind;
    use weir_abi::{DropReason, IfIndex, MacAddress, Slot};
    use weir_datapath::{DryRun, EventSource, Hook};
    use weir_verdict::memory::MemoryTables;
    use weir_verdict::{Redirect, Verdict};

    use super::both::Both;
    use super::node::{loader, on_a_node};
    use super::raw::{Ip, TCP, UDP, ethernet, icmp, icmp_of, tcp, udp, vxlan};
    use super::table::{Row, direct_rows, rows};
    use super::tuple::tuple;
    use super::world::{
        Links, NEIGHBOUR, NODE, OTHER_NODE, POD_A, POD_B, REMOTE, WORLD, ip, pod_mac,
    };

    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const ACK: u8 = 16;

    /// Runs a test on both sides, in both routing modes.
    fn everywhere(test: impl Fn(&Both, &Links, bool) + Send + 'static) {
        on_a_node(move || {
            let links = Links::make();
            for native in [false, true] {
                test(&both(links.tables(native), "both"), &links, native);
            }
        });
    }

    /// Loads for the fixture; each name has maps of its own.
    fn both(tables: MemoryTables, name: &str) -> Both {
        let config = tables.config;
        let root = format!("/sys/fs/bpf/{name}{:x}", config.features);
        let datapath = loader(&root)
            .load(&config)
            .unwrap_or_else(|error| panic!("{error}"));
        Both::new(datapath, tables)
    }

    fn from_pod(last: u8, packet: &[u8]) -> Vec<u8> {
        ethernet(pod_mac(last), MacAddress::GATEWAY, packet)
    }

    fn tcp_packet(from: &str, to: &str, ports: [u16; 2], flags: u8) -> Vec<u8> {
        Ip::new(from, to, TCP).packet(&tcp(from, to, ports, flags, b"data"))
    }

    /// Every packet of the table ends as expected, leaves both sides equal, and is right where it is sent on.
    #[test]
    fn the_packet_table() {
        everywhere(|both, links, native| {
            let (mut count, mut failures) = (0, Vec::new());
            for family in 0..2 {
                for row in rows(links, family, native) {
                    count += 1;
                    let ended = both.compare(row.hook, row.interface, &row.frame);
                    let checked =
                        ended.and_then(|(verdict, sent)| row.check(links, verdict, &sent));
                    if let Err(problem) = checked {
                        let family = [4, 6][family];
                        let name = row.name;
                        failures.push(format!("IPv{family}, native {native}: {name}: {problem}"));
                    }
                }
            }
            let wrong = failures.len();
            assert!(
                failures.is_empty(),
                "{wrong} of {count}:\n{}",
                failures.join("\n")
            );
            assert!(count >= 120, "{count} packets");
        });
    }

    /// The same where backends on other nodes answer clients directly.
    #[test]
    fn the_packet_table_of_direct_return() {
        on_a_node(|| {
            let links = Links::make();
            let mut failures = Vec::new();
            for native in [false, true] {
                let both = both(links.direct_tables(native), "direct");
                for family in 0..2 {
                    for row in direct_rows(&links, family, native) {
                        let ended = both.compare(row.hook, row.interface, &row.frame);
                        let checked =
                            ended.and_then(|(verdict, sent)| row.check(&links, verdict, &sent));
                        if let Err(problem) = checked {
                            let (family, name) = ([4, 6][family], row.name);
                            failures
                                .push(format!("IPv{family}, native {native}: {name}: {problem}"));
                        }
                    }
                }
            }
            assert!(failures.is_empty(), "{}", failures.join("\n"));
        });
    }

    /// A dry run of every packet of the table, before it is sent: it says what then becomes of it, and why.
    #[test]
    fn a_dry_run_tells_what_becomes_of_a_packet() {
        everywhere(|both, links, native| {
            let config = both.tables.config;
            let root = format!("/sys/fs/bpf/both{:x}", config.features);
            let dry = DryRun::new(loader(&root), config);
            let ask = |row: &Row| dry.run(row.hook, row.interface, &row.frame).unwrap();
            both.thorough.set(false);
            let mut wrong = Vec::new();
            for family in 0..2 {
                for row in rows(links, family, native) {
                    let told = ask(&row);
                    let (verdict, sent) = both.run(row.name, row.hook, row.interface, &row.frame);
                    let (code, reason) = match verdict {
                        Verdict::Pass => (0, None),
                        Verdict::Drop(reason) => (2, Some(reason)),
                        Verdict::Redirect(_) => (7, None),
                        Verdict::Answer(reason, _) => (7, Some(reason)),
                    };
                    let told_reason = (told.record.kind == kind::DROP)
                        .then(|| DropReason::from_number(told.record.subtype).unwrap());
                    let same_packet = code == 2 || told.packet == sent;
                    if (told.verdict, told_reason, same_packet) != (code, reason, true) {
                        let (name, family) = (row.name, [4, 6][family]);
                        wrong.push(format!(
                            "IPv{family}, native {native}: {name}: {verdict:?}, told {} {told_reason:?}, same packet {same_packet}",
                            told.verdict
                        ));
                    }
                }
            }
            assert!(wrong.is_empty(), "{}", wrong.join("\n"));

            // Now the tables are full of what the packets left: whoever writes is seen.
            let maps = &both.datapath.maps;
            let state = || {
                maps.raw().map(|table| {
                    let ring = table.info().map.name == weir_abi::map::EVENTS.name;
                    let rows = if ring {
                        Vec::new()
                    } else {
                        table.entries().unwrap()
                    };
                    // A table that forgets what was not used for long keeps no order.
                    rows.into_iter().collect::<BTreeMap<_, _>>()
                })
            };
            let mut events = EventSource::open(maps).unwrap();
            let before = state();
            for family in 0..2 {
                for row in rows(links, family, native) {
                    ask(&row);
                }
            }
            for (table, (before, after)) in maps.raw().iter().zip(before.iter().zip(state())) {
                let name = table.info().map.name;
                for (key, row) in before {
                    assert_eq!(after.get(key), Some(row), "{name} {key:x?}");
                }
                assert_eq!(before.len(), after.len(), "{name}");
            }
            assert_eq!(events.drain(10, |_| {}), 0);
        });
    }

    #[test]
    fn a_connection_is_decided_again_after_changes_and_evictions() {
        everywhere(|both, links, _| {
            for (a, b) in POD_A.into_iter().zip(POD_B) {
                let from_a = |name, flags| {
                    let frame = from_pod(0x0a, &tcp_packet(a, b, [40_000, 80], flags));
                    let (verdict, _) = both.run(name, Hook::FromContainer, links.pod_a, &frame);
                    assert_eq!(
                        verdict,
                        Verdict::Redirect(Redirect::Peer(links.pod_b)),
                        "{name}"
                    );
                };
                let from_b = |name, flags| {
                    let frame = from_pod(0x0b, &tcp_packet(b, a, [80, 40_000], flags));
                    let (verdict, _) = both.run(name, Hook::FromContainer, links.pod_b, &frame);
                    assert_eq!(
                        verdict,
                        Verdict::Redirect(Redirect::Peer(links.pod_a)),
                        "{name}"
                    );
                };
                from_a("SYN", SYN);
                from_b("SYN, ACK", SYN | ACK);
                from_a("ACK", ACK);
                both.bump(Slot::of_address(&ip(b)));
                from_a("after a change", ACK);
                from_b("after a change", ACK);
                both.bump(Slot::ALL);
                from_b("after a change of everything", ACK);
                let flows = both.tables.flows();
                let key = flows.keys().find(|key| key.source == ip(a)).copied();
                both.evict(&key.unwrap());
                from_b("half of it evicted", ACK);
                from_a("half of it evicted", ACK);
                both.evict(&key.unwrap().reversed());
                from_b("the other half evicted", ACK);
                both.evict(&key.unwrap());
                both.evict(&key.unwrap().reversed());
                from_b("all of it evicted", ACK);
                from_a("all of it evicted", ACK);
                both.evict(&key.unwrap());
                from_a("SYN once more, its half evicted", SYN);
                from_b("an answer to that", SYN | ACK);
                from_a("FIN", FIN | ACK);
                from_b("FIN", FIN | ACK);
                from_a("opened again", SYN);
            }
        });
    }

    /// What goes out comes back to the pod that sent it, with its own tuple.
    #[test]
    fn masqueraded_connections_and_their_answers() {
        everywhere(|both, links, _| {
            for family in 0..2 {
                let (a, node, world) = (POD_A[family], NODE[family], WORLD[family]);
                let echo = icmp_of(family);
                let [request, reply] = [[8, 0], [128, 129]][family];
                for protocol in [TCP, UDP, echo] {
                    let out = match protocol {
                        TCP => tcp(a, world, [40_000, 443], SYN, b"data"),
                        UDP => udp(a, world, [40_000, 443], b"data"),
                        _ => icmp(a, world, [request, 0], [0x9c, 0x40, 0, 1], b"data"),
                    };
                    let out = from_pod(0x0a, &Ip::new(a, world, protocol).packet(&out));
                    let name = format!("protocol {protocol}");
                    let (_, sent) = both.run(&name, Hook::FromContainer, links.pod_a, &out);
                    let seen = tuple(&sent);
                    let port = seen.source_port;
                    assert_eq!(seen.source, ip(node), "{name}");
                    let back = match protocol {
                        TCP => tcp(world, node, [443, port], SYN | ACK, b"answer"),
                        UDP => udp(world, node, [443, port], b"answer"),
                        _ => {
                            let [high, low] = port.to_be_bytes();
                            icmp(world, node, [reply, 0], [high, low, 0, 1], b"answer")
                        }
                    };
                    let back = Ip::new(world, node, protocol).packet(&back);
                    let back = ethernet(NEIGHBOUR, pod_mac(1), &back);
                    for _ in 0..2 {
                        let (verdict, got) =
                            both.run(&name, Hook::FromNetdev, links.underlay, &back);
                        assert_eq!(verdict, Verdict::Redirect(Redirect::Peer(links.pod_a)));
                        let got_back = tuple(&got);
                        let ends = (got_back.source, got_back.destination);
                        assert_eq!(ends, (ip(world), ip(a)), "{name}");
                        if protocol != echo {
                            assert_eq!(got_back.destination_port, 40_000, "{name}");
                        }
                        assert!(super::judge::faults(&got).is_empty(), "{name}");
                        both.run(&name, Hook::FromContainer, links.pod_a, &out);
                    }
                    // The offending packet is quoted as the world saw it.
                    let [unreachable, code] = [[3, 3], [1, 4]][family];
                    let error = icmp(world, node, [unreachable, code], [0; 4], &sent[14..]);
                    let error = Ip::new(world, node, echo).packet(&error);
                    let error = ethernet(NEIGHBOUR, pod_mac(1), &error);
                    let (verdict, got) = both.run(&name, Hook::FromNetdev, links.underlay, &error);
                    assert_eq!(
                        verdict,
                        Verdict::Redirect(Redirect::Peer(links.pod_a)),
                        "{name}"
                    );
                    assert_eq!(super::judge::faults(&got), Vec::<String>::new(), "{name}");
                }
            }
        });
    }

    #[test]
    fn ports_run_out_with_a_reason() {
        on_a_node(|| {
            let links = Links::make();
            let mut tables = links.tables(false);
            tables.config.masquerade_port_min = 50_000;
            tables.config.masquerade_port_max = 50_003;
            let both = both(tables, "ports");
            for (a, world) in POD_A.into_iter().zip(WORLD) {
                let mut verdicts = Vec::new();
                for port in 1000..1006 {
                    let frame = from_pod(0x0a, &tcp_packet(a, world, [port, 443], SYN));
                    verdicts.push(both.run("full", Hook::FromContainer, links.pod_a, &frame).0);
                }
                let refused = Verdict::Drop(DropReason::NoMasqueradeMapping);
                assert_eq!(verdicts.last(), Some(&refused), "{verdicts:?}");
                assert!(verdicts.first() != Some(&refused), "{verdicts:?}");
            }
        });
    }

    #[test]
    fn without_icmp_errors_and_without_masquerading() {
        on_a_node(|| {
            let links = Links::make();
            let quiet = features::ICMP_ERRORS | features::MASQUERADE;
            let mut tables = links.tables(false);
            tables.config.features &= !quiet;
            let both = both(tables, "quiet");
            for (a, world) in POD_A.into_iter().zip(WORLD) {
                let out = tcp_packet(a, world, [1000, 443], SYN);
                let (_, sent) = both.run(
                    "plain",
                    Hook::FromContainer,
                    links.pod_a,
                    &from_pod(0x0a, &out),
                );
                assert_eq!(tuple(&sent).source, ip(a));
                let old = Ip::new(a, world, UDP)
                    .hops(1)
                    .packet(&udp(a, world, [1, 2], b""));
                let (verdict, _) = both.run(
                    "old",
                    Hook::FromContainer,
                    links.pod_a,
                    &from_pod(0x0a, &old),
                );
                assert_eq!(verdict, Verdict::Drop(DropReason::TtlExceeded));
            }
        });
    }

    /// Large packets that a device will cut count as their segments do. (Into the tunnel they cannot be tested so: a
    /// test packet has a segment size but no segmentation type, and the kernel refuses to make room in it.)
    #[test]
    fn packets_before_segmentation() {
        everywhere(|both, links, _| {
            let run = |name, packet: &[u8], size| {
                both.run_segmented(name, links.pod_a, &from_pod(0x0a, packet), size)
                    .0
            };
            for (a, world) in POD_A.into_iter().zip(WORLD) {
                let large =
                    |to, ports| Ip::new(a, to, TCP).packet(&tcp(a, to, ports, ACK, &[0x42; 2800]));
                let b = if ip(a).is_v4() { POD_B[0] } else { POD_B[1] };
                let to_b = Verdict::Redirect(Redirect::Peer(links.pod_b));
                assert_eq!(run("to a pod", &large(b, [700, 80]), 1400), to_b);
                assert_eq!(run("to a pod again", &large(b, [700, 80]), 1400), to_b);
                let out = run("to the world", &large(world, [700, 80]), 1400);
                assert!(matches!(out, Verdict::Redirect(_)), "{out:?}");
                let out = run("to the world again", &large(world, [700, 80]), 1400);
                assert!(matches!(out, Verdict::Redirect(_)), "{out:?}");
                let refused = run("segments too large", &large(world, [701, 80]), 1480);
                assert!(
                    matches!(refused, Verdict::Answer(DropReason::FragmentationNeeded, _)),
                    "{refused:?}"
                );
            }
        });
    }

    /// Every prefix of a packet and every flip of a bit in its headers: both sides agree on all of them.
    fn mangle(both: &Both, hook: Hook, link: IfIndex, good: &[u8], headers: usize) {
        // The kernel itself refuses to test an IP packet that is shorter than its header.
        let shortest = if good[12] == 8 { 34 } else { 54 };
        for length in shortest..good.len() {
            both.run(&format!("{length} bytes"), hook, link, &good[..length]);
        }
        for bit in 0..headers * 8 {
            both.thorough.set(bit % 32 == 31);
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            both.run(&format!("bit {bit}"), hook, link, &bad);
        }
    }

    #[test]
    fn mangled_packets_from_pods() {
        everywhere(|both, links, _| {
            for family in 0..2 {
                let (a, b) = (POD_A[family], POD_B[family]);
                let echo = icmp_of(family);
                let ping = icmp(a, b, [[8, 128][family], 0], [0, 9, 0, 1], b"ping");
                let ping = Ip::new(a, b, echo).packet(&ping);
                for good in [tcp_packet(a, b, [40_000, 80], SYN), ping] {
                    let good = from_pod(0x0a, &good);
                    let headers = good.len().min(80);
                    mangle(both, Hook::FromContainer, links.pod_a, &good, headers);
                }
            }
        });
    }

    #[test]
    fn mangled_packets_from_the_network() {
        everywhere(|both, links, native| {
            for family in 0..2 {
                let (a, remote) = (POD_A[family], REMOTE[family]);
                let mut good = tcp_packet(remote, a, [40_000, 80], SYN);
                if !native {
                    let (node, other) = (NODE[0], OTHER_NODE[0]);
                    let payload = udp(other, node, [50_000, 8472], &vxlan([0, 0, 1], &good));
                    good = Ip::new(other, node, UDP).packet(&payload);
                }
                let good = ethernet(NEIGHBOUR, pod_mac(1), &good);
                let headers = good.len() - 4;
                mangle(both, Hook::FromNetdev, links.underlay, &good, headers);
            }
        });
    }
}
