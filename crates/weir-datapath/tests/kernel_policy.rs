// SPDX-License-Identifier: Apache-2.0
//! Random clusters with random policies: what the definition of `NetworkPolicy` says about a connection, what the
//! user-space build decides, and what the loaded programs do with its first packet.
//!
//! `WEIR_POLICY_FACTOR=20` asks twenty times as many questions.

#[cfg(test)]
#[path = "../../weir-compile/tests/policy/evaluator.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod evaluator;
#[cfg(test)]
#[path = "../../weir-compile/tests/policy/kernel.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod kernel;
#[cfg(test)]
#[path = "support/node.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod node;
#[cfg(test)]
#[path = "policy/one_node.rs"]
mod one_node;
#[cfg(test)]
#[path = "../../weir-compile/tests/policy/random.rs"]
mod random;
#[cfg(test)]
#[path = "support/raw.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod raw;
#[cfg(test)]
#[path = "support/services.rs"]
mod services;
#[cfg(test)]
#[path = "support/veth.rs"]
mod veth;
#[cfg(test)]
#[path = "support/world.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod world;

#[cfg(test)]
mod policies {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use proptest::collection::vec;
    use proptest::test_runner::{Config, TestRunner};
    use weir_model::World;

    use super::evaluator::{End, enters, leaves};
    use super::kernel::Cluster;
    use super::node::on_a_node;
    use super::one_node::OneNode;
    use super::random::{change, cluster, node_name, others, probes};

    fn ends(world: &World) -> Vec<End> {
        let mut addresses: BTreeSet<IpAddr> = others().into_iter().collect();
        addresses.extend(world.pods().flat_map(|pod| pod.addresses.clone()));
        addresses.extend(world.nodes().flat_map(|node| node.addresses.clone()));
        let addresses = addresses.into_iter();
        addresses.map(|address| End::of(world, address)).collect()
    }

    fn is_local(end: &End) -> bool {
        matches!(end, End::Pod(pod, _) if pod.node == Some(node_name(1)))
    }

    /// Asks about every connection that this node decides on; answers how many were denied, and how many passed.
    fn compare(node: &OneNode, world: &World) -> [usize; 2] {
        let ends = ends(world);
        let tables = node.tables();
        let mut count = [0; 2];
        for from in &ends {
            for to in &ends {
                let (a, b) = (from.address(), to.address());
                let (here, there) = (is_local(from), is_local(to));
                let same_pod = matches!((from, to), (End::Pod(a, _), End::Pod(b, _)) if a.reference == b.reference);
                if a == b || same_pod || a.is_ipv4() != b.is_ipv4() || !(here || there) {
                    continue;
                }
                for probe in probes() {
                    let out = !here || leaves(world, from, to, probe);
                    let into = !there || enters(world, from, to, probe);
                    let told = node.ask(&tables, from, to, probe);
                    let right = out && into;
                    assert_eq!(told, (right, right), "{from:?} -> {to:?} {probe:?}");
                    count[usize::from(right)] += 1;
                }
            }
        }
        count
    }

    /// Connections of each kind that have to be compared.
    const ENOUGH: usize = 1000;
    const MOST_DRAWINGS: usize = 20;

    #[test]
    fn programs_decide_as_the_definition_says() {
        on_a_node(|| {
            let factor = std::env::var("WEIR_POLICY_FACTOR");
            let factor: u32 = factor.map_or(1, |text| text.parse().unwrap());
            let node = OneNode::make();
            let counts = Cell::new([0; 2]);
            let config = Config {
                cases: 3 * factor,
                failure_persistence: None,
                max_shrink_iters: 500,
                ..Config::default()
            };
            let strategy = (cluster(), vec(change(), 1..4));
            // Few worlds, and some have hardly a policy: more are drawn until both answers were given often enough.
            for _ in 0..MOST_DRAWINGS {
                let result = TestRunner::new(config.clone()).run(&strategy, |(start, changes)| {
                    let own = node_name(1);
                    let mut cluster = Cluster::default();
                    cluster.nodes.insert(own.clone(), node.start());
                    let steps =
                        std::iter::once(start).chain(changes.into_iter().map(|one| vec![one]));
                    for step in steps {
                        let done = cluster.apply(step);
                        done.iter()
                            .filter(|(name, ..)| *name == own)
                            .for_each(|(.., plan)| node.execute(plan));
                        assert_eq!(node.rows(), cluster.nodes[&own].realized);
                        let ([denied, passed], more) =
                            (counts.get(), compare(&node, &cluster.world));
                        counts.set([denied + more[0], passed + more[1]]);
                    }
                    Ok(())
                });
                result.unwrap();
                if counts.get().into_iter().min() >= Some(ENOUGH) {
                    break;
                }
            }
            let [denied, passed] = counts.get();
            println!("{denied} connections were denied, {passed} passed");
            assert!(denied.min(passed) >= ENOUGH, "too few to tell");
        });
    }
}
