// SPDX-License-Identifier: Apache-2.0
//! Packets through services.

use weir_abi::DropReason;
use weir_abi::service::{LOOPBACK_V4, LOOPBACK_V6};

use super::super::raw::{Ip, SCTP, TCP, UDP, icmp, icmp_of, sctp, tcp, udp};
use super::super::services::{BALANCER, CLUSTER};
use super::super::world::{
    EXEMPT_HOST, FAR, FAR_NODE, NODE, OTHER_NODE, POD_A, POD_B, REMOTE, WORLD,
};
use super::{ACK, Expected, SYN, Table};

/// An end of a connection.
pub(super) type End = (&'static str, u16);

pub(super) fn segment(from: End, to: End, flags: u8) -> Vec<u8> {
    Ip::new(from.0, to.0, TCP).packet(&tcp(from.0, to.0, [from.1, to.1], flags, b"data"))
}

pub(super) fn datagram(from: End, to: End) -> Vec<u8> {
    Ip::new(from.0, to.0, UDP).packet(&udp(from.0, to.0, [from.1, to.1], b"data"))
}

impl Table {
    pub(super) fn services_of_pods(&mut self) {
        let [a, b, remote] = [POD_A, POD_B, REMOTE].map(|names| self.to(names));
        let [cluster, node] = [CLUSTER, NODE].map(|names| self.to(names));
        let (to_a, to_b) = (self.to_a(), self.to_b());
        for (name, service) in [
            ("cluster IP, backend on this node", (cluster, 80)),
            ("node port of its own node", (node, 30080)),
        ] {
            let client = (a, 50_000 + service.1 % 777);
            self.pod(name, &segment(client, service, SYN), to_b);
            self.sent(client, (b, 8080));
            self.pod_b(name, &segment((b, 8080), client, SYN | ACK), to_a);
            self.sent(service, client);
            self.pod(name, &segment(client, service, ACK), to_b);
            self.sent(client, (b, 8080));
            self.pod(name, &segment(client, service, ACK), to_b);
            self.pod_b(name, &segment((b, 8080), client, ACK), to_a);
            self.sent(service, client);
        }
        let name = "cluster IP, backend on another node";
        self.pod(
            name,
            &segment((a, 52_000), (cluster, 81), SYN),
            Expected::ToNetwork,
        );
        self.sent((a, 52_000), (remote, 8080));
        self.remote(name, &segment((remote, 8080), (a, 52_000), SYN | ACK), to_a);
        self.sent((cluster, 81), (a, 52_000));
        let name = "a pod that is its own backend";
        let loopback = [LOOPBACK_V4, LOOPBACK_V6][self.family];
        let loopback: &'static str = Box::leak(loopback.to_string().into_boxed_str());
        for packet in [
            segment((a, 53_000), (cluster, 83), SYN),
            datagram((a, 53_000), (cluster, 83)),
        ] {
            self.pod(name, &packet, to_a);
            self.sent((loopback, 53_000), (a, 8080));
        }
        self.pod(
            name,
            &segment((a, 8080), (loopback, 53_000), SYN | ACK),
            to_a,
        );
        self.sent((cluster, 83), (a, 53_000));
        self.pod(name, &segment((a, 53_000), (cluster, 83), ACK), to_a);
        self.sent((loopback, 53_000), (a, 8080));
        self.pod(
            "cluster IP, backend is the node",
            &segment((a, 53_500), (cluster, 85), SYN),
            Expected::ToHost,
        );
        self.sent((a, 53_500), (node, 9090));
        self.host(
            "the node answers",
            &segment((node, 9090), (a, 53_500), SYN | ACK),
            to_a,
        );
        self.sent((cluster, 85), (a, 53_500));
        let refused = Expected::Error(DropReason::ServiceBackendNotFound);
        self.pod(
            "no backend",
            &segment((a, 54_000), (cluster, 82), SYN),
            refused,
        );
        self.pod(
            "no backend, UDP",
            &datagram((a, 54_000), (cluster, 82)),
            refused,
        );
        let refused = Expected::Error(DropReason::NoServicePort);
        self.pod(
            "no such port",
            &segment((a, 54_000), (cluster, 99), SYN),
            refused,
        );
        let echo = Ip::new(a, cluster, icmp_of(self.family));
        let kind = [self.echo_types()[0], 0];
        let echo = echo.packet(&icmp(a, cluster, kind, [0, 9, 0, 1], b"ping"));
        self.pod("echo to a cluster IP", &echo, refused);
        let other = Ip::new(a, cluster, SCTP).packet(&sctp([54_000, 80]));
        self.pod("no such protocol", &other, refused);
        let chunk = |port| Ip::new(a, cluster, SCTP).packet(&sctp([54_000, port]));
        let refused = Expected::Drop(DropReason::SctpPortTranslation);
        self.pod("SCTP to another port", &chunk(86), refused);
        self.pod("SCTP to the same port", &chunk(87), to_b);
        let balancer = self.to(BALANCER);
        self.pod(
            "a source outside of the ranges",
            &segment((a, 56_000), (balancer, 80), SYN),
            Expected::Drop(DropReason::SourceRangeDenied),
        );
    }

    pub(super) fn services_from_outside(&mut self) {
        let [b, remote, node, world] = [POD_B, REMOTE, NODE, WORLD].map(|names| self.to(names));
        let [cluster, balancer] = [CLUSTER, BALANCER].map(|names| self.to(names));
        let to_b = self.to_b();
        let client = (world, 50_000);
        let name = "node port, backend on this node";
        self.network(name, &segment(client, (node, 30080), SYN), to_b);
        self.sent(client, (b, 8080));
        self.pod_b(
            name,
            &segment((b, 8080), client, SYN | ACK),
            Expected::ToNetwork,
        );
        self.sent((node, 30080), client);
        self.network(name, &segment(client, (node, 30080), ACK), to_b);
        self.sent(client, (b, 8080));
        let name = "node port, backend on another node";
        self.network(
            name,
            &segment(client, (node, 30081), SYN),
            Expected::ToNetwork,
        );
        self.sent((node, 50_000), (remote, 8080));
        let answer = segment((remote, 8080), (node, 50_000), SYN | ACK);
        self.remote(name, &answer, Expected::ToNetwork);
        self.sent((node, 30081), client);
        self.network(
            name,
            &segment(client, (node, 30081), ACK),
            Expected::ToNetwork,
        );
        self.sent((node, 50_000), (remote, 8080));
        let data = vec![7; 1400 + 72 - 20 * self.family];
        let large = udp(world, node, [50_000, 30081], &data);
        let large = Ip::new(world, node, UDP).packet(&large);
        let expected = if self.native {
            Expected::ToNetwork
        } else {
            Expected::Error(DropReason::FragmentationNeeded)
        };
        self.network("too large for the way to the backend", &large, expected);
        let about = segment((node, 30081), client, ACK);
        let (router, kind) = (EXEMPT_HOST[self.family], [[11, 0], [3, 0]][self.family]);
        let error = icmp(router, node, kind, [0; 4], &about);
        let error = Ip::new(router, node, icmp_of(self.family)).packet(&error);
        let name = "a router's error about what the backend sent";
        self.network(name, &error, Expected::ToNetwork);
        // Nodes let through only what another node sends for itself and its pods.
        self.sent_between(node, remote);
        let far = self.to(FAR);
        let name = "node port, client and backend on other nodes";
        for flags in [SYN, ACK, ACK] {
            let packet = segment((remote, 57_000), (node, 30085), flags);
            self.remote(name, &packet, Expected::ToNetwork);
            self.sent((node, 57_000), (far, 8080));
            self.through(FAR_NODE);
        }
        self.network(
            "node port without a backend",
            &segment(client, (node, 30082), SYN),
            Expected::Error(DropReason::ServiceBackendNotFound),
        );
        self.network(
            "node port that keeps to this node",
            &segment(client, (node, 30083), SYN),
            Expected::Drop(DropReason::ServiceBackendNotFound),
        );
        let name = "node port, backend is the node";
        self.network(name, &segment(client, (node, 30084), SYN), Expected::Pass);
        self.towards_network(
            name,
            &segment((node, 9090), client, SYN | ACK),
            Expected::Pass,
        );
        self.towards_network(
            "another answer of the node",
            &segment((node, 22), client, SYN | ACK),
            Expected::Pass,
        );
        self.network(
            "cluster IP from outside",
            &segment(client, (cluster, 80), SYN),
            Expected::Drop(DropReason::IsClusterIp),
        );
        let name = "load balancer, source in the ranges";
        self.network(name, &segment(client, (balancer, 80), SYN), to_b);
        self.sent(client, (b, 80));
        self.network(
            "load balancer, other port",
            &segment(client, (balancer, 81), SYN),
            Expected::Error(DropReason::NoServicePort),
        );
    }
    /// Backends that are other nodes.
    pub(super) fn services_of_nodes(&mut self) {
        let [node, world] = [NODE, WORLD].map(|names| self.to(names));
        let client = (world, 50_000);
        let name = "node port, backend is another node";
        self.network(
            name,
            &segment(client, (node, 30086), SYN),
            Expected::ToNetwork,
        );
        self.sent((node, 50_000), (self.to(OTHER_NODE), 9090));
        if !self.native {
            self.network(
                "a service that leads to the tunnel of a node",
                &datagram(client, (node, 30088)),
                Expected::Drop(DropReason::EncapsulationProhibited),
            );
        }
    }
}
