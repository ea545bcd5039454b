// SPDX-License-Identifier: Apache-2.0
//! Packets through the loaded programs and through the user-space build of the same decisions.

#[cfg(test)]
#[path = "support/both.rs"]
mod both;
#[cfg(test)]
#[path = "support/frame.rs"]
mod frame;
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
#[path = "support/table.rs"]
mod table;
#[cfg(test)]
#[path = "support/veth.rs"]
mod veth;
#[cfg(test)]
#[path = "support/world.rs"]
mod world;

#[cfg(test)]
mod kernel {
    use weir_abi::{DropReason, Slot};
    use weir_datapath::Hook;
    use weir_verdict::{Redirect, Verdict};

    use super::both::Both;
    use super::frame::{Payload, frame, from_network, from_pod};
    use super::node::{loader, on_a_node};
    use super::table::rows;
    use super::world::{
        GONE, Links, NODE, NOT_READY, OTHER_NODE, POD_A, POD_B, REMOTE, WORLD, ip, pod_mac,
    };

    /// Runs a test in both families and both routing modes.
    fn everywhere(test: impl Fn(&Both, &Links, usize) + Send + Copy + 'static) {
        on_a_node(move || {
            let links = Links::make();
            for native in [false, true] {
                for family in 0..2 {
                    let tables = links.tables(native);
                    let root = format!("/sys/fs/bpf/{native}{family}");
                    let datapath = loader(&root).load(&tables.config).unwrap();
                    test(&Both::new(datapath, tables), &links, family);
                }
            }
        });
    }

    /// Every packet of the table ends as expected, leaves both sides equal, and is right where it is sent on.
    #[test]
    fn the_packet_table() {
        on_a_node(|| {
            let links = Links::make();
            let mut failures = Vec::new();
            let mut count = 0;
            for native in [false, true] {
                for family in 0..2 {
                    let tables = links.tables(native);
                    let root = format!("/sys/fs/bpf/{native}{family}");
                    let both = Both::new(loader(&root).load(&tables.config).unwrap(), tables);
                    for row in rows(&links, family, native) {
                        count += 1;
                        let name = format!("IPv{}, native {native}: {}", [4, 6][family], row.name);
                        let ended = both.compare(row.hook, row.interface, &row.frame);
                        match ended.and_then(|(verdict, sent)| row.check(&links, verdict, &sent)) {
                            Ok(()) => {}
                            Err(problem) => failures.push(format!("{name}: {problem}")),
                        }
                    }
                }
            }
            assert!(
                failures.is_empty(),
                "{} of {count}:\n{}",
                failures.len(),
                failures.join("\n")
            );
            assert!(count >= 240, "{count} packets");
        });
    }

    const SYN: Payload<'_> = Payload::Tcp(40_000, 80, "S");
    const ACK: Payload<'_> = Payload::Tcp(40_000, 80, "A");
    const SYN_ACK: Payload<'_> = Payload::Tcp(80, 40_000, "SA");

    #[test]
    fn a_connection_between_pods_of_the_node() {
        everywhere(|both, links, family| {
            let (a, b) = (POD_A[family], POD_B[family]);
            let from_a = |name, payload| {
                both.run(
                    name,
                    Hook::FromContainer,
                    links.pod_a,
                    &from_pod(0x0a, a, b, payload),
                )
                .0
            };
            let from_b = |name, payload| {
                both.run(
                    name,
                    Hook::FromContainer,
                    links.pod_b,
                    &from_pod(0x0b, b, a, payload),
                )
                .0
            };
            let (to_a, to_b) = (
                Verdict::Redirect(Redirect::Peer(links.pod_a)),
                Verdict::Redirect(Redirect::Peer(links.pod_b)),
            );
            assert_eq!(from_a("SYN", SYN), to_b);
            assert_eq!(from_b("SYN, ACK", SYN_ACK), to_a);
            assert_eq!(from_a("ACK", ACK), to_b);
            both.bump(Slot::of_address(&ip(b)));
            assert_eq!(from_a("after a change", ACK), to_b);
            assert_eq!(
                from_b("after a change", Payload::Tcp(80, 40_000, "A")),
                to_a
            );
            assert_eq!(from_a("FIN", Payload::Tcp(40_000, 80, "FA")), to_b);
            assert_eq!(from_b("FIN", Payload::Tcp(80, 40_000, "FA")), to_a);
            assert_eq!(from_a("opened again", SYN), to_b);
            assert_eq!(from_a("UDP", Payload::Udp(5000, 53)), to_b);
            assert_eq!(from_b("UDP back", Payload::Udp(53, 5000)), to_a);
            assert_eq!(from_a("ping", Payload::EchoRequest(7)), to_b);
            assert_eq!(from_b("ping back", Payload::EchoReply(7)), to_a);
            let key = both.tables.flows().into_keys().next().unwrap();
            both.evict(&key);
            assert_eq!(from_a("half of it evicted", ACK), to_b);
            assert_eq!(from_b("half of it evicted", SYN_ACK), to_a);
        });
    }

    #[test]
    fn a_connection_to_the_world_and_back() {
        everywhere(|both, links, family| {
            let (a, world) = (POD_A[family], WORLD[family]);
            for payload in [SYN, Payload::Udp(40_000, 53), Payload::EchoRequest(40_000)] {
                let name = format!("{payload:?}");
                let out = from_pod(0x0a, a, world, payload);
                let (_, sent) = both.run(&name, Hook::FromContainer, links.pod_a, &out);
                let sent = etherparse::SlicedPacket::from_ethernet(&sent).unwrap();
                let (source, port) = source_of(&sent);
                assert_eq!(source, ip(NODE[family]), "{name}");
                let answer = match payload {
                    Payload::Tcp(..) => Payload::Tcp(80, port, "SA"),
                    Payload::Udp(..) => Payload::Udp(53, port),
                    Payload::EchoRequest(_) | Payload::EchoReply(_) => Payload::EchoReply(port),
                };
                let back = from_network(world, NODE[family], answer);
                let (verdict, _) = both.run(&name, Hook::FromNetdev, links.underlay, &back);
                assert_eq!(
                    verdict,
                    Verdict::Redirect(Redirect::Peer(links.pod_a)),
                    "{name}"
                );
                both.run(&name, Hook::FromContainer, links.pod_a, &out);
            }
        });
    }

    #[test]
    fn ways_between_pods_nodes_and_the_other_node() {
        everywhere(|both, links, family| {
            let a = POD_A[family];
            let out = |name, to: &str| {
                both.run(
                    name,
                    Hook::FromContainer,
                    links.pod_a,
                    &from_pod(0x0a, a, to, SYN),
                )
            };
            out("pod to its node", NODE[family]);
            out("pod to another node", OTHER_NODE[family]);
            let (verdict, sent) = out("pod to a pod of another node", REMOTE[family]);
            assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
            // As if this node were the other one: what it sends is what it could receive.
            both.run(
                "from the other node",
                Hook::FromNetdev,
                links.underlay,
                &sent,
            );
            let reply = from_network(REMOTE[family], a, SYN_ACK);
            both.run(
                "from the other node's pod",
                Hook::FromNetdev,
                links.underlay,
                &reply,
            );
            let mac = weir_abi::MacAddress::HOST;
            let down = frame(mac, mac, NODE[family], a, 64, Payload::Udp(4000, 4000));
            both.run("node to its pod", Hook::FromHost, links.host, &down);
            let up = from_pod(0x0a, a, NODE[family], Payload::Udp(4000, 4000));
            both.run(
                "pod back to its node",
                Hook::FromContainer,
                links.pod_a,
                &up,
            );
            let own = frame(pod_mac(1), pod_mac(2), NODE[family], WORLD[family], 64, SYN);
            both.run("node to the world", Hook::ToNetdev, links.underlay, &own);
            let stray = from_network(WORLD[family], WORLD[family], SYN);
            both.run("passing by", Hook::FromNetdev, links.underlay, &stray);
        });
    }

    #[test]
    fn drops_have_the_same_reason_on_both_sides() {
        everywhere(|both, links, family| {
            let (a, b) = (POD_A[family], POD_B[family]);
            let drop = |name: &str, frame: &[u8], reason: DropReason| {
                let (verdict, _) = both.run(name, Hook::FromContainer, links.pod_a, frame);
                assert_eq!(verdict, Verdict::Drop(reason), "{name}");
            };
            drop(
                "spoofed",
                &from_pod(0x0a, b, a, SYN),
                DropReason::InvalidSourceIp,
            );
            drop(
                "gone",
                &from_pod(0x0a, a, GONE[family], SYN),
                DropReason::StaleOrUnroutable,
            );
            let not_ready = from_pod(0x0a, a, NOT_READY[family], SYN);
            drop("not ready", &not_ready, DropReason::EndpointNotReady);
            let good = from_pod(0x0a, a, b, SYN);
            let mut other = good.clone();
            other[12..14].copy_from_slice(&[0x88, 0xcc]);
            drop("LLDP", &other, DropReason::UnsupportedL3);
        });
    }

    /// Every prefix of a packet and every flip of a bit in its headers: both sides agree on all of them.
    #[test]
    fn mangled_packets() {
        everywhere(|both, links, family| {
            let (a, b) = (POD_A[family], POD_B[family]);
            for payload in [SYN, Payload::EchoRequest(9)] {
                let good = from_pod(0x0a, a, b, payload);
                for length in 14..good.len() {
                    let name = format!("{length} bytes of {payload:?}");
                    // The kernel itself refuses to test an IP packet that is shorter than its header.
                    if length >= if family == 0 { 34 } else { 54 } {
                        both.run(&name, Hook::FromContainer, links.pod_a, &good[..length]);
                    }
                }
                for bit in 0..good.len().min(80) * 8 {
                    let mut bad = good.clone();
                    bad[bit / 8] ^= 1 << (bit % 8);
                    let name = format!("bit {bit} of {payload:?}");
                    both.run(&name, Hook::FromContainer, links.pod_a, &bad);
                }
            }
        });
    }

    fn source_of(packet: &etherparse::SlicedPacket<'_>) -> (weir_abi::Address, u16) {
        use etherparse::{NetSlice, TransportSlice};
        let source = match packet.net.as_ref().unwrap() {
            NetSlice::Ipv4(ip) => weir_abi::Address::from(ip.header().source_addr()),
            NetSlice::Ipv6(ip) => weir_abi::Address::from(ip.header().source_addr()),
            NetSlice::Arp(_) => panic!("an IP packet is expected"),
        };
        let port = match packet.transport.as_ref().unwrap() {
            TransportSlice::Tcp(tcp) => tcp.source_port(),
            TransportSlice::Udp(udp) => udp.source_port(),
            TransportSlice::Igmp(_) => panic!("IGMP is not expected"),
            // The identifier follows type, code and checksum.
            TransportSlice::Icmpv4(icmp) => u16::from_be_bytes([icmp.slice()[4], icmp.slice()[5]]),
            TransportSlice::Icmpv6(icmp) => u16::from_be_bytes([icmp.slice()[4], icmp.slice()[5]]),
        };
        (source, port)
    }
}
