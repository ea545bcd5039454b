// SPDX-License-Identifier: Apache-2.0
//! More connections through one node port to one backend than there are ports for: each mapping belongs to one of
//! them, those who get none are told so, and nobody else notices.

#[cfg(test)]
#[path = "support/kernel_world.rs"]
mod kernel_world;
#[cfg(test)]
#[path = "support/node.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod node;
#[cfg(test)]
#[path = "support/raw.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod raw;
#[cfg(test)]
#[path = "support/services.rs"]
mod services;
#[cfg(test)]
#[path = "support/tuple.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod tuple;
#[cfg(test)]
#[path = "support/veth.rs"]
mod veth;
#[cfg(test)]
#[path = "support/world.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod world;

#[cfg(test)]
mod kernel {
    use std::collections::BTreeSet;

    use weir_abi::counter::{Direction, metric_index};
    use weir_abi::{DropReason, MacAddress};
    use weir_datapath::{Datapath, Hook, TestRun};

    use super::kernel_world::fill;
    use super::node::{loader_with, on_a_node};
    use super::raw::{Ip, TCP, ethernet, tcp};
    use super::tuple::{Tuple, tuple};
    use super::world::{Links, NEIGHBOUR, NODE, POD_A, REMOTE, WORLD, ip, pod_mac};

    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const DROP: i32 = 2;
    const CONNECTIONS: u16 = 60_000;
    /// A node port whose backend is on another node.
    const NODE_PORT: u16 = 30081;

    struct Node {
        datapath: Datapath,
        links: Links,
    }

    impl Node {
        fn send(&self, hook: Hook, from: (&str, u16), to: (&str, u16), flags: u8) -> Option<Tuple> {
            let packet = Ip::new(from.0, to.0, TCP).packet(&tcp(
                from.0,
                to.0,
                [from.1, to.1],
                flags,
                b"data",
            ));
            let (link, frame) = match hook {
                Hook::FromContainer => (
                    self.links.pod_a,
                    ethernet(pod_mac(0x0a), MacAddress::GATEWAY, &packet),
                ),
                Hook::FromNetdev | Hook::FromHost | Hook::ToNetdev => (
                    self.links.underlay,
                    ethernet(NEIGHBOUR, pod_mac(1), &packet),
                ),
            };
            let run = TestRun::new(&frame).device(link).ingress(link);
            let output = run.run(self.datapath.programs.get(hook)).unwrap();
            (output.verdict != DROP).then(|| tuple(&output.packet))
        }

        fn without_mapping(&self) -> u64 {
            let place = metric_index(DropReason::NoMasqueradeMapping.number(), Direction::Ingress);
            let sums = self.datapath.maps.metrics.sums().unwrap();
            sums.into_iter()
                .find(|(index, _)| *index == place)
                .map_or(0, |(_, metric)| metric.packets)
        }
    }

    fn exhaust(node: &Node, family: usize) {
        let (client, own, backend) = (WORLD[family], NODE[family], REMOTE[family]);
        let pod = |port, flags| {
            let to = (WORLD[family], 443);
            node.send(Hook::FromContainer, (POD_A[family], port), to, flags)
        };
        let before = pod(1234, SYN).unwrap();

        let refused_before = node.without_mapping();
        let mut mappings = BTreeSet::new();
        let mut refused = 0;
        for port in 1..=CONNECTIONS {
            match node.send(Hook::FromNetdev, (client, port), (own, NODE_PORT), SYN) {
                Some(seen) => {
                    assert_eq!((seen.source, seen.destination), (ip(own), ip(backend)));
                    assert!(mappings.insert(seen), "{port} shares {seen:?}");
                    let answer = (own, seen.source_port);
                    let back = node.send(Hook::FromNetdev, (backend, 8080), answer, SYN | ACK);
                    let back = back.unwrap();
                    let (to, from) = ((back.destination, back.destination_port), back.source_port);
                    assert_eq!((to, from), ((ip(client), port), NODE_PORT));
                }
                None => refused += 1,
            }
        }
        // Each attempt of 128 misses by chance, so that a few ports stay free.
        let ports = usize::from(u16::MAX - 32767);
        assert!(mappings.len() > ports * 9 / 10, "{}", mappings.len());
        assert!(mappings.len() <= ports);
        assert_eq!(mappings.len() + refused, usize::from(CONNECTIONS));
        let counted = node.without_mapping() - refused_before;
        assert_eq!(counted, refused as u64);

        assert_eq!(pod(1234, ACK), Some(before), "a connection from before");
        assert!(pod(1235, SYN).is_some(), "towards others there are ports");
        let other = node.send(Hook::FromNetdev, (client, 1), (own, 30080), SYN);
        assert!(other.is_some(), "another service has its own");
    }

    #[test]
    fn connections_without_a_port_are_refused_and_the_others_share_none() {
        on_a_node(|| {
            let links = Links::make();
            let tables = links.tables(true);
            let sizes = [("flows", 262_144)];
            let datapath = loader_with("/sys/fs/bpf/exhaustion", &sizes)
                .load(&tables.config)
                .unwrap_or_else(|error| panic!("{error}"));
            fill(&datapath.maps, &tables);
            let node = Node { datapath, links };
            for family in 0..2 {
                exhaust(&node, family);
            }
        });
    }
}
