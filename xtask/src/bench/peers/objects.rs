// SPDX-License-Identifier: Apache-2.0
//! The objects that every side is fed with.
//!
//! One service of nine, the first and the last of each number among them, leads to the backends that answer, the others to
//! addresses that nobody has. So one that answers is always near the end of the list of rules, whatever the order that
//! kube-proxy writes it in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::bench::Family;
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

/// The first address of each family of some use.
type First = (Ipv4Addr, Ipv6Addr);

/// Services, behind those that the API server gives out by itself, and endpoints that nobody has.
const SERVICE: First = (
    Ipv4Addr::new(10, 96, 64, 0),
    Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x4000),
);
const STRANGER: First = (
    Ipv4Addr::new(10, 128, 0, 0),
    Ipv6Addr::new(0xfd00, 0x128, 0, 0, 0, 0, 0, 0),
);
/// Pods, the same on every node: of the range of the third, which is Weir's.
const CLIENT: First = (
    Ipv4Addr::new(10, 200, 3, 7),
    Ipv6Addr::new(0xfd00, 0x200, 0, 3, 0, 0, 0, 7),
);
const BACKEND: First = (
    Ipv4Addr::new(10, 200, 3, 11),
    Ipv6Addr::new(0xfd00, 0x200, 0, 3, 0, 0, 0, 11),
);

fn nth((v4, v6): First, family: Family, number: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(v4.to_bits() + number).into(),
        Family::V6 => Ipv6Addr::from_bits(v6.to_bits() + u128::from(number)).into(),
    }
}

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
pub(super) fn address(family: Family, number: u32) -> IpAddr {
    nth(SERVICE, family, number)
}

/// The service that has the address; none: it is no service of the benchmark.
pub(super) fn number_of(address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(SERVICE.0.to_bits()),
        IpAddr::V6(v6) => v6
            .to_bits()
            .checked_sub(SERVICE.1.to_bits())?
            .try_into()
            .ok(),
    }
}

/// Whether somebody answers behind a service.
pub(super) fn answers(number: u32, last: u32) -> bool {
    number.is_multiple_of(9) || number == last
}

/// The address of a client.
pub(super) fn client(family: Family, number: u8) -> IpAddr {
    nth(CLIENT, family, number.into())
}

/// The address of a backend.
pub(super) fn backend(family: Family, number: u8) -> IpAddr {
    nth(BACKEND, family, number.into())
}

/// The family as objects say it.
fn word(family: Family) -> &'static str {
    family.pick("IPv4", "IPv6")
}

pub(super) fn service(family: Family, number: u32) -> Value {
    let address = address(family, number);
    json!({
        "metadata": {"name": format!("s{number}")},
        "spec": {"clusterIP": address, "clusterIPs": [address], "ipFamilies": [word(family)],
                 "ports": [{"port": PORT, "targetPort": TARGET_PORT}]},
    })
}

/// The addresses behind a service.
pub(super) fn endpoints(
    family: Family,
    number: u32,
    answers: bool,
    half: Option<Half>,
) -> Vec<IpAddr> {
    let stranger = number * u32::from(ENDPOINTS);
    (0..ENDPOINTS)
        .filter(|one| half.is_none_or(|half| Half::of(*one) == half))
        .map(|one| {
            if answers {
                backend(family, one)
            } else {
                nth(STRANGER, family, stranger + u32::from(one))
            }
        })
        .collect()
}

/// The slice of a service that somebody answers for (all the backends, or half of them), or nobody.
pub(super) fn slice(family: Family, number: u32, answers: bool, half: Option<Half>) -> Value {
    let name = format!("s{number}");
    let endpoints: Vec<Value> = endpoints(family, number, answers, half)
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": word(family), "ports": [{"port": TARGET_PORT, "protocol": "TCP"}], "endpoints": endpoints,
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
            assert_eq!(number_of(address(Family::V4, number)), Some(number));
            assert_eq!(number_of(address(Family::V6, number)), Some(number));
        }
        for first in ["10.96.0.1", "fd00:96::1"] {
            assert_eq!(number_of(first.parse().expect("an address")), None);
        }
    }

    #[test]
    fn a_change_replaces_every_backend() {
        let addresses = |half| {
            slice(Family::V6, 0, true, half)["endpoints"]
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
