// SPDX-License-Identifier: Apache-2.0
//! Packets to and from the node, other nodes and the world.

use weir_abi::DropReason;
use weir_datapath::Hook;

use super::super::raw::{Ip, SCTP, TCP, UDP, ethernet, icmp, icmp_of, sctp, tcp, udp, vxlan};
use super::super::world::{
    EXEMPT_HOST, GONE, LOST, NEIGHBOUR, NODE, OTHER_NODE, POD_A, POD_B, REMOTE, UNRESOLVED,
    UNROUTABLE, WORLD, pod_mac,
};
use super::{ACK, Expected, SYN, Table};

impl Table {
    pub(super) fn with_the_node(&mut self) {
        let (a, node) = (self.to(POD_A), self.to(NODE));
        let to_a = self.to_a();
        let up = |flags| Ip::new(a, node, TCP).packet(&tcp(a, node, [41_000, 10_250], flags, b""));
        let down =
            |flags| Ip::new(node, a, TCP).packet(&tcp(node, a, [10_250, 41_000], flags, b""));
        self.pod("pod to its node", &up(SYN), Expected::ToHost);
        self.host("pod to its node: answer", &down(SYN | ACK), to_a);
        self.pod("pod to its node: ACK", &up(ACK), Expected::ToHost);
        let probe = Ip::new(node, a, TCP).packet(&tcp(node, a, [42_000, 8080], SYN, b""));
        let answer = Ip::new(a, node, TCP).packet(&tcp(a, node, [8080, 42_000], SYN | ACK, b""));
        self.host("node to its pod", &probe, to_a);
        self.pod("node to its pod: answer", &answer, Expected::ToHost);
        let gone = self.to(GONE);
        let lost = Ip::new(node, gone, UDP).packet(&udp(node, gone, [1, 2], b""));
        self.host(
            "node to a pod that is gone",
            &lost,
            Expected::Drop(DropReason::StaleOrUnroutable),
        );
        let circle = Ip::new(a, gone, UDP).packet(&udp(a, gone, [1, 2], b""));
        self.host(
            "a pod's packet in a circle",
            &circle,
            Expected::Drop(DropReason::InvalidSourceIp),
        );
        let own = Ip::new(node, self.to(WORLD), UDP);
        let own = own.packet(&udp(node, self.to(WORLD), [40_000, 53], b""));
        let frame = ethernet(pod_mac(1), NEIGHBOUR, &own);
        self.add(
            "node to the world",
            Hook::ToNetdev,
            frame.clone(),
            Expected::Pass,
        );
        self.add(
            "node to the world again",
            Hook::ToNetdev,
            frame,
            Expected::Pass,
        );
        let low = Ip::new(node, self.to(WORLD), UDP);
        let low = low.packet(&udp(node, self.to(WORLD), [123, 123], b""));
        let frame = ethernet(pod_mac(1), NEIGHBOUR, &low);
        self.add(
            "node to the world from a low port",
            Hook::ToNetdev,
            frame,
            Expected::Pass,
        );
    }

    pub(super) fn with_other_nodes(&mut self) {
        let a = self.to(POD_A);
        for (name, to) in [
            ("pod to another node", OTHER_NODE),
            ("pod to a remote pod", REMOTE),
        ] {
            let to = self.to(to);
            let packet = Ip::new(a, to, TCP).packet(&tcp(a, to, [43_000, 80], SYN, b""));
            self.pod(name, &packet, Expected::ToNetwork);
            let packet = Ip::new(a, to, TCP).packet(&tcp(a, to, [43_000, 80], ACK, b"more"));
            self.pod(name, &packet, Expected::ToNetwork);
        }
        let lost = self.to(LOST);
        let packet = Ip::new(a, lost, UDP).packet(&udp(a, lost, [1, 2], b""));
        let expected = if self.native {
            Expected::ToNetwork
        } else {
            Expected::Drop(DropReason::NoTunnelEndpoint)
        };
        self.pod("to a node that no row tells about", &packet, expected);
        for (name, to) in [
            ("tunnel to its node", NODE),
            ("tunnel to another node", OTHER_NODE),
        ] {
            let to = self.to(to);
            let packet = Ip::new(a, to, UDP).packet(&udp(a, to, [9999, 8472], b"smuggled"));
            if !self.native {
                let expected = Expected::Drop(DropReason::EncapsulationProhibited);
                self.pod(name, &packet, expected);
            }
        }
    }

    pub(super) fn with_the_world(&mut self) {
        let (a, world, node) = (self.to(POD_A), self.to(WORLD), self.to(NODE));
        let to_a = self.to_a();
        let out = |flags| Ip::new(a, world, TCP).packet(&tcp(a, world, [44_000, 443], flags, b""));
        self.pod("to the world", &out(SYN), Expected::ToNetwork);
        self.pod("to the world again", &out(ACK), Expected::ToNetwork);
        let packet = Ip::new(a, world, UDP).packet(&udp(a, world, [44_000, 53], b"question"));
        self.pod("to the world by UDP", &packet, Expected::ToNetwork);
        let [request, _] = self.echo_types();
        let ping = icmp(a, world, [request, 0], [0, 9, 0, 1], b"ping");
        let packet = Ip::new(a, world, icmp_of(self.family)).packet(&ping);
        self.pod("echo to the world", &packet, Expected::ToNetwork);
        let packet = Ip::new(a, world, SCTP).packet(&sctp([6000, 7000]));
        // Its checksum would have to be made anew if the port changed: the port is kept.
        self.pod("SCTP to the world", &packet, Expected::ToNetwork);
        let exempt = self.to(EXEMPT_HOST);
        let packet = Ip::new(a, exempt, UDP).packet(&udp(a, exempt, [44_001, 53], b""));
        self.pod(
            "to a destination without masquerading",
            &packet,
            Expected::ToNetwork,
        );
        let packet = Ip::new(exempt, a, UDP).packet(&udp(exempt, a, [53, 44_001], b""));
        self.network("answer to that", &packet, to_a);
        let unresolved = self.to(UNRESOLVED);
        let packet = Ip::new(a, unresolved, UDP).packet(&udp(a, unresolved, [44_002, 53], b""));
        self.pod("next hop not resolved", &packet, Expected::ToNetwork);
        self.pod("next hop still not resolved", &packet, Expected::ToNetwork);
        let unroutable = self.to(UNROUTABLE);
        let packet = Ip::new(a, unroutable, UDP).packet(&udp(a, unroutable, [1, 2], b""));
        self.pod(
            "no route",
            &packet,
            Expected::Drop(DropReason::FibLookupFailed),
        );

        let packet = Ip::new(world, a, TCP).packet(&tcp(world, a, [50_000, 80], SYN, b""));
        self.network("world to a pod", &packet, to_a);
        let packet = Ip::new(a, world, TCP).packet(&tcp(a, world, [80, 50_000], SYN | ACK, b""));
        self.pod("pod's answer to the world", &packet, Expected::ToNetwork);
        let packet = Ip::new(world, node, TCP).packet(&tcp(world, node, [50_000, 22], SYN, b""));
        self.network("world to the node", &packet, Expected::Pass);
        let other = self.to(OTHER_NODE);
        let packet = Ip::new(other, node, TCP).packet(&tcp(other, node, [50_000, 22], SYN, b""));
        self.network("node to node", &packet, Expected::Pass);
        let gone = self.to(GONE);
        let packet = Ip::new(world, gone, UDP).packet(&udp(world, gone, [1, 2], b""));
        let expected = Expected::Drop(DropReason::StaleOrUnroutable);
        self.network("world to a pod that is gone", &packet, expected);
        let packet = Ip::new(world, exempt, UDP).packet(&udp(world, exempt, [1, 2], b""));
        self.network("passing by", &packet, Expected::Pass);
        let b = self.to(POD_B);
        let packet = Ip::new(b, a, UDP).packet(&udp(b, a, [1, 2], b""));
        let expected = Expected::Drop(DropReason::InvalidIdentity);
        self.network("a local pod's address from the network", &packet, expected);
        let remote = self.to(REMOTE);
        let packet = Ip::new(remote, a, UDP).packet(&udp(remote, a, [1, 2], b""));
        let expected = if self.native { to_a } else { expected };
        self.network("a remote pod's address from the network", &packet, expected);
    }

    /// What other nodes send through the tunnel; the outer packet is IPv4 for both families.
    pub(super) fn tunnel(&mut self) {
        let (a, remote, gone) = (self.to(POD_A), self.to(REMOTE), self.to(GONE));
        let to_a = self.to_a();
        let (node, other) = (NODE[0], OTHER_NODE[0]);
        let outer = |from, payload: &[u8]| {
            Ip::new(from, node, UDP).packet(&udp(from, node, [50_000, 8472], payload))
        };
        let one = [0, 0, 1];
        let syn = |to| Ip::new(remote, to, TCP).packet(&tcp(remote, to, [45_000, 80], SYN, b""));
        self.network(
            "remote pod to pod",
            &outer(other, &vxlan(one, &syn(a))),
            to_a,
        );
        let ack = Ip::new(remote, a, TCP).packet(&tcp(remote, a, [45_000, 80], ACK, b"data"));
        self.network(
            "remote pod to pod again",
            &outer(other, &vxlan(one, &ack)),
            to_a,
        );
        let answer = Ip::new(a, remote, TCP).packet(&tcp(a, remote, [80, 45_000], SYN | ACK, b""));
        self.pod("answer to the remote pod", &answer, Expected::ToNetwork);
        let expected = Expected::Drop(DropReason::InvalidIdentity);
        self.network("the same outside of the tunnel", &ack, expected);
        let far = self.to(OTHER_NODE);
        let hello = Ip::new(far, a, UDP).packet(&udp(far, a, [1, 2], b""));
        self.network(
            "remote node to pod",
            &outer(other, &vxlan(one, &hello)),
            to_a,
        );
        let home = self.to(NODE);
        let up = Ip::new(remote, home, UDP).packet(&udp(remote, home, [1, 2], b""));
        self.network(
            "remote pod to this node",
            &outer(other, &vxlan(one, &up)),
            Expected::ToHost,
        );
        let expected = Expected::Drop(DropReason::StaleOrUnroutable);
        self.network(
            "to a pod that is gone, by tunnel",
            &outer(other, &vxlan(one, &syn(gone))),
            expected,
        );
        let expected = Expected::Drop(DropReason::UnknownSender);
        let stranger = outer("172.18.0.77", &vxlan(one, &syn(a)));
        self.network("tunnel from a stranger", &stranger, expected);
        let lost = self.to(LOST);
        let foreign = Ip::new(lost, a, UDP).packet(&udp(lost, a, [1, 2], b""));
        let expected = Expected::Drop(DropReason::InvalidIdentity);
        self.network(
            "a node brings another's pod",
            &outer(other, &vxlan(one, &foreign)),
            expected,
        );
        let own = Ip::new(a, a, UDP).packet(&udp(a, a, [1, 2], b""));
        self.network(
            "a node brings this node's pod",
            &outer(other, &vxlan(one, &own)),
            expected,
        );
        let expected = Expected::Drop(DropReason::InvalidPacket);
        let foreign = outer(other, &vxlan([0, 0, 2], &syn(a)));
        self.network("another network identifier", &foreign, expected);
        let cut = vxlan(one, &syn(a));
        self.network("tunnel: cut off", &outer(other, &cut[..20]), expected);
        let remote_error = if self.family == 0 { 3 } else { 1 };
        let about = Ip::new(a, remote, TCP).packet(&tcp(a, remote, [43_000, 80], ACK, b"more"));
        let error = icmp(remote, a, [remote_error, 3], [0; 4], &about);
        let error = Ip::new(remote, a, icmp_of(self.family)).packet(&error);
        self.network(
            "an error by tunnel",
            &outer(other, &vxlan(one, &error)),
            to_a,
        );
        if self.family == 1 {
            // The very last rows: what is learned here changes the way for all that follows.
            let [v4, remote_v4] = [POD_A[0], REMOTE[0]];
            let sent = outer_of_ours(v4, remote_v4);
            let narrow = icmp("172.18.0.1", node, [3, 4], [0, 0, 0x05, 0x14], &sent[..60]);
            let narrow = Ip::new("172.18.0.1", node, 1).packet(&narrow);
            self.network("the way to the node is narrower", &narrow, Expected::Pass);
            let large = [0x42; 1240];
            for (from, to) in POD_A.into_iter().zip(REMOTE) {
                let packet = Ip::new(from, to, UDP).packet(&udp(from, to, [5300, 53], &large));
                let expected = Expected::Error(DropReason::FragmentationNeeded);
                self.pod("too large for the narrower way", &packet, expected);
            }
        }
    }
}

/// A tunnel packet as this node sends it.
fn outer_of_ours(a: &str, remote: &str) -> Vec<u8> {
    let inner = Ip::new(a, remote, TCP).packet(&tcp(a, remote, [43_000, 80], ACK, b"more"));
    let (node, other) = (NODE[0], OTHER_NODE[0]);
    Ip::new(node, other, UDP).packet(&udp(node, other, [60_000, 8472], &vxlan([0, 0, 1], &inner)))
}
