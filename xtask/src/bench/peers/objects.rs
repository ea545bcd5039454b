// SPDX-License-Identifier: Apache-2.0
//! The objects that every side is fed with.
//!
//! One service of nine, the first and the last of each number among them, leads to the backends that answer, the others to
//! addresses that nobody has. So one that answers is always near the end of the list of rules, whatever the order that
//! kube-proxy writes it in.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::cluster::place::Node;

/// Endpoints of each service.
pub(super) const ENDPOINTS: u8 = 10;

/// The port of the services, and that of their backends.
pub(super) const PORT: u16 = 80;
pub(super) const TARGET_PORT: u16 = 8080;

pub(super) const NAMESPACE: &str = "default";
pub(super) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
pub(super) const PODS: &str = "/api/v1/namespaces/default/pods";

/// The first address of the services, behind those that the API server gives out by itself, and the first of endpoints
/// that nobody has.
const FIRST_SERVICE: u32 = u32::from_be_bytes([10, 96, 64, 0]);
const FIRST_STRANGER: u32 = u32::from_be_bytes([10, 128, 0, 0]);

/// A group of backends; each answers with the name of its own.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Half {
    First,
    Second,
}

impl Half {
    /// That of a backend, by its number.
    pub(super) fn of(backend: u8) -> Self {
        if backend < ENDPOINTS / 2 {
            Self::First
        } else {
            Self::Second
        }
    }

    pub(super) fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Second => "second",
        }
    }
}

/// The address of a service, by its number.
pub(super) fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(FIRST_SERVICE + number)
}

/// The service that has the address; none: it is no service of the benchmark.
pub(super) fn number_of(address: Ipv4Addr) -> Option<u32> {
    u32::from(address).checked_sub(FIRST_SERVICE)
}

/// Whether somebody answers behind a service.
pub(super) fn answers(number: u32, last: u32) -> bool {
    number.is_multiple_of(9) || number == last
}

/// The address of a client, the same on every node: of the range of the third, which is Weir's.
pub(super) fn client(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, 3, 7 + number)
}

/// The address of a backend, the same on every node.
pub(super) fn backend(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 200, 3, 11 + number)
}

pub(super) fn service(number: u32) -> Value {
    let address = address(number);
    json!({
        "metadata": {"name": format!("s{number}")},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": PORT, "targetPort": TARGET_PORT}]},
    })
}

/// The addresses behind a service.
pub(super) fn endpoints(number: u32, answers: bool, half: Option<Half>) -> Vec<Ipv4Addr> {
    let stranger = FIRST_STRANGER + number * u32::from(ENDPOINTS);
    (0..ENDPOINTS)
        .filter(|one| half.is_none_or(|half| Half::of(*one) == half))
        .map(|one| {
            if answers {
                backend(one)
            } else {
                Ipv4Addr::from(stranger + u32::from(one))
            }
        })
        .collect()
}

/// The slice of a service that somebody answers for (all the backends, or half of them), or nobody.
pub(super) fn slice(number: u32, answers: bool, half: Option<Half>) -> Value {
    let name = format!("s{number}");
    let endpoints: Vec<Value> = endpoints(number, answers, half)
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"port": TARGET_PORT, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

/// A node as its kubelet would register it, by its place among the nodes from 1 on.
pub(super) fn node(node: Node, place: usize) -> Value {
    let ranges = [
        format!("10.200.{place}.0/24"),
        format!("fd00:200:0:{place}::/64"),
    ];
    let addresses = [node.v4(), node.v6()].map(|one| json!({"type": "InternalIP", "address": one}));
    json!({
        "metadata": {"name": node.to_string()},
        "spec": {"podCIDR": ranges[0], "podCIDRs": ranges},
        "status": {"addresses": addresses},
    })
}

pub(super) fn pod(name: &str, node: Node) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"nodeName": node.to_string(), "automountServiceAccountToken": false,
                 "containers": [{"name": "main", "image": "none"}]},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_known_by_their_addresses() {
        for number in [0, 999, 9_999] {
            assert_eq!(number_of(address(number)), Some(number));
        }
        assert_eq!(number_of(Ipv4Addr::new(10, 96, 0, 1)), None);
    }

    #[test]
    fn a_change_replaces_every_backend() {
        let addresses = |half| {
            slice(0, true, half)["endpoints"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|one| one["addresses"][0].as_str().expect("text").to_owned())
                .collect::<Vec<_>>()
        };
        let (first, second) = (addresses(Some(Half::First)), addresses(Some(Half::Second)));
        assert!(first.iter().all(|one| !second.contains(one)));
        assert_eq!([first, second].concat(), addresses(None));
    }

    #[test]
    fn the_first_and_the_last_service_of_every_number_answer() {
        for count in [1, 1_000, 1_234, 10_000] {
            assert!(answers(0, count - 1) && answers(count - 1, count - 1));
        }
        assert!(!answers(1, 999));
    }
}
