// SPDX-License-Identifier: Apache-2.0
//! Numbers are unique, stable and not reused at once.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

fn set(number: u8) -> LabelSet {
    LabelSet {
        namespace: Namespace::new(if number.is_multiple_of(2) {
            "even"
        } else {
            "odd"
        })
        .unwrap(),
        labels: Labels::new([("app", number.to_string())]).unwrap(),
        ports: NamedPorts::default(),
    }
}

proptest! {
    #[test]
    fn numbers_are_unique_and_stay(rounds in vec(btree_set(0u8..20, 0..10), 1..20)) {
        let mut table = IdentityTable::default();
        for round in rounds {
            let before = table.clone();
            let sets: BTreeSet<_> = round.into_iter().map(set).collect();
            let (_, refused) = table.update(&sets);
            prop_assert!(refused.is_empty());
            prop_assert_eq!(table.iter().count(), sets.len());
            for one in &sets {
                let number = table.get(one).unwrap();
                prop_assert!(number >= Identity::FIRST_POD);
                prop_assert_eq!(table.set(number), Some(one));
                if let Some(old) = before.get(one) {
                    prop_assert_eq!(old, number);
                }
            }
            let again = table.update(&sets);
            prop_assert_eq!(again, (false, Vec::new()));
            let restored = IdentityTable::restore(table.iter().map(|(n, s)| (n, s.clone())));
            prop_assert!(restored.iter().eq(table.iter()));
        }
    }
}

#[test]
fn a_number_is_not_reused_at_once() {
    let mut table = IdentityTable::default();
    table.update(&BTreeSet::from([set(1)]));
    let first = table.get(&set(1)).unwrap();
    table.update(&BTreeSet::from([set(2)]));
    assert_ne!(table.get(&set(2)), Some(first));
}

#[test]
fn contradictions_are_left_out_when_restoring() {
    let table = IdentityTable::restore([
        (Identity(300), set(1)),
        (Identity(300), set(2)),
        (Identity(301), set(1)),
        (Identity(7), set(3)),
        (Identity(u32::MAX), set(4)),
    ]);
    assert_eq!(table.iter().count(), 1);
    assert_eq!(table.get(&set(1)), Some(Identity(300)));
}

#[test]
fn reserved_identities_have_names() {
    let table = IdentityTable::default();
    assert_eq!(table.display_labels(Identity::HOST), ["reserved:host"]);
    assert!(table.display_labels(Identity(400)).is_empty());
}

#[test]
fn equal_labels_with_other_named_ports_are_another_identity() {
    let port = |name: Option<&str>, port| ContainerPort {
        name: name.map(str::to_owned),
        port,
        protocol: Protocol::TCP,
        host: None,
    };
    let with = |ports: &[ContainerPort]| LabelSet {
        ports: NamedPorts::of(ports),
        ..set(1)
    };
    let (http, web) = (
        with(&[port(Some("http"), 80)]),
        with(&[port(Some("http"), 8080)]),
    );
    assert_ne!(http, web);
    assert_eq!(with(&[port(None, 80)]), set(1));
    let both = with(&[port(Some("b"), 2), port(Some("a"), 1), port(Some("b"), 2)]);
    assert_eq!(both, with(&[port(Some("a"), 1), port(Some("b"), 2)]));
    let numbers: Vec<_> = web.ports.numbers("http", Protocol::TCP).collect();
    assert_eq!(numbers, [8080]);
    assert_eq!(web.ports.numbers("http", Protocol::UDP).count(), 0);
}
