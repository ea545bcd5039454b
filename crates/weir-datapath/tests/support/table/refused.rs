// SPDX-License-Identifier: Apache-2.0
//! Packets that must not pass, and errors about those that did.

use weir_abi::{DropReason, MacAddress};
use weir_datapath::Hook;

use super::super::raw::{Ip, TCP, UDP, ethernet, icmp, icmp_of, tcp, udp};
use super::super::world::{
    EXEMPT_HOST, GONE, NODE, NOT_READY, POD_A, POD_B, REMOTE, WORLD, pod_mac,
};
use super::{ACK, Expected, SYN, Table};

impl Table {
    pub(super) fn refused_addresses(&mut self) {
        let (a, b) = (self.to(POD_A), self.to(POD_B));
        let udp_packet = |from, to| Ip::new(from, to, UDP).packet(&udp(from, to, [1, 2], b""));
        for (name, from) in [
            ("spoofed: the other pod", POD_B),
            ("spoofed: the world", WORLD),
            ("spoofed: the node", NODE),
            ("spoofed: unspecified", ["0.0.0.0", "::"]),
            ("spoofed: loopback", ["127.0.0.1", "::1"]),
            ("spoofed: link-local", ["169.254.7.7", "fe80::7"]),
        ] {
            let packet = udp_packet(self.to(from), b);
            self.pod(name, &packet, Expected::Drop(DropReason::InvalidSourceIp));
        }
        for (name, to, reason) in [
            ("to a pod that is gone", GONE, DropReason::StaleOrUnroutable),
            (
                "to a pod that is not ready",
                NOT_READY,
                DropReason::EndpointNotReady,
            ),
            (
                "to a group",
                ["224.0.0.251", "ff02::fb"],
                DropReason::MulticastHandled,
            ),
            (
                "to everybody",
                ["255.255.255.255", "ff02::1"],
                DropReason::MulticastHandled,
            ),
            (
                "to the link",
                ["169.254.169.254", "fe80::99"],
                DropReason::UnknownL3Target,
            ),
        ] {
            self.pod(name, &udp_packet(a, self.to(to)), Expected::Drop(reason));
        }
    }

    pub(super) fn too_large_or_too_old(&mut self) {
        let (a, b, world) = (self.to(POD_A), self.to(POD_B), self.to(WORLD));
        let old = |to, hops| {
            Ip::new(a, to, UDP)
                .hops(hops)
                .packet(&udp(a, to, [5200, 53], b"old"))
        };
        self.pod(
            "last hop",
            &old(b, 1),
            Expected::Error(DropReason::TtlExceeded),
        );
        self.pod(
            "no hop left",
            &old(world, 0),
            Expected::Error(DropReason::TtlExceeded),
        );
        self.pod("last hop but one", &old(b, 2), self.to_b());
        let node = self.to(NODE);
        self.pod("last hop to the node", &old(node, 1), Expected::ToHost);
        let large = vec![0x42; 1480];
        let packet = Ip::new(a, world, UDP).packet(&udp(a, world, [5201, 53], &large));
        self.pod(
            "too large",
            &packet,
            Expected::Error(DropReason::FragmentationNeeded),
        );
        let packet = Ip::new(a, world, TCP).packet(&tcp(a, world, [5201, 80], ACK, &large));
        self.pod(
            "too large by TCP",
            &packet,
            Expected::Error(DropReason::FragmentationNeeded),
        );
        let remote = self.to(REMOTE);
        let snug = vec![0x42; 1460 - if self.family == 0 { 28 } else { 48 }];
        let packet = Ip::new(a, remote, UDP).packet(&udp(a, remote, [5202, 53], &snug));
        let expected = if self.native {
            Expected::ToNetwork
        } else {
            Expected::Error(DropReason::FragmentationNeeded)
        };
        self.pod("too large for the tunnel alone", &packet, expected);
        let fits = vec![0x42; 1450 - if self.family == 0 { 28 } else { 48 }];
        let packet = Ip::new(a, remote, UDP).packet(&udp(a, remote, [5203, 53], &fits));
        self.pod("just fits the tunnel", &packet, Expected::ToNetwork);
    }

    pub(super) fn malformed(&mut self) {
        let (a, b) = (self.to(POD_A), self.to(POD_B));
        let good = Ip::new(a, b, TCP).packet(&tcp(a, b, [5300, 80], SYN, b"data"));
        let start = good.len() - 24;
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = good.clone();
            change(&mut packet);
            packet
        };
        let invalid = Expected::Drop(DropReason::InvalidPacket);
        let truncated = Expected::Drop(DropReason::CtInvalidHeader);
        let mut frame = ethernet(pod_mac(0x0a), MacAddress::GATEWAY, &good);
        frame[14] = 0x50 | frame[14] & 15;
        self.add("version 5", Hook::FromContainer, frame, invalid);
        if self.family == 0 {
            let packet = with(&|packet| packet[0] = 0x44);
            self.pod("a header of 16 bytes", &packet, invalid);
            let packet = with(&|packet| packet[2..4].copy_from_slice(&[0x10, 0]));
            self.pod("longer than the frame", &packet, invalid);
            let packet = with(&|packet| packet[2..4].copy_from_slice(&[0, 19]));
            self.pod("shorter than its header", &packet, invalid);
        } else {
            let packet = with(&|packet| packet[4..6].copy_from_slice(&[0x10, 0]));
            self.pod("longer than the frame", &packet, invalid);
        }
        let packet = with(&|packet| packet[start + 12] = 0x40);
        self.pod("TCP: a header of 16 bytes", &packet, truncated);
        let packet = with(&|packet| packet[start + 12] = 0xf0);
        self.pod("TCP: a header longer than the packet", &packet, truncated);
        let short = Ip::new(a, b, TCP).packet(&tcp(a, b, [5300, 80], SYN, b"")[..13]);
        self.pod("TCP: cut off", &short, truncated);
        let short = Ip::new(a, b, UDP).packet(&udp(a, b, [5300, 80], b"")[..7]);
        self.pod("UDP: cut off", &short, truncated);
        let protocol = icmp_of(self.family);
        let short = Ip::new(a, b, protocol).packet(&[8, 0, 0, 0, 1]);
        self.pod("ICMP: cut off", &short, truncated);
        let padded = with(&|packet| packet.extend([0; 9]));
        self.pod("padded", &padded, self.to_b());
        let gre = Ip::new(a, b, 47).packet(&[0; 16]);
        self.pod("GRE", &gre, Expected::Drop(DropReason::CtUnknownL4));
        let wrong = Ip::new(a, b, icmp_of(1 - self.family)).packet(&[8, 0, 0, 0, 0, 1, 0, 1]);
        self.pod(
            "the other family's ICMP",
            &wrong,
            Expected::Drop(DropReason::CtUnknownL4),
        );
        let mut frame = ethernet(pod_mac(0x0a), MacAddress::GATEWAY, &good);
        frame[12..14].copy_from_slice(&[0x88, 0xcc]);
        let expected = Expected::Drop(DropReason::UnsupportedL3);
        self.add(
            "LLDP from a pod",
            Hook::FromContainer,
            frame.clone(),
            expected,
        );
        self.add(
            "LLDP from the network",
            Hook::FromNetdev,
            frame,
            Expected::Pass,
        );
        let node = self.to(NODE);
        let gre = Ip::new(self.to(WORLD), node, 47).packet(&[0; 16]);
        self.network("GRE for the node", &gre, Expected::Pass);
    }

    pub(super) fn icmp_errors(&mut self) {
        let (a, b, world) = (self.to(POD_A), self.to(POD_B), self.to(WORLD));
        let protocol = icmp_of(self.family);
        let [unreachable, exceeded] = [[3, 11], [1, 3]][self.family];
        let other = if self.family == 0 { 13 } else { 150 };
        let reason = [DropReason::UnknownIcmpv4Type, DropReason::UnknownIcmpv6Type][self.family];
        let about = Ip::new(a, b, UDP).packet(&udp(a, b, [5000, 53], b"question"));
        let error = |from, to, kind, code, about: &[u8]| {
            Ip::new(from, to, protocol).packet(&icmp(from, to, [kind, code], [0; 4], about))
        };
        let packet = error(b, a, unreachable, 3, &about);
        self.pod_b("port unreachable between pods", &packet, self.to_a());
        let unknown = Ip::new(a, b, UDP).packet(&udp(a, b, [1, 1], b"never sent"));
        let packet = error(b, a, unreachable, 3, &unknown);
        self.pod_b(
            "about a flow that never was",
            &packet,
            Expected::Drop(reason),
        );
        let packet = error(b, a, unreachable, 3, &about[..10]);
        self.pod_b(
            "about nothing that can be read",
            &packet,
            Expected::Drop(reason),
        );
        let packet = error(a, b, other, 0, &[0; 12]);
        self.pod("ICMP of another type", &packet, Expected::Drop(reason));
        let about = Ip::new(world, a, TCP).packet(&tcp(world, a, [50_000, 80], SYN, b""));
        let packet = error(a, world, unreachable, 3, &about);
        self.pod("a pod's error to the world", &packet, Expected::ToNetwork);
        let exempt = self.to(EXEMPT_HOST);
        let about = Ip::new(a, exempt, UDP).packet(&udp(a, exempt, [44_001, 53], b""));
        let packet = error(world, a, exceeded, 0, &about);
        self.network(
            "a router's error about a pod's packet",
            &packet,
            self.to_a(),
        );
        let node = self.to(NODE);
        let about = Ip::new(node, world, UDP).packet(&udp(node, world, [1, 1], b""));
        let packet = error(world, node, unreachable, 1, &about);
        self.network("an error for the node itself", &packet, Expected::Pass);
    }
}
