// SPDX-License-Identifier: Apache-2.0
//! Direct server return: this node as the one that is asked, and as the one that has the backend.

use weir_abi::DropReason;

use super::super::raw::{Ip, UDP, geneve, icmp, icmp_of, udp};
use super::super::world::{
    EXEMPT_HOST, FAR, FAR_NODE, GONE, NODE, OTHER_NODE, POD_A, POD_B, REMOTE, WORLD,
};
use super::services::{End, datagram, segment};
use super::{ACK, Expected, FIN, SYN, Table};

/// The frontend of another node, whose packets this node gets to answer.
const FOREIGN_PORT: u16 = 31_000;
/// IP packets that fit into 1500 bytes with the outer headers over IPv4.
const FITS: usize = 1500 - 74;

impl Table {
    /// An error of a router about a packet.
    fn error_about(&self, from: &str, to: &str, kind: [[u8; 2]; 2], about: &[u8]) -> Vec<u8> {
        let error = icmp(from, to, kind[self.family], [0; 4], about);
        Ip::new(from, to, icmp_of(self.family)).packet(&error)
    }

    /// A packet that the other node sends on.
    fn dispatched(&mut self, name: &'static str, backend: End, packet: &[u8], expected: Expected) {
        self.dispatched_by(OTHER_NODE[0], name, backend, packet, expected);
    }

    fn dispatched_by(
        &mut self,
        from: &'static str,
        name: &'static str,
        backend: End,
        packet: &[u8],
        expected: Expected,
    ) {
        let to = NODE[usize::from(from.contains(':'))];
        let datagram = udp(from, to, [50_000, 6081], &geneve(backend, packet));
        let outer = Ip::new(from, to, UDP).packet(&datagram);
        self.network(name, &outer, expected);
    }

    /// The packet of the last row leaves for that node and names its backend.
    fn goes_to(&mut self, node: &'static str, backend: End) {
        let row = self.rows.last_mut().unwrap();
        row.through = Some(node);
        row.names = Some(backend);
    }

    /// Backends on other nodes.
    pub(super) fn sent_on(&mut self) {
        let [remote, node, world] = [REMOTE, NODE, WORLD].map(|names| self.to(names));
        let (client, service, backend) = ((world, 50_000), (node, 30_081), (remote, 8080));
        let name = "node port, backend on another node";
        for packet in [
            segment(client, service, SYN),
            segment(client, service, ACK),
            segment(client, service, ACK),
            segment(client, service, FIN | ACK),
            segment(client, service, SYN),
            datagram(client, service),
            datagram(client, service),
            datagram(client, service),
        ] {
            self.network(name, &packet, Expected::ToNetwork);
            self.sent(client, service);
            self.goes_to(OTHER_NODE[0], backend);
        }
        let far = (self.to(FAR), 8080);
        self.network(
            "node port, backend on a third node",
            &segment(client, (node, 30_085), SYN),
            Expected::ToNetwork,
        );
        self.goes_to(FAR_NODE, far);
        for (extra, expected) in [
            (0, Expected::ToNetwork),
            (1, Expected::Error(DropReason::FragmentationNeeded)),
        ] {
            let data = vec![7; FITS + extra - [28, 48][self.family]];
            let packet = udp(world, node, [50_001, 30_081], &data);
            let packet = Ip::new(world, node, UDP).packet(&packet);
            self.network("as large as fits, and larger", &packet, expected);
        }
        let router = self.to(EXEMPT_HOST);
        let about = segment(service, client, ACK);
        let error = self.error_about(router, node, [[11, 0], [3, 0]], &about);
        let name = "a router's error about what the backend sent";
        self.network(name, &error, Expected::ToNetwork);
        self.sent_between(router, node);
        self.goes_to(OTHER_NODE[0], backend);
    }

    /// What direct return is not for.
    pub(super) fn relayed_all_the_same(&mut self) {
        let [b, remote, node, world] = [POD_B, REMOTE, NODE, WORLD].map(|names| self.to(names));
        let (client, far) = ((world, 50_000), self.to(FAR));
        let to_b = self.to_b();
        self.network(
            "node port, backend on this node",
            &segment(client, (node, 30_080), SYN),
            to_b,
        );
        self.sent(client, (b, 8080));
        let name = "node port, backend is another node";
        let other = self.to(OTHER_NODE);
        self.network(
            name,
            &segment(client, (node, 30_086), SYN),
            Expected::ToNetwork,
        );
        self.sent((node, 50_000), (other, 9090));
        self.network(
            "node port that keeps to this node",
            &segment(client, (node, 30_083), SYN),
            Expected::Drop(DropReason::ServiceBackendNotFound),
        );
        let name = "node port, client is a pod of another node";
        self.remote(
            name,
            &segment((remote, 57_000), (node, 30_085), SYN),
            Expected::ToNetwork,
        );
        self.sent((node, 57_000), (far, 8080));
        self.through(FAR_NODE);
    }

    /// Backends on this node whose services another node was asked for.
    pub(super) fn received(&mut self) {
        let [a, b, other, world] = [POD_A, POD_B, OTHER_NODE, WORLD].map(|names| self.to(names));
        let (client, service, backend) = ((world, 52_000), (other, FOREIGN_PORT), (b, 8080));
        let (to_a, to_b) = (self.to_a(), self.to_b());
        let name = "another node was asked";
        self.dispatched(name, backend, &segment(client, service, SYN), to_b);
        self.sent(client, backend);
        let answer = segment(backend, client, SYN | ACK);
        self.pod_b(name, &answer, Expected::ToNetwork);
        self.sent(service, client);
        for _ in 0..2 {
            self.dispatched(name, backend, &segment(client, service, ACK), to_b);
            self.sent(client, backend);
            let answer = segment(backend, client, ACK);
            self.pod_b(name, &answer, Expected::ToNetwork);
            self.sent(service, client);
        }
        let name = "another node was asked, nodes reach each other by IPv6";
        let segment_six = segment(client, service, ACK);
        self.dispatched_by(OTHER_NODE[1], name, backend, &segment_six, to_b);
        self.sent(client, backend);
        let router = self.to(EXEMPT_HOST);
        let about = segment(service, client, ACK);
        let error = self.error_about(router, other, [[11, 0], [3, 0]], &about);
        let name = "another node heard of a router's error about what the backend sent";
        self.dispatched(name, backend, &error, to_b);
        self.sent_between(router, b);

        let name = "another node was asked, UDP";
        self.dispatched(name, backend, &datagram(client, service), to_b);
        self.sent(client, backend);
        let name = "the backend refuses";
        let about = datagram(client, backend);
        let error = self.error_about(b, world, [[3, 3], [1, 4]], &about);
        self.pod_b(name, &error, Expected::ToNetwork);
        self.sent_between(other, world);
        let name = "another node has chosen anew";
        for _ in 0..2 {
            self.dispatched(name, (a, 53), &datagram(client, service), to_a);
            self.sent(client, (a, 53));
        }
        self.pod(name, &datagram((a, 53), client), Expected::ToNetwork);
        self.sent(service, client);
    }

    /// What is not believed.
    pub(super) fn forged(&mut self) {
        let [a, b, remote, node] = [POD_A, POD_B, REMOTE, NODE].map(|names| self.to(names));
        let [world, other] = [WORLD, OTHER_NODE].map(|names| self.to(names));
        let (client, service) = ((world, 54_000), (other, FOREIGN_PORT));
        let packet = segment(client, service, SYN);
        let stale = Expected::Drop(DropReason::StaleOrUnroutable);
        for (name, backend) in [
            ("a backend of another node", remote),
            ("a backend that is gone", self.to(GONE)),
            ("a backend that is the node itself", node),
            ("a backend outside", world),
        ] {
            self.dispatched(name, (backend, 8080), &packet, stale);
        }
        let sender = Expected::Drop(DropReason::UnknownSender);
        let name = "a backend named by a stranger";
        self.dispatched_by(WORLD[0], name, (b, 8080), &packet, sender);
        self.dispatched_by(REMOTE[0], name, (b, 8080), &packet, sender);
        let inside = Expected::Drop(DropReason::InvalidIdentity);
        for client in [(remote, 54_000), (a, 54_000), (node, 54_000)] {
            let packet = segment(client, service, SYN);
            self.dispatched("a client of the cluster", (b, 8080), &packet, inside);
        }
        let invalid = Expected::Drop(DropReason::InvalidPacket);
        let kind = [self.echo_types()[0], 0];
        let echo = Ip::new(world, other, icmp_of(self.family));
        let echo = echo.packet(&icmp(world, other, kind, [0, 9, 0, 1], b"ping"));
        self.dispatched("no protocol of services", (b, 8080), &echo, invalid);
        for place in [0, 1, 2, 6, 8, 10, 11, 44] {
            let mut payload = geneve((b, 8080), &packet);
            payload[place] ^= 1;
            let outer = udp(OTHER_NODE[0], NODE[0], [50_000, 6081], &payload);
            let outer = Ip::new(OTHER_NODE[0], NODE[0], UDP).packet(&outer);
            self.network("not of our form", &outer, invalid);
        }
        let datagram = |to| datagram((a, 55_000), (to, 6081));
        let prohibited = Expected::Drop(DropReason::EncapsulationProhibited);
        self.pod("a pod speaks for a node", &datagram(other), prohibited);
        let name = "a pod speaks for a node through a service";
        let through_service = super::services::datagram((world, 55_000), (node, 30_087));
        self.network(name, &through_service, prohibited);
        self.pod(
            "a pod uses the port elsewhere",
            &datagram(world),
            Expected::ToNetwork,
        );
        if self.native {
            let to_b = self.to_b();
            let packet = super::services::datagram((remote, 55_000), (b, 6081));
            self.network("a pod serves the port", &packet, to_b);
        }
    }
}
