// SPDX-License-Identifier: Apache-2.0
//! Packets that policy decides on.

use weir_abi::DropReason;

use super::super::raw::{Ip, TCP, UDP, icmp, icmp_of, tcp, udp};
use super::super::services::{BLOCKED, CLUSTER, ISOLATED};
use super::super::world::{GONE, NODE, POD_A, POD_B, REMOTE, WORLD};
use super::{ACK, Expected, SYN, Table};

impl Table {
    pub(super) fn policies(&mut self) {
        let [a, b, c, node] = [POD_A, POD_B, ISOLATED, NODE].map(|names| self.to(names));
        let [remote, world, blocked] = [REMOTE, WORLD, BLOCKED].map(|names| self.to(names));
        let (to_a, to_b) = (self.to_a(), self.to_b());
        let to_c = to_b;
        let denied = Expected::Drop(DropReason::PolicyDenied);
        let segment = |from, to, ports, flags| {
            Ip::new(from, to, TCP).packet(&tcp(from, to, ports, flags, b"data"))
        };
        let datagram =
            |from, to, ports| Ip::new(from, to, UDP).packet(&udp(from, to, ports, b"data"));
        self.pod("allowed port", &segment(a, c, [60_000, 80], SYN), to_c);
        self.pod_c("its answer", &segment(c, a, [80, 60_000], SYN | ACK), to_a);
        self.pod("allowed port: ACK", &segment(a, c, [60_000, 80], ACK), to_c);
        self.pod(
            "a port of the second row",
            &segment(a, c, [60_001, 9020], SYN),
            to_c,
        );
        self.pod(
            "a port in between",
            &segment(a, c, [60_001, 9001], SYN),
            denied,
        );
        self.pod(
            "a rule that denies is stronger",
            &segment(a, c, [60_001, 9004], SYN),
            Expected::Drop(DropReason::PolicyDeny),
        );
        self.pod("another protocol", &datagram(a, c, [60_000, 80]), denied);
        self.pod(
            "a range for everybody",
            &datagram(a, c, [60_000, 5500]),
            to_c,
        );
        self.pod("beyond the range", &datagram(a, c, [60_000, 6000]), denied);
        let echo = Ip::new(a, c, icmp_of(self.family));
        let echo = echo.packet(&icmp(
            a,
            c,
            [self.echo_types()[0], 0],
            [0, 8, 0, 1],
            b"ping",
        ));
        self.pod("echo has no port", &echo, denied);
        self.pod_b("another pod", &segment(b, c, [60_000, 80], SYN), denied);
        self.remote(
            "a pod of another node",
            &segment(remote, c, [60_000, 80], SYN),
            denied,
        );
        self.network("the world", &segment(world, c, [60_000, 80], SYN), denied);
        self.network("a block", &segment(blocked, c, [60_000, 80], SYN), to_c);
        let echo = Ip::new(blocked, c, icmp_of(self.family));
        let kind = [self.echo_types()[0], 0];
        let echo = echo.packet(&icmp(blocked, c, kind, [0, 8, 0, 1], b"ping"));
        self.network("echo from a block", &echo, to_c);
        self.host("the node", &segment(node, c, [60_000, 80], SYN), to_c);
        self.pod_c(
            "egress, allowed port",
            &segment(c, b, [61_000, 8080], SYN),
            to_b,
        );
        self.pod_c(
            "egress, other port",
            &segment(c, b, [61_000, 8081], SYN),
            denied,
        );
        self.pod_c(
            "egress, another pod",
            &segment(c, a, [61_000, 8080], SYN),
            denied,
        );
        self.pod_c(
            "egress to the world",
            &segment(c, world, [61_000, 8080], SYN),
            denied,
        );
        let cluster = self.to(CLUSTER);
        let name = "egress through a service";
        self.pod_c(name, &segment(c, cluster, [62_000, 80], SYN), to_b);
        self.sent((c, 62_000), (b, 8080));
        let name = "egress through a service, other backend";
        self.pod_c(name, &segment(c, cluster, [62_000, 81], SYN), denied);
        let unknown = self.to(["10.244.2.99", "fd00:244:2::99"]);
        self.pod_c(
            "egress to a pod that nobody knows yet",
            &segment(c, unknown, [62_000, 80], SYN),
            Expected::Drop(DropReason::UnknownPeerIdentity),
        );
        let gone = self.to(GONE);
        self.pod_c(
            "egress to nobody",
            &segment(c, gone, [62_000, 81], SYN),
            Expected::Drop(DropReason::StaleOrUnroutable),
        );
    }
}
