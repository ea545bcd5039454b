// SPDX-License-Identifier: Apache-2.0
//! Sequences of events, and the changes that they make.

use proptest::prelude::*;
use serde_json::json;
use weir_model::{Change, World};

use super::*;

fn pod(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "resourceVersion": "7"},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        "status": {"podIP": address},
    })
}

fn policy(port: u32, version: &str) -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "shop", "resourceVersion": version},
        "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": port}]}]},
    })
}

fn told(batch: Option<Batch>) -> Vec<String> {
    let show = |change: &Change| match change {
        Change::Pod(pod) => format!("+{} {:?}", pod.reference, pod.addresses),
        Change::PodGone(reference) => format!("-{reference}"),
        Change::NetworkPolicy(policy) => {
            format!(
                "+{} refused: {}",
                policy.reference,
                policy.refused.is_some()
            )
        }
        Change::Node(_)
        | Change::NodeGone(_)
        | Change::Namespace(..)
        | Change::NamespaceLogging(_)
        | Change::NamespaceGone(_)
        | Change::NetworkPolicyGone(_)
        | Change::NetworkLogging(_)
        | Change::NetworkLoggingGone
        | Change::Service(_)
        | Change::ServiceGone(_)
        | Change::EndpointSlice(_)
        | Change::EndpointSliceGone(_)
        | Change::NodePods(_)
        | Change::NodePodsGone(_) => format!("{change:?}"),
    };
    batch.map_or_else(Vec::new, |batch| batch.changes.iter().map(show).collect())
}

#[test]
fn a_slice_that_gets_the_label_headless_is_gone() {
    let slice = |labels: Value| {
        json!({
            "metadata": {"name": "web-1", "namespace": "shop", "resourceVersion": "7", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.244.1.5"]}],
        })
    };
    let mut mirror = complete();
    let served = slice(json!({"kubernetes.io/service-name": "web"}));
    mirror.take(Kind::EndpointSlice, Step::Put(served));
    assert_eq!(told(mirror.batch()).len(), 1);
    let headless = slice(json!({
        "kubernetes.io/service-name": "web", "service.kubernetes.io/headless": "",
    }));
    mirror.take(Kind::EndpointSlice, Step::Put(headless));
    let told = told(mirror.batch());
    assert!(
        told.len() == 1 && told[0].starts_with("EndpointSliceGone"),
        "{told:?}"
    );
}

/// Every kind is listed; there are no objects.
fn complete() -> Mirror {
    let mut mirror = Mirror::default();
    for kind in Kind::ALL {
        mirror.take(kind, Step::Began);
        mirror.take(kind, Step::Complete);
    }
    assert_eq!(mirror.batch(), Some(Batch::default()));
    mirror
}

#[test]
fn nothing_is_told_before_every_kind_is_listed() {
    let mut mirror = Mirror::default();
    for kind in Kind::ALL {
        assert_eq!(mirror.batch(), None);
        mirror.take(kind, Step::Began);
        if kind == Kind::Pod {
            mirror.take(kind, Step::Listed(pod("a", "10.0.0.1")));
        }
        mirror.take(kind, Step::Complete);
    }
    // A kind that is listed anew before the others have been listed once is half a world too.
    mirror.take(Kind::Pod, Step::Began);
    assert_eq!(mirror.batch(), None);
    mirror.take(Kind::Pod, Step::Listed(pod("b", "10.0.0.2")));
    mirror.take(Kind::Pod, Step::Complete);
    let batch = mirror.batch().unwrap();
    assert_eq!((batch.revision, batch.changes.len()), (7, 1));
    assert_eq!(told(Some(batch)), ["+shop/b [10.0.0.2]"]);
    assert_eq!(mirror.batch(), None, "nothing differs since");
}

#[test]
fn a_kind_that_the_server_does_not_know_is_empty() {
    let mut mirror = Mirror::default();
    for kind in Kind::ALL {
        mirror.take(kind, Step::Began);
        let known = !kind.may_be_unknown();
        mirror.take(kind, if known { Step::Complete } else { Step::Unknown });
    }
    assert_eq!(mirror.batch(), Some(Batch::default()));
    let logging =
        json!({"metadata": {"name": "default"}, "spec": {"cluster": {"deny": {"log": true}}}});
    mirror.take(Kind::NetworkLogging, Step::Began);
    mirror.take(Kind::NetworkLogging, Step::Listed(logging));
    mirror.take(Kind::NetworkLogging, Step::Complete);
    assert!(matches!(
        mirror.batch().unwrap().changes[..],
        [Change::NetworkLogging(_)]
    ));
    // Its definition is removed.
    mirror.take(Kind::NetworkLogging, Step::Unknown);
    assert_eq!(
        mirror.batch().unwrap().changes,
        [Change::NetworkLoggingGone]
    );
}

#[test]
fn a_new_list_tells_what_has_gone_meanwhile_and_first() {
    let mut mirror = complete();
    mirror.take(Kind::Pod, Step::Put(pod("a", "10.0.0.1")));
    mirror.take(Kind::Pod, Step::Put(pod("b", "10.0.0.2")));
    mirror.batch().unwrap();

    mirror.take(Kind::Pod, Step::Began);
    mirror.take(Kind::Pod, Step::Listed(pod("b", "10.0.0.2")));
    // The server goes away in the middle of the list, for hours; another kind goes on.
    assert_eq!(mirror.batch(), None);
    mirror.take(Kind::NetworkPolicy, Step::Put(policy(80, "9")));
    assert_eq!(told(mirror.batch()), ["+shop/p refused: false"]);
    mirror.take(Kind::Pod, Step::Began);
    // `c` has the address that `a` had.
    mirror.take(Kind::Pod, Step::Listed(pod("c", "10.0.0.1")));
    assert_eq!(mirror.batch(), None);
    mirror.take(Kind::Pod, Step::Complete);
    assert_eq!(
        told(mirror.batch()),
        ["-shop/a", "-shop/b", "+shop/c [10.0.0.1]"]
    );
}

#[test]
fn only_what_the_world_holds_is_a_difference() {
    let mut mirror = complete();
    mirror.take(Kind::Pod, Step::Put(pod("a", "10.0.0.1")));
    assert_eq!(told(mirror.batch()), ["+shop/a [10.0.0.1]"]);
    let mut same = pod("a", "10.0.0.1");
    same["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    same["metadata"]["resourceVersion"] = json!("1000");
    mirror.take(Kind::Pod, Step::Put(same));
    assert_eq!(mirror.batch(), None);
    // It comes and goes between two looks.
    mirror.take(Kind::Pod, Step::Put(pod("b", "10.0.0.2")));
    mirror.take(Kind::Pod, Step::Gone(pod("b", "10.0.0.2")));
    assert_eq!(mirror.batch(), None);
    let mut ended = pod("a", "10.0.0.1");
    ended["status"]["phase"] = json!("Succeeded");
    mirror.take(Kind::Pod, Step::Put(ended));
    let batch = mirror.batch().unwrap();
    assert_eq!(batch.revision, 1000);
    assert_eq!(told(Some(batch)), ["-shop/a"]);
}

#[test]
fn what_is_refused_keeps_the_version_before_and_never_opens() {
    let mut mirror = complete();
    // New and wrong: isolates.
    mirror.take(Kind::NetworkPolicy, Step::Put(policy(700_000, "1")));
    let batch = mirror.batch().unwrap();
    assert_eq!(
        batch
            .problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["NetworkPolicy shop/p: spec.ingress[0].ports[0].port: 700000 is not a port: 1 to 65535"]
    );
    assert_eq!(told(Some(batch)), ["+shop/p refused: true"]);
    mirror.take(Kind::NetworkPolicy, Step::Put(policy(80, "2")));
    let batch = mirror.batch().unwrap();
    assert!(batch.problems.is_empty());
    assert_eq!(told(Some(batch)), ["+shop/p refused: false"]);
    // Wrong again: what was accepted last stays, and that is told as a problem alone.
    mirror.take(Kind::NetworkPolicy, Step::Put(policy(700_000, "3")));
    let batch = mirror.batch().unwrap();
    assert_eq!((batch.changes.len(), batch.problems.len()), (0, 1));
    // The same for a list.
    mirror.take(Kind::NetworkPolicy, Step::Began);
    mirror.take(Kind::NetworkPolicy, Step::Listed(policy(700_000, "3")));
    mirror.take(Kind::NetworkPolicy, Step::Complete);
    assert_eq!(mirror.batch(), None);
    mirror.take(Kind::NetworkPolicy, Step::Gone(policy(700_000, "4")));
    let batch = mirror.batch().unwrap();
    assert_eq!((batch.changes.len(), batch.problems.len()), (1, 0));

    let mut mirror = complete();
    mirror.take(Kind::Pod, Step::Put(pod("a", "10.0.0.1")));
    mirror.batch().unwrap();
    mirror.take(Kind::Pod, Step::Put(pod("a", "10.0.0.999")));
    let batch = mirror.batch().unwrap();
    assert_eq!((batch.changes.len(), batch.problems.len()), (0, 1));
    mirror.take(Kind::Pod, Step::Put(json!({"metadata": {"name": 5}})));
    mirror.take(Kind::Pod, Step::Put(json!("no object")));
    assert_eq!(mirror.batch().unwrap().problems.len(), 2);
}

#[test]
fn what_is_not_used_is_counted() {
    let mut mirror = complete();
    let slice = json!({"metadata": {"name": "s", "namespace": "shop"}, "addressType": "FQDN", "endpoints": []});
    mirror.take(Kind::EndpointSlice, Step::Put(slice.clone()));
    let batch = mirror.batch().unwrap();
    assert_eq!(batch.skipped.get("EndpointSlice of type FQDN"), Some(&1));
    mirror.take(Kind::EndpointSlice, Step::Gone(slice));
    assert!(mirror.batch().unwrap().skipped.is_empty());
}

/// What may happen at a server, and to those who watch it.
#[derive(Clone, Debug)]
enum Happens {
    /// An object gets this address.
    Put(u8, u8),
    Delete(u8),
    /// The versions have expired: everything is listed, after so many lists that broke off after so
    /// many objects. The watch has missed the events before.
    ListedAnew(Vec<u8>),
    /// The reader looks.
    Look,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        4 => (0u8..6, 1u8..6).prop_map(|(name, address)| Happens::Put(name, address)),
        2 => (0u8..6).prop_map(Happens::Delete),
        1 => prop::collection::vec(0u8..6, 0..3).prop_map(Happens::ListedAnew),
        2 => Just(Happens::Look),
    ]
}

fn numbered(name: u8, address: u8) -> Value {
    pod(&format!("p{name}"), &format!("10.0.0.{address}"))
}

/// Pods and their addresses, as the world has them.
fn known(world: &World) -> BTreeMap<String, String> {
    let pods = world.pods();
    pods.map(|pod| (pod.reference.to_string(), format!("{:?}", pod.addresses)))
        .collect()
}

proptest! {
    /// Whatever is missed and however often lists break off: the world is that of the server whenever
    /// the watch has caught up, and at no time one that the server never had.
    #[test]
    fn the_world_follows_the_server(
        steps in prop::collection::vec((happens(), any::<bool>()), 0..60)
    ) {
        let mut server: BTreeMap<u8, u8> = BTreeMap::new();
        let mut mirror = complete();
        let mut world = World::default();
        // The watch is behind: it must be listed anew.
        let mut missed = false;
        let look = |mirror: &mut Mirror, world: &mut World| {
            for change in mirror.batch().into_iter().flat_map(|batch| batch.changes) {
                world.apply(change);
            }
        };
        let shown = |server: &BTreeMap<u8, u8>| -> BTreeMap<String, String> {
            let pods = server.iter();
            pods.map(|(name, address)| (format!("shop/p{name}"), format!("[10.0.0.{address}]"))).collect()
        };
        for (step, seen) in steps {
            missed |= !seen;
            match step {
                Happens::Put(name, address) => {
                    server.insert(name, address);
                    if !missed {
                        mirror.take(Kind::Pod, Step::Put(numbered(name, address)));
                    }
                }
                Happens::Delete(name) => {
                    if let Some(address) = server.remove(&name)
                        && !missed
                    {
                        mirror.take(Kind::Pod, Step::Gone(numbered(name, address)));
                    }
                }
                Happens::ListedAnew(broken) => {
                    look(&mut mirror, &mut world);
                    let before = known(&world);
                    for length in broken {
                        mirror.take(Kind::Pod, Step::Began);
                        for (name, address) in server.iter().take(length.into()) {
                            mirror.take(Kind::Pod, Step::Listed(numbered(*name, *address)));
                            look(&mut mirror, &mut world);
                        }
                        prop_assert_eq!(&known(&world), &before, "told of a list that is not complete");
                    }
                    mirror.take(Kind::Pod, Step::Began);
                    for (name, address) in &server {
                        mirror.take(Kind::Pod, Step::Listed(numbered(*name, *address)));
                    }
                    mirror.take(Kind::Pod, Step::Complete);
                    missed = false;
                    look(&mut mirror, &mut world);
                    prop_assert_eq!(known(&world), shown(&server));
                }
                Happens::Look => {
                    look(&mut mirror, &mut world);
                    if !missed {
                        prop_assert_eq!(known(&world), shown(&server));
                    }
                }
            }
        }
    }
}
