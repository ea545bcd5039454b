// SPDX-License-Identifier: Apache-2.0
//! Maps that are full: said aloud, with the service's name, and made good once there is room.

use std::sync::Arc;

use proptest::prelude::*;
use weir_model::{Change, Endpoint, Ingress, IngressMode, ServiceType};

use super::evaluate::{Sockets, evaluate, read};
use super::steps::Node;
use super::worlds::{endpoint, history, ip, service, service_ref, settings, slice, with_maglev};
use crate::service::{ServiceSettings, TableSize};

fn endpoints(hosts: std::ops::Range<u8>) -> Vec<Endpoint> {
    hosts
        .map(|host| endpoint(&format!("10.1.0.{host}"), 1))
        .collect()
}

fn filled(name: &str, address: &str, hosts: std::ops::Range<u8>) -> [Change; 2] {
    [
        Change::Service(Arc::new(service(name, address))),
        Change::EndpointSlice(Arc::new(slice(
            name,
            "a",
            &[("http", 8080)],
            endpoints(hosts),
        ))),
    ]
}

fn problems(node: &Node) -> Vec<String> {
    node.compiler.problems().map(ToString::to_string).collect()
}

fn reached(node: &Node, address: &str) -> usize {
    let view = read(&node.kernel);
    view[&(ip(address), 80, weir_abi::Protocol::TCP)]
        .internal
        .len()
}

#[test]
fn a_run_without_room_waits_until_there_is_some() {
    let mut node = Node::new(ServiceSettings {
        backends_size: 6,
        ..settings()
    });
    node.update(filled("a", "10.96.0.1", 1..4));
    node.update(filled("b", "10.96.0.2", 1..5));
    assert_eq!(
        (reached(&node, "10.96.0.1"), reached(&node, "10.96.0.2")),
        (3, 0)
    );
    assert_eq!(
        problems(&node),
        [
            "map backends is full with 6 entries: port 80/TCP of service shop/b is left out; raise mapSizes.backends"
        ]
    );
    // The places of what goes are free only when the kernel knows.
    node.change([Change::ServiceGone(service_ref("a"))]);
    assert!(node.compiler.executed());
    let operations = node.change([]);
    assert!(!operations.is_empty());
    assert_eq!(problems(&node), [""; 0]);
    assert!(!node.compiler.executed());
}

#[test]
fn without_room_for_a_new_run_the_old_one_stays_while_it_is_right() {
    let mut node = Node::new(ServiceSettings {
        backends_size: 4,
        ..settings()
    });
    node.update(filled("a", "10.96.0.1", 1..4));
    node.update(filled("a", "10.96.0.1", 1..5));
    assert_eq!((reached(&node, "10.96.0.1"), problems(&node).len()), (3, 1));
    // One of the old run is gone: rather none than a wrong one.
    node.update(filled("a", "10.96.0.1", 2..5));
    assert_eq!((reached(&node, "10.96.0.1"), problems(&node).len()), (0, 1));
    node.update([]);
    assert_eq!((reached(&node, "10.96.0.1"), problems(&node).len()), (3, 0));
}

#[test]
fn other_maps_that_are_full() {
    let check = |settings: ServiceSettings, map: &str, what: &str| {
        let mut node = Node::new(settings);
        node.update(filled("a", "10.96.0.1", 1..3));
        let mut outward = service("b", "10.96.0.2");
        outward.kind = ServiceType::LoadBalancer;
        outward.ingress = [Ingress {
            address: ip("198.51.100.1"),
            mode: IngressMode::Vip,
        }]
        .into();
        outward.source_ranges = [
            "10.0.0.0/8".parse().unwrap(),
            "192.0.2.0/24".parse().unwrap(),
        ]
        .into();
        let slice = slice("b", "a", &[("http", 8080)], endpoints(1..3));
        node.update([
            Change::Service(Arc::new(outward)),
            Change::EndpointSlice(Arc::new(slice)),
        ]);
        let found = problems(&node);
        let expected = format!("map {map} is full");
        assert!(
            found
                .iter()
                .any(|one| one.starts_with(&expected) && one.contains(what)),
            "{map}: {found:?}"
        );
    };
    let with = |change: fn(&mut ServiceSettings)| {
        let mut settings = settings();
        change(&mut settings);
        settings
    };
    check(
        with(|one| one.frontends_size = 2),
        "frontends",
        "198.51.100.1:80 of service shop/b",
    );
    check(
        with(|one| one.service_backends_size = 3),
        "service_backends",
        "port 80/TCP of service shop/b",
    );
    check(
        with(|one| one.source_ranges_size = 1),
        "source_ranges",
        "loadBalancerSourceRanges of service shop/b",
    );
    let one_table = with(|one| {
        one.maglev = TableSize::new(13);
        one.maglev_size = 25;
    });
    check(one_table, "maglev", "port 80/TCP of service shop/b");
}

#[test]
fn a_run_without_a_table_is_chosen_from_by_hash() {
    let mut node = Node::new(ServiceSettings {
        maglev_size: 13,
        ..with_maglev()
    });
    node.update(filled("a", "10.96.0.1", 1..3));
    node.update(filled("b", "10.96.0.2", 1..3));
    assert_eq!(
        (node.kernel.maglev.len(), reached(&node, "10.96.0.2")),
        (1, 2)
    );
    node.update([Change::ServiceGone(service_ref("a"))]);
    node.update([]);
    assert_eq!((node.kernel.maglev.len(), problems(&node).len()), (1, 0));
}

proptest! {
    #![proptest_config(super::config())]

    /// However small the maps are: nothing wrong is reached, nothing is written beyond them, and what
    /// is missing has a problem.
    #[test]
    fn small_maps_are_never_wrong(batches in history(), backends in 0u32..12, members in 0u32..16) {
        let mut node = Node::new(ServiceSettings {
            backends_size: backends,
            service_backends_size: members,
            maglev_size: 26,
            ..with_maglev()
        });
        for batch in batches {
            node.update(batch);
            let (view, wanted) = (read(&node.kernel), evaluate(&node.world, &node.settings));
            for (key, seen) in &view {
                let wanted: Sockets = wanted[key].internal.union(&wanted[key].external).copied().collect();
                prop_assert!(wanted.is_superset(&seen.internal) && wanted.is_superset(&seen.external));
            }
            let rows = &node.kernel;
            prop_assert!(rows.backends.end() <= backends as usize);
            prop_assert!(rows.service_backends.len() <= members as usize);
            prop_assert!(rows.maglev.len() <= 2);
            if view != wanted {
                prop_assert!(node.compiler.problems().next().is_some());
            }
        }
    }

    /// A frontend without room may be left to a younger service, so only the bound is certain.
    #[test]
    fn few_frontends_fit(batches in history(), frontends in 0u32..8) {
        let mut node = Node::new(ServiceSettings { frontends_size: frontends, ..settings() });
        for batch in batches {
            node.update(batch);
            let (view, wanted) = (read(&node.kernel), evaluate(&node.world, &node.settings));
            prop_assert!(view.len() <= frontends as usize);
            prop_assert!(view.keys().all(|key| wanted.contains_key(key)));
            prop_assert!(view.len() == wanted.len() || node.compiler.problems().next().is_some());
        }
        let gone: Vec<_> = node.world.services().map(|one| Change::ServiceGone(one.reference.clone())).collect();
        node.update(gone);
        let gone: Vec<_> = node.world.pods().map(|one| Change::PodGone(one.reference.clone())).collect();
        node.update(gone);
        prop_assert!(node.compiler.is_idle());
    }
}
