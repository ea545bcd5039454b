// SPDX-License-Identifier: Apache-2.0
//! From the bytes of a question to those of its answer.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{RData, Record},
};

use super::lookup::{Found, lookup};
use crate::names::Names;

/// What a question came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Datagram,
    Stream,
}

/// As long as an answer may be kept, in seconds; `CoreDNS` says the same.
const TTL: u32 = 5;
/// As long as a datagram may be where the question says nothing about it, and the longest there is (RFC 6891).
const SHORT: u16 = 512;
const LONG: u16 = 1232;

/// The answer to a question; none to what is no question.
pub(crate) fn answer(names: &Names, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    if question.metadata.message_type != MessageType::Query {
        return None;
    }
    let (id, code) = (question.metadata.id, question.metadata.op_code);
    let mut reply = Message::response(id, code);
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.add_queries(question.queries.iter().cloned());
    match question.queries.as_slice() {
        [query] if code == OpCode::Query => {
            let found = lookup(names, query.name(), query.query_type());
            fill(&mut reply, found);
        }
        _ => reply.metadata.response_code = ResponseCode::NotImp,
    }
    let mut limit = SHORT;
    if let Some(edns) = &question.edns {
        limit = edns.max_payload().clamp(SHORT, LONG);
        let mut own = Edns::new();
        own.set_max_payload(LONG);
        reply.set_edns(own);
    }
    let bytes = reply.to_vec().ok()?;
    if transport == Transport::Datagram && bytes.len() > limit.into() {
        // The client asks again over TCP.
        return reply.truncate().to_vec().ok();
    }
    Some(bytes)
}

fn fill(reply: &mut Message, found: Found) {
    let code = match &found {
        Found::Foreign => ResponseCode::Refused,
        Found::Nothing { .. } => ResponseCode::NXDomain,
        Found::Records { .. } => ResponseCode::NoError,
    };
    reply.metadata.response_code = code;
    reply.metadata.authoritative = code != ResponseCode::Refused;
    let record = |(name, data): (_, RData)| Record::from_rdata(name, TTL, data);
    match found {
        Found::Foreign => {}
        Found::Nothing { authority } => {
            reply.add_authority(record(authority));
        }
        Found::Records {
            answers,
            additional,
            authority,
        } => {
            // What has the name but not the type is an answer too: none, and who says so.
            if answers.is_empty() {
                reply.add_authority(record(authority));
            }
            reply.add_answers(answers.into_iter().map(record));
            reply.add_additionals(additional.into_iter().map(record));
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::Query,
        rr::{Name, RecordType},
    };

    use super::*;
    use crate::names::{Endpoint, Port, Service};

    fn names() -> Names {
        let port = |name: &str, number| Port {
            name: name.to_owned(),
            protocol: "tcp".to_owned(),
            number,
        };
        let endpoint = |label: &str, address: &str| Endpoint {
            label: label.to_owned(),
            address: address.parse().unwrap(),
            ports: vec![port("http", 8080)],
        };
        let web = Service {
            addresses: ["10.96.0.20", "fd00:96::14"]
                .map(|ip| ip.parse().unwrap())
                .into(),
            ports: vec![port("http", 80)],
            ..Service::default()
        };
        let endpoints = vec![
            endpoint("db-0", "10.244.1.5"),
            endpoint("10-244-2-6", "10.244.2.6"),
        ];
        let db = Service {
            addresses: endpoints.iter().map(|endpoint| endpoint.address).collect(),
            ports: vec![port("http", 80)],
            endpoints,
            ..Service::default()
        };
        let alias = |name: &str| Service {
            alias: Some(name.to_owned()),
            ..Service::default()
        };
        let many = Service {
            addresses: (1..=200).map(|last| [10, 244, 3, last].into()).collect(),
            ..Service::default()
        };
        let shop = [
            ("web", web),
            ("db", db),
            ("far", alias("example.org")),
            ("near", alias("web.shop.svc.cluster.local")),
            ("empty", Service::default()),
            ("many", many),
        ];
        Names {
            domain: "cluster.local".to_owned(),
            namespaces: [
                (
                    "shop".to_owned(),
                    shop.map(|(name, service)| (name.to_owned(), service))
                        .into(),
                ),
                ("bare".to_owned(), [].into()),
            ]
            .into(),
        }
    }

    fn ask(name: &str, kind: RecordType, transport: Transport, size: Option<u16>) -> Message {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        if let Some(size) = size {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            question.set_edns(edns);
        }
        let reply = answer(&names(), &question.to_vec().unwrap(), transport).unwrap();
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.id, question.metadata.id);
        reply
    }

    /// The code and, sorted, the data of the answers.
    fn check(name: &str, kind: RecordType, code: ResponseCode, expected: &[&str]) {
        let reply = ask(name, kind, Transport::Stream, None);
        assert_eq!(reply.metadata.response_code, code, "{name} {kind}");
        let mut data: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
        data.sort();
        assert_eq!(data, expected, "{name} {kind}");
        let soa = !reply.authorities.is_empty();
        let refused = code == ResponseCode::Refused;
        assert_eq!(soa, expected.is_empty() && !refused, "{name} {kind}");
    }

    #[test]
    fn names_of_the_specification_are_answered() {
        use RecordType::{A, AAAA, CNAME, PTR, SRV, TXT};
        use ResponseCode::{NXDomain, NoError, Refused};
        check("web.shop.svc.cluster.local.", A, NoError, &["10.96.0.20"]);
        check("WEB.Shop.svc.Cluster.Local.", A, NoError, &["10.96.0.20"]);
        check(
            "web.shop.svc.cluster.local.",
            AAAA,
            NoError,
            &["fd00:96::14"],
        );
        check("web.shop.svc.cluster.local.", TXT, NoError, &[]);
        check(
            "db.shop.svc.cluster.local.",
            A,
            NoError,
            &["10.244.1.5", "10.244.2.6"],
        );
        check(
            "db-0.db.shop.svc.cluster.local.",
            A,
            NoError,
            &["10.244.1.5"],
        );
        check("db-0.db.shop.svc.cluster.local.", AAAA, NoError, &[]);
        check("db-1.db.shop.svc.cluster.local.", A, NXDomain, &[]);
        check("empty.shop.svc.cluster.local.", A, NXDomain, &[]);
        check("nobody.shop.svc.cluster.local.", A, NXDomain, &[]);
        check("web.nowhere.svc.cluster.local.", A, NXDomain, &[]);
        check("shop.svc.cluster.local.", A, NoError, &[]);
        check(
            "_http._tcp.web.shop.svc.cluster.local.",
            SRV,
            NoError,
            &["0 100 80 web.shop.svc.cluster.local."],
        );
        check(
            "_http._tcp.db.shop.svc.cluster.local.",
            SRV,
            NoError,
            &[
                "0 50 8080 10-244-2-6.db.shop.svc.cluster.local.",
                "0 50 8080 db-0.db.shop.svc.cluster.local.",
            ],
        );
        check("_http._udp.web.shop.svc.cluster.local.", SRV, NXDomain, &[]);
        check("far.shop.svc.cluster.local.", A, NoError, &["example.org."]);
        check(
            "far.shop.svc.cluster.local.",
            CNAME,
            NoError,
            &["example.org."],
        );
        check(
            "near.shop.svc.cluster.local.",
            A,
            NoError,
            &["10.96.0.20", "web.shop.svc.cluster.local."],
        );
        check(
            "10-244-1-5.shop.pod.cluster.local.",
            A,
            NoError,
            &["10.244.1.5"],
        );
        check(
            "fd00-244-1--5.bare.pod.cluster.local.",
            AAAA,
            NoError,
            &["fd00:244:1::5"],
        );
        check("10-244-1-5.nowhere.pod.cluster.local.", A, NXDomain, &[]);
        check("dns-version.cluster.local.", TXT, NoError, &["1.1.0"]);
        check(
            "20.0.96.10.in-addr.arpa.",
            PTR,
            NoError,
            &["web.shop.svc.cluster.local."],
        );
        check(
            "5.1.244.10.in-addr.arpa.",
            PTR,
            NoError,
            &["db-0.db.shop.svc.cluster.local."],
        );
        check("9.9.9.9.in-addr.arpa.", PTR, Refused, &[]);
        check("example.org.", A, Refused, &[]);
        check("local.", A, Refused, &[]);
    }

    #[test]
    fn what_does_not_fit_a_datagram_is_cut() {
        let name = "many.shop.svc.cluster.local.";
        for (transport, size, whole) in [
            (Transport::Datagram, None, false),
            (Transport::Datagram, Some(4096), false),
            (Transport::Stream, None, true),
        ] {
            let reply = ask(name, RecordType::A, transport, size);
            assert_eq!(reply.metadata.truncation, !whole);
            assert_eq!(reply.answers.len(), if whole { 200 } else { 0 });
            assert_eq!(reply.edns.is_some(), size.is_some());
        }
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        assert_eq!(answer(&names(), b"hello", Transport::Datagram), None);
        assert_eq!(
            answer(&names(), &[0; 12], Transport::Datagram).map(|a| a[3]),
            Some(4)
        );
        let reply = Message::response(7, OpCode::Query).to_vec().unwrap();
        assert_eq!(answer(&names(), &reply, Transport::Datagram), None);
    }
}
