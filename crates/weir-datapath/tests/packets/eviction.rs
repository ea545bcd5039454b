// SPDX-License-Identifier: Apache-2.0
//! A full table forgets entries that have seen no packet first: those that wait for an answer. Whoever asks again gets one.

use weir_abi::service::FrontendKey;
use weir_abi::{IfIndex, MacAddress, Port, Protocol};
use weir_datapath::Hook;
use weir_verdict::memory::MemoryTables;
use weir_verdict::{Redirect, Verdict};

use super::LINKS;
use super::properties::run;
use super::raw::{Ip, SCTP, UDP, ethernet, sctp, udp};
use super::services::CLUSTER;
use super::tuple::{Tuple, tuple};
use super::world::{POD_A, POD_B, ip, pod_mac};

const CLIENT_PORT: u16 = 4711;
/// Of service and backend: for SCTP they have to be the same.
const PORT: u16 = 8080;

/// The first pod talks to the second one through a service.
struct Talk {
    tables: MemoryTables,
    family: usize,
    protocol: Protocol,
}

impl Talk {
    fn new(family: usize, protocol: Protocol) -> Self {
        let mut tables = LINKS.tables(false);
        tables.now.set(1000);
        let service = ip(CLUSTER[family]);
        let known = FrontendKey::new(service, Port::new(80), Protocol::UDP);
        let row = tables.frontends[&known];
        let frontend = FrontendKey::new(service, Port::new(PORT), protocol);
        tables.frontends.insert(frontend, row);
        Self {
            tables,
            family,
            protocol,
        }
    }

    /// Sends a packet that shall arrive at the other pod, and returns it as it arrives there.
    fn send(
        &self,
        (from, mac, link): (&str, MacAddress, IfIndex),
        to: &str,
        ports: [u16; 2],
        arrives: IfIndex,
    ) -> Tuple {
        let packet = if self.protocol == Protocol::SCTP {
            Ip::new(from, to, SCTP).packet(&sctp(ports))
        } else {
            Ip::new(from, to, UDP).packet(&udp(from, to, ports, b"data"))
        };
        let frame = ethernet(mac, MacAddress::GATEWAY, &packet);
        let (verdict, sent) = run(&self.tables, Hook::FromContainer, link, &frame);
        assert_eq!(verdict, Verdict::Redirect(Redirect::Peer(arrives)));
        tuple(&sent)
    }

    /// The client asks; answers the port that the backend sees.
    fn ask(&self) -> u16 {
        let client = (POD_A[self.family], pod_mac(0x0a), LINKS.pod_a);
        let ports = [CLIENT_PORT, PORT];
        let seen = self.send(client, CLUSTER[self.family], ports, LINKS.pod_b);
        assert_eq!(seen.destination, ip(POD_B[self.family]));
        seen.source_port
    }

    /// The backend answers to a port; whether the client takes what arrives for an answer.
    fn is_answered(&self, port: u16) -> bool {
        let backend = (POD_B[self.family], pod_mac(0x0b), LINKS.pod_b);
        let got = self.send(backend, POD_A[self.family], [PORT, port], LINKS.pod_a);
        got.source == ip(CLUSTER[self.family]) && got.destination_port == CLIENT_PORT
    }

    /// Forgets the entry that packets of this pod find.
    fn evict(&self, sender: [&str; 2]) {
        let from = ip(sender[self.family]);
        let flows = self.tables.flows();
        let key = flows.keys().find(|key| key.source == from).copied();
        self.tables.evict(&key.unwrap());
    }
}

fn talks() -> impl Iterator<Item = Talk> {
    let protocols = [Protocol::UDP, Protocol::SCTP];
    (0..2).flat_map(move |family| protocols.map(|protocol| Talk::new(family, protocol)))
}

#[test]
fn the_entry_for_an_answer_is_back_a_second_later() {
    for talk in talks() {
        let port = talk.ask();
        talk.evict(POD_B);
        assert!(!talk.is_answered(port), "there is no entry");
        talk.tables.now.set(1001);
        assert_eq!(talk.ask(), port);
        assert!(talk.is_answered(port), "{:?}", talk.protocol);
    }
}

/// The answer came while nothing was known of the question, and made an entry of its own.
#[test]
fn an_answer_without_a_question_is_not_in_the_way_of_the_next_one() {
    for talk in talks() {
        let port = talk.ask();
        talk.evict(POD_B);
        talk.evict(POD_A);
        assert!(!talk.is_answered(port), "nobody knows the connection");
        let port = talk.ask();
        assert!(talk.is_answered(port), "{:?}", talk.protocol);
    }
}
