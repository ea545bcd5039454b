// SPDX-License-Identifier: Apache-2.0
//! Attempts over time.

use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, Protocol};

use super::*;
use crate::policy_log::entry::End;

fn entry(disposition: Disposition, source_port: u16, destination_port: u16, seen: u64) -> Entry {
    let address = |last| Address::from_v4([10, 0, 0, last]);
    Entry {
        connection: Connection {
            src_ip: address(1),
            dest_ip: address(2),
            src_port: Some(source_port),
            dest_port: Some(destination_port),
            protocol: Protocol::TCP,
            direction: PolicyDirection::Ingress,
        },
        disposition,
        policies: Vec::new(),
        src: End::pod("shop", "cli"),
        dest: End::pod("shop", "web"),
        count: 1,
        node_name: "n1".to_owned(),
        timestamp: seen.to_string(),
        seen,
    }
}

fn deny(source_port: u16, destination_port: u16, seen: u64) -> Entry {
    entry(Disposition::Deny, source_port, destination_port, seen)
}

/// Source port, destination port and count of the lines.
fn lines(fates: Vec<Fate>) -> Vec<(u16, u16, u64)> {
    let line = |fate| match fate {
        Fate::Write(entry) => (
            entry.connection.src_port.unwrap(),
            entry.connection.dest_port.unwrap(),
            entry.count,
        ),
        Fate::Gathered | Fate::Dropped(_) => panic!("{fate:?}"),
    };
    fates.into_iter().map(line).collect()
}

#[test]
fn denials_of_a_connection_make_one_line() {
    let mut gather = Gather::new(Limits::default());
    for (source_port, destination_port, seen) in [
        (1001, 80, SECOND),
        (1002, 80, 2 * SECOND),
        (1003, 81, 3 * SECOND),
        (1004, 80, 5 * SECOND),
    ] {
        let fate = gather.take(deny(source_port, destination_port, seen), seen);
        assert_eq!(fate, Fate::Gathered);
    }
    assert_eq!(gather.due(6 * SECOND - 1), []);
    assert_eq!(lines(gather.due(6 * SECOND)), [(1001, 80, 3)]);
    // The next one begins anew.
    gather.take(deny(1005, 80, 7 * SECOND), 7 * SECOND);
    assert_eq!(lines(gather.due(8 * SECOND)), [(1003, 81, 1)]);
    assert_eq!(lines(gather.rest(8 * SECOND)), [(1005, 80, 1)]);
    assert_eq!(gather.rest(8 * SECOND), []);
}

#[test]
fn allowed_connections_are_lines_at_once() {
    let mut gather = Gather::new(Limits::default());
    for seen in [1, 2] {
        let entry = entry(Disposition::Allow, 1001, 80, seen);
        assert_eq!(
            gather.take(entry.clone(), seen),
            Fate::Write(Box::new(entry))
        );
    }
}

#[test]
fn a_second_has_room_for_so_many_lines() {
    let mut gather = Gather::new(Limits {
        max_log_rate: 2,
        ..Limits::default()
    });
    let mut take = |now: u64| {
        let fate = gather.take(entry(Disposition::Allow, 1001, 80, now), now);
        fate != Fate::Dropped(Dropped::RateLimit)
    };
    // Room that was not used is not kept.
    assert_eq!([0, 1, 2].map(&mut take), [true, true, false]);
    assert!(take(5 * SECOND));
    assert!(take(6 * SECOND - 1));
    assert!(!take(6 * SECOND - 1));
    assert!(take(6 * SECOND));
}

#[test]
fn only_so_many_different_denials_are_gathered() {
    let mut gather = Gather::new(Limits {
        deny_aggregation_map_size: 1,
        ..Limits::default()
    });
    assert_eq!(gather.take(deny(1, 80, 0), 0), Fate::Gathered);
    assert_eq!(
        gather.take(deny(1, 81, 0), 0),
        Fate::Dropped(Dropped::Aggregation)
    );
    assert_eq!(gather.take(deny(2, 80, 0), 0), Fate::Gathered);
    assert_eq!(lines(gather.due(5 * SECOND)), [(1, 80, 2)]);
    assert_eq!(gather.take(deny(1, 81, 0), 0), Fate::Gathered);
}

#[test]
fn without_gathering_each_denial_is_a_line() {
    let mut gather = Gather::new(Limits {
        deny_aggregation_seconds: 0,
        ..Limits::default()
    });
    for _ in 0..2 {
        assert!(matches!(gather.take(deny(1, 80, 0), 0), Fate::Write(_)));
    }
}
