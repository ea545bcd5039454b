// SPDX-License-Identifier: Apache-2.0
//! Packets between pods of the node, and what the gateway answers.

use weir_abi::DropReason;
use weir_datapath::Hook;

use super::super::raw::{Ip, SCTP, TCP, UDP, icmp, icmp_of, sctp, tcp, udp};
use super::super::world::{NODE, POD_A, POD_B, WORLD, ip, pod_mac};
use super::{ACK, Expected, FIN, RST, SYN, Table};

impl Table {
    pub(super) fn between_pods(&mut self) {
        let (a, b) = (self.to(POD_A), self.to(POD_B));
        let (to_a, to_b) = (self.to_a(), self.to_b());
        let there = |flags| Ip::new(a, b, TCP).packet(&tcp(a, b, [40_000, 80], flags, b"there"));
        let back = |flags| Ip::new(b, a, TCP).packet(&tcp(b, a, [80, 40_000], flags, b"back"));
        self.pod("TCP: SYN", &there(SYN), to_b);
        self.pod_b("TCP: SYN, ACK", &back(SYN | ACK), to_a);
        self.pod("TCP: ACK", &there(ACK), to_b);
        self.pod("TCP: more", &there(ACK), to_b);
        self.pod("TCP: FIN", &there(FIN | ACK), to_b);
        self.pod_b("TCP: FIN of the other side", &back(FIN | ACK), to_a);
        self.pod("TCP: the last ACK", &there(ACK), to_b);
        self.pod("TCP: the port is used again", &there(SYN), to_b);
        self.pod_b("TCP: RST", &back(RST), to_a);
        let there = Ip::new(a, b, UDP).packet(&udp(a, b, [5000, 53], b"question"));
        let back = Ip::new(b, a, UDP).packet(&udp(b, a, [53, 5000], b"answer"));
        self.pod("UDP", &there, to_b);
        self.pod_b("UDP: answer", &back, to_a);
        self.pod("UDP: again", &there, to_b);
        let mut unsummed = Ip::new(a, b, UDP).packet(&udp(a, b, [5001, 53], b"no sum"));
        if self.family == 0 {
            unsummed[26..28].copy_from_slice(&[0, 0]);
            self.pod("UDP: without a checksum", &unsummed, to_b);
        }
        let [request, reply] = self.echo_types();
        let protocol = icmp_of(self.family);
        let ping = |from, to, kind| {
            Ip::new(from, to, protocol).packet(&icmp(from, to, [kind, 0], [0, 7, 0, 1], b"ping"))
        };
        self.pod("echo", &ping(a, b, request), to_b);
        self.pod_b("echo reply", &ping(b, a, reply), to_a);
        self.pod(
            "SCTP",
            &Ip::new(a, b, SCTP).packet(&sctp([6000, 7000])),
            to_b,
        );
        self.pod_b(
            "SCTP: answer",
            &Ip::new(b, a, SCTP).packet(&sctp([7000, 6000])),
            to_a,
        );
        self.pod(
            "to itself",
            &Ip::new(a, a, UDP).packet(&udp(a, a, [9, 9], b"")),
            to_a,
        );
        let good = udp(a, b, [5002, 53], b"x");
        if self.family == 0 {
            let options = Ip::new(a, b, UDP).extra(None, &[7, 7, 4, 0, 0, 0, 0, 0]);
            self.pod("IPv4 options", &options.packet(&good), to_b);
        } else {
            let one = Ip::new(a, b, UDP).extra(Some(0), &[UDP, 0, 1, 4, 0, 0, 0, 0]);
            self.pod("hop-by-hop options", &one.packet(&good), to_b);
            let chain = [
                60, 0, 1, 4, 0, 0, 0, 0, 43, 0, 1, 4, 0, 0, 0, 0, UDP, 0, 0, 0, 0, 0, 0, 0,
            ];
            let three = Ip::new(a, b, UDP).extra(Some(0), &chain);
            self.pod("three extension headers", &three.packet(&good), to_b);
            let mut long: Vec<u8> = [60, 0, 1, 4, 0, 0, 0, 0].repeat(7);
            long[48] = UDP;
            let seven = Ip::new(a, b, UDP).extra(Some(60), &long);
            let expected = Expected::Drop(DropReason::InvalidExtensionHeader);
            self.pod("seven extension headers", &seven.packet(&good), expected);
            let beyond = Ip::new(a, b, UDP).extra(Some(60), &[UDP, 200, 1, 4, 0, 0, 0, 0]);
            self.pod(
                "an extension header beyond the packet",
                &beyond.packet(&good),
                expected,
            );
        }
    }

    pub(super) fn gateway(&mut self) {
        let a = self.to(POD_A);
        if self.family == 0 {
            for (name, to, expected) in [
                ("ARP for the gateway", [169, 254, 1, 1], Expected::Reply),
                (
                    "ARP for somebody",
                    [10, 244, 1, 11],
                    Expected::Drop(DropReason::UnknownL3Target),
                ),
                (
                    "ARP for itself",
                    [10, 244, 1, 10],
                    Expected::Drop(DropReason::MulticastHandled),
                ),
            ] {
                let mut frame = [0xff; 6].to_vec();
                frame.extend(pod_mac(0x0a).0);
                frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
                frame.extend(pod_mac(0x0a).0);
                frame.extend([10, 244, 1, 10, 0, 0, 0, 0, 0, 0]);
                frame.extend(to);
                self.add(name, Hook::FromContainer, frame, expected);
            }
            let igmp = Ip::new(a, "224.0.0.22", 2).packet(&[0x22, 0, 0xdd, 0xfd, 0, 0, 0, 0]);
            self.pod("IGMP", &igmp, Expected::Drop(DropReason::IgmpHandled));
            return;
        }
        let solicit = |target: [u8; 16], to| {
            let mut data = target.to_vec();
            data.extend([1, 1]);
            data.extend(pod_mac(0x0a).0);
            Ip::new(a, to, 58)
                .hops(255)
                .packet(&icmp(a, to, [135, 0], [0; 4], &data))
        };
        let gateway = ip("fe80::1").0;
        self.pod(
            "solicitation of the gateway",
            &solicit(gateway, "ff02::1:ff00:1"),
            Expected::Reply,
        );
        self.pod(
            "solicitation, unicast",
            &solicit(gateway, "fe80::1"),
            Expected::Reply,
        );
        let other = ip(POD_B[1]).0;
        let expected = Expected::Drop(DropReason::UnknownL3Target);
        self.pod(
            "solicitation of somebody",
            &solicit(other, "ff02::1:ff00:11"),
            expected,
        );
        for (name, kind, expected) in [
            (
                "router solicitation",
                133,
                Expected::Drop(DropReason::MulticastHandled),
            ),
            (
                "router advertisement",
                134,
                Expected::Drop(DropReason::ForbiddenIcmpv6),
            ),
            (
                "neighbour advertisement",
                136,
                Expected::Drop(DropReason::MulticastHandled),
            ),
            ("redirect", 137, Expected::Drop(DropReason::ForbiddenIcmpv6)),
            (
                "MLD report",
                143,
                Expected::Drop(DropReason::MulticastHandled),
            ),
        ] {
            let message = icmp(a, "ff02::2", [kind, 0], [0; 4], &[0; 16]);
            let packet = Ip::new(a, "ff02::2", 58).hops(255).packet(&message);
            self.pod(name, &packet, expected);
        }
    }

    pub(super) fn fragments(&mut self) {
        let (a, b, world) = (self.to(POD_A), self.to(POD_B), self.to(WORLD));
        let to_b = self.to_b();
        let whole = udp(a, b, [5100, 53], &[0x55; 72]);
        let part = |offset: u16, more| Ip::new(a, b, UDP).fragment(offset, more);
        let orphan = part(40, false).packet(&whole[40..]);
        let expected = Expected::Drop(DropReason::FirstFragmentNotFound);
        self.pod("a later fragment without its first one", &orphan, expected);
        self.pod(
            "the first fragment",
            &part(0, true).packet(&whole[..40]),
            to_b,
        );
        self.pod(
            "a middle fragment",
            &part(40, true).packet(&whole[40..64]),
            to_b,
        );
        self.pod(
            "the last fragment",
            &part(64, false).packet(&whole[64..]),
            to_b,
        );
        let whole = udp(a, world, [5101, 53], &[0x66; 72]);
        let part = |offset: u16, more| Ip::new(a, world, UDP).fragment(offset, more);
        self.pod(
            "masqueraded first fragment",
            &part(0, true).packet(&whole[..40]),
            Expected::ToNetwork,
        );
        self.pod(
            "masqueraded last fragment",
            &part(40, false).packet(&whole[40..]),
            Expected::ToNetwork,
        );
        let stray = Ip::new(world, a, UDP)
            .fragment(80, false)
            .packet(&[0x77; 16]);
        let expected = Expected::Drop(DropReason::FirstFragmentNotFoundWorld);
        self.network("a stray fragment for a pod", &stray, expected);
        let node = self.to(NODE);
        let stray = Ip::new(world, node, UDP)
            .fragment(80, false)
            .packet(&[0x77; 16]);
        self.network("a stray fragment for the node", &stray, Expected::Pass);
        let unknown = Ip::new(a, b, 47).fragment(80, false).packet(&[0x77; 16]);
        self.pod(
            "a fragment of GRE",
            &unknown,
            Expected::Drop(DropReason::CtUnknownL4),
        );
    }
}
