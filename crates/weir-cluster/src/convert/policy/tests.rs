// SPDX-License-Identifier: Apache-2.0
//! Policies as the API server takes them, and what becomes of those that it would refuse.

use serde_json::json;

use super::*;
use crate::convert::convert;

fn with_spec(spec: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop", "annotations": {
            "policy.network.gke.io/enable-logging": "true", "other": "long text"}},
        "spec": spec,
    })
}

fn accepted(spec: &Value) -> NetworkPolicy {
    match convert(with_spec(spec)) {
        Ok(Converted::Object(Object::NetworkPolicy(policy))) => (*policy).clone(),
        other => panic!("{spec}: {other:?}"),
    }
}

fn refused(spec: &Value) -> (NetworkPolicy, FieldProblem) {
    match convert(with_spec(spec)) {
        Ok(Converted::Instead(Object::NetworkPolicy(policy), problem)) => {
            ((*policy).clone(), problem)
        }
        other => panic!("{spec}: {other:?}"),
    }
}

/// `ingress egress`, each `-` for nothing said or its number of rules.
fn check_directions(spec: &Value, expected: &str) {
    let policy = accepted(spec);
    let shown = |rules: Option<Vec<PolicyRule>>| {
        rules.map_or("-".to_owned(), |rules| rules.len().to_string())
    };
    let found = format!("{} {}", shown(policy.ingress), shown(policy.egress));
    assert_eq!(found, expected, "{spec}");
}

#[test]
fn directions_are_inferred_where_they_are_not_named() {
    check_directions(&json!(null), "0 -");
    check_directions(&json!({}), "0 -");
    check_directions(&json!({"ingress": [{}]}), "1 -");
    check_directions(&json!({"egress": [{}]}), "0 1");
    check_directions(&json!({"egress": []}), "0 -");
    check_directions(&json!({"policyTypes": [], "egress": [{}]}), "0 1");
    check_directions(&json!({"policyTypes": ["Egress"]}), "- 0");
    check_directions(&json!({"policyTypes": ["Egress"], "ingress": [{}]}), "- 0");
    check_directions(&json!({"policyTypes": ["Ingress"], "egress": [{}]}), "0 -");
    check_directions(&json!({"policyTypes": ["Egress", "Ingress"]}), "0 0");
}

#[test]
fn absent_and_empty_are_told_apart_where_kubernetes_does() {
    let policy = accepted(&json!({
        "podSelector": {"matchLabels": {"app": "web"},
                        "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x", "-"]}]},
        "ingress": [
            {},
            {"from": [], "ports": []},
            {"from": [{"podSelector": {}}, {"namespaceSelector": {}},
                      {"namespaceSelector": {"matchLabels": {"a": "b"}}, "podSelector": {"matchLabels": {"c": ""}}},
                      {"ipBlock": {"cidr": "::ffff:10.1.2.3/104", "except": ["10.1.0.0/16"]}}],
             "ports": [{}, {"port": 80}, {"port": 80, "endPort": 80, "protocol": "SCTP"},
                       {"port": "http-2", "protocol": "UDP"}]},
        ],
    }));
    assert_eq!(policy.pod_selector.to_string(), "app=web,tier notin (-,x)");
    let rules = policy.ingress.unwrap();
    assert_eq!(
        (&rules[0], &rules[1]),
        (&PolicyRule::default(), &PolicyRule::default())
    );
    let peers: Vec<_> = rules[2].peers.iter().map(ToString::to_string).collect();
    assert_eq!(
        peers,
        [
            "pods <all>",
            "pods <all> in namespaces <all>",
            "pods c= in namespaces a=b",
            "addresses 10.0.0.0/8 except 10.1.0.0/16",
        ]
    );
    let ports: Vec<_> = rules[2].ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["*/TCP", "80/TCP", "80/SCTP", "http-2/UDP"]);
    let annotations: Vec<_> = policy.annotations.into_iter().collect();
    let logging = "policy.network.gke.io/enable-logging".to_owned();
    assert_eq!(annotations, [(logging, "true".to_owned())]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table: one entry for each field")]
fn the_field_that_is_wrong_is_named() {
    let peer = |peer: Value| json!({"ingress": [{}, {"from": [{"podSelector": {}}, peer]}]});
    let port = |port: Value| json!({"egress": [{"ports": [port]}]});
    let expression = |expression: Value| json!({"podSelector": {"matchExpressions": [expression]}});
    for (spec, field, message) in [
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0/8"}})),
            "spec.ingress[1].from[1].ipBlock.cidr",
            "is not a CIDR",
        ),
        (
            peer(
                json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "11.0.0.0/9"]}}),
            ),
            "spec.ingress[1].from[1].ipBlock.except[1]",
            "must lie inside 10.0.0.0/8",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}})),
            "spec.ingress[1].from[1].ipBlock.except[0]",
            "and be smaller",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["fd00::/8"]}})),
            "spec.ingress[1].from[1].ipBlock.except[0]",
            "must lie inside",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/33"}})),
            "spec.ingress[1].from[1].ipBlock.cidr",
            "is not a CIDR",
        ),
        (
            peer(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
            "spec.ingress[1].from[1]",
            "stands alone",
        ),
        (peer(json!({})), "spec.ingress[1].from[1]", "is needed"),
        (
            peer(json!({"podSelector": {"matchLabels": {"a": "b c"}}})),
            "spec.ingress[1].from[1].podSelector.matchLabels",
            "only letters",
        ),
        (
            port(json!({"port": 0})),
            "spec.egress[0].ports[0].port",
            "0 is not a port",
        ),
        (
            port(json!({"port": 65536})),
            "spec.egress[0].ports[0].port",
            "65536 is not a port",
        ),
        (
            port(json!({"port": 80, "endPort": 79})),
            "spec.egress[0].ports[0].endPort",
            "79 is less than port 80",
        ),
        (
            port(json!({"port": 80, "endPort": 70000})),
            "spec.egress[0].ports[0].endPort",
            "70000 is not a port",
        ),
        (
            port(json!({"port": "http", "endPort": 90})),
            "spec.egress[0].ports[0].endPort",
            "with a name",
        ),
        (
            port(json!({"endPort": 90})),
            "spec.egress[0].ports[0].endPort",
            "needs its first port",
        ),
        (
            port(json!({"protocol": "ICMP"})),
            "spec.egress[0].ports[0].protocol",
            "`ICMP` is not TCP, UDP or SCTP",
        ),
        (
            port(json!({"port": "Http"})),
            "spec.egress[0].ports[0].port",
            "lower-case",
        ),
        (
            port(json!({"port": "80"})),
            "spec.egress[0].ports[0].port",
            "needs a letter",
        ),
        (
            port(json!({"port": "a--b"})),
            "spec.egress[0].ports[0].port",
            "stands alone",
        ),
        (
            port(json!({"port": "a23456789012345b"})),
            "spec.egress[0].ports[0].port",
            "1 to 15",
        ),
        (
            port(json!({"port": [80]})),
            "spec.egress[0].ports[0].port",
            "invalid type",
        ),
        (
            expression(json!({"key": "a", "operator": "Is"})),
            "spec.podSelector.matchExpressions[0].operator",
            "`Is` is not In",
        ),
        (
            expression(json!({"key": "a", "operator": "In"})),
            "spec.podSelector.matchExpressions[0].values",
            "In needs values",
        ),
        (
            expression(json!({"key": "a", "operator": "Exists", "values": ["b"]})),
            "spec.podSelector.matchExpressions[0].values",
            "Exists has no values",
        ),
        (
            expression(json!({"key": "a b", "operator": "Exists"})),
            "spec.podSelector.matchExpressions[0].key",
            "label key",
        ),
        (
            json!({"policyTypes": ["Ingress", "egress"]}),
            "spec.policyTypes[1]",
            "`egress` is not",
        ),
        (json!({"ingress": {}}), "spec.ingress", "invalid type"),
    ] {
        let (_, problem) = refused(&spec);
        assert_eq!(problem.field, field, "{spec}");
        assert!(
            problem.message.contains(message),
            "{spec}: {}",
            problem.message
        );
    }
}

/// What takes the place of a refused policy: selector, then the isolated directions.
fn check_closed(spec: &Value, selector: &str, ingress: bool, egress: bool) {
    let (policy, problem) = refused(spec);
    assert_eq!(policy.pod_selector.to_string(), selector, "{spec}");
    assert_eq!(policy.ingress, ingress.then(Vec::new), "{spec}");
    assert_eq!(policy.egress, egress.then(Vec::new), "{spec}");
    let refusal = policy.refused.unwrap();
    assert_eq!(
        (refusal.field, refusal.message),
        (problem.field, problem.message)
    );
}

#[test]
fn a_refused_policy_isolates_what_it_selects_and_allows_nothing() {
    let web = json!({"matchLabels": {"app": "web"}});
    let bad = json!([{"ports": [{"port": 0}]}]);
    check_closed(
        &json!({"podSelector": web, "ingress": bad}),
        "app=web",
        true,
        false,
    );
    check_closed(
        &json!({"podSelector": web, "egress": bad}),
        "app=web",
        true,
        true,
    );
    check_closed(
        &json!({"podSelector": web, "egress": bad, "policyTypes": ["Egress"]}),
        "app=web",
        false,
        true,
    );
    let types = json!({"podSelector": web, "policyTypes": ["Everything"]});
    check_closed(&types, "app=web", true, true);
    check_closed(&json!({"podSelector": 7}), "<all>", true, false);
    check_closed(
        &json!({"podSelector": web, "egress": "none"}),
        "app=web",
        true,
        true,
    );
    check_closed(&json!([]), "<all>", true, false);
    let nameless = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                          "metadata": {"name": "P"}, "spec": {}});
    assert_eq!(convert(nameless).unwrap_err().field, "metadata.name");
}
