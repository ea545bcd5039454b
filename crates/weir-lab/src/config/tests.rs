// SPDX-License-Identifier: Apache-2.0
//! A lab without a file, with every field set, and with mistakes in it.

use super::*;
use crate::object::Object;

fn resolve(text: &str) -> Result<Topology> {
    LabConfig::parse(text)?.resolve(None, &[])
}

fn check_error(text: &str, expected: &str) {
    let error = format!("{:#}", resolve(text).unwrap_err());
    assert!(error.contains(expected), "{error}");
}

#[test]
fn an_empty_file_is_two_nodes_and_the_world() {
    let topology = resolve("").unwrap();
    let nodes: Vec<_> = topology
        .nodes
        .iter()
        .map(|node| format!("{} {:?} {:?}", node.name, node.addresses, node.pod_cidrs))
        .collect();
    assert_eq!(
        nodes,
        [
            "n1 [172.18.0.2, fd00:18::2] [10.244.1.0/24, fd00:244:1::/64]",
            "n2 [172.18.0.3, fd00:18::3] [10.244.2.0/24, fd00:244:2::/64]",
        ]
    );
    assert_eq!(topology.externals.first().unwrap().name, "world");
    assert_eq!(
        topology.nodes.first().unwrap().agent["mapSizes"]["flows"],
        65536
    );
}

#[test]
fn a_lab_has_no_drivers() {
    let text = "agent: {loadBalancerAcceleration: native}";
    check_error(text, "set loadBalancerAcceleration to generic");
    let text = "agent: {loadBalancerAcceleration: generic}";
    assert!(
        resolve(text)
            .unwrap()
            .nodes
            .iter()
            .all(Node::is_accelerated)
    );
    assert!(!resolve("").unwrap().nodes.iter().any(Node::is_accelerated));
}

#[test]
fn every_field_can_be_set() {
    let topology = resolve(
        r#"
nodes:
- {name: n1, addresses: [172.18.0.2, "fd00:18::2"], podCIDRs: [10.244.1.0/24], labels: {topology.kubernetes.io/zone: a}, agent: {mapSizes: {flows: 7}}}
externals: [{name: world, addresses: [203.0.113.10]}, {name: partner, addresses: [198.51.100.1]}]
serviceCIDRs: [10.96.0.0/16]
loadBalancerCIDRs: [198.51.100.0/24]
nodePortRange: 30000-30100
clusterDomain: example.org
dns: false
underlayMTU: 1400
agent: {routingMode: native, mapSizes: {other: 1}}
dataplane: kernel-vxlan
"#,
    )
    .unwrap();
    let node = topology.nodes.first().unwrap();
    assert_eq!(
        serde_json::to_string(&node.agent).unwrap(),
        r#"{"mapSizes":{"flows":7,"other":1},"routingMode":"native"}"#
    );
    assert_eq!(topology.underlay_mtu, 1400);
    assert_eq!(topology.node_ports.to_string(), "30000-30100");
    assert_eq!(topology.dataplane, Dataplane::KernelVxlan);
    assert_eq!(topology.externals.len(), 2);
}

#[test]
fn mistakes_are_named() {
    check_error("nodse: []", "nodse");
    check_error("nodes: [{nam: n1}]", "nam");
    check_error("nodes: [{name: N1}]", "not a node name");
    check_error("nodes: [{name: a}, {name: a}]", "two nodes are named a");
    check_error(
        "nodes: [{podCIDRs: [10.1.0.0/16]}, {podCIDRs: [10.1.2.0/24]}]",
        "overlaps",
    );
    check_error(
        "nodes: [{addresses: [10.0.0.1]}, {addresses: [10.0.0.1]}]",
        "belongs to both",
    );
    check_error("nodes: [{addresses: [10.244.1.7]}]", "inside pod CIDR");
    check_error("underlayMTU: 500", "underlayMTU");
    check_error("nodePortRange: 80", "nodePortRange");
    check_error("nodes: [{addresses: [10.0.0]}]", "addresses");
}

#[test]
fn node_objects_take_the_place_of_configured_nodes() {
    let object = Object::parse_all(
        "apiVersion: v1\nkind: Node\nmetadata: {name: gke-1, labels: {zone: a}}\n\
         spec: {podCIDR: 10.8.1.0/24}\n\
         status: {addresses: [{type: Hostname, address: gke-1}, {type: InternalIP, address: 10.128.0.3}]}",
    )
    .unwrap();
    let topology = LabConfig::default()
        .resolve(None, &object.iter().collect::<Vec<_>>())
        .unwrap();
    let [node] = topology.nodes.as_slice() else {
        panic!("one node")
    };
    assert_eq!(node.name, "gke-1");
    assert_eq!(
        format!("{:?} {:?}", node.addresses, node.pod_cidrs),
        "[10.128.0.3] [10.8.1.0/24]"
    );
    assert_eq!(node.labels["zone"], "a");
}
