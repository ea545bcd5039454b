// SPDX-License-Identifier: Apache-2.0
//! Denials made by hand, with the miss that a person would name.

use std::net::IpAddr;

use weir_abi::Protocol;
use weir_abi::policy::PolicyDirection;
use weir_compile::policy::{Explanation, Miss, Peer, Question, explain};
use weir_model::{LabelSet, PodRef, World};

use super::yaml;

const CLUSTER: &str = "
{kind: Node, apiVersion: v1, metadata: {name: n1}, spec: {podCIDRs: [10.244.1.0/24]}, status: {addresses: [{type: InternalIP, address: 172.18.0.2}]}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: shop, labels: {team: a}}}
---
{kind: Namespace, apiVersion: v1, metadata: {name: dev, labels: {team: b}}}
---
{kind: Pod, apiVersion: v1, metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}, spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}, status: {podIP: 10.244.1.2}}
---
{kind: Pod, apiVersion: v1, metadata: {name: client, namespace: shop, labels: {app: cilent}}, spec: {nodeName: n1, containers: [{name: c}]}, status: {podIP: 10.244.1.3}}
---
{kind: Pod, apiVersion: v1, metadata: {name: client, namespace: dev, labels: {app: client}}, spec: {nodeName: n1, containers: [{name: c}]}, status: {podIP: 10.244.1.4}}
---
{kind: Pod, apiVersion: v1, metadata: {name: bare, namespace: shop}, spec: {nodeName: n1, containers: [{name: c}]}, status: {podIP: 10.244.1.5}}
";

fn set(world: &World, pod: &str) -> LabelSet {
    LabelSet::of(world.pod(&pod.parse::<PodRef>().unwrap()).unwrap())
}

/// `from` and `to` are pods, addresses outside or `node`; the policies of the side that is a pod of
/// `shop` and the first of them in `to`, `from` are asked.
fn ask(
    policies: &str,
    direction: PolicyDirection,
    from: &str,
    to: &str,
    port: &str,
) -> Explanation {
    let world = yaml::world(&format!("{CLUSTER}---\n{policies}"));
    let (subject, peer) = match direction {
        PolicyDirection::Ingress => (to, from),
        PolicyDirection::Egress => (from, to),
    };
    let subject = set(&world, subject);
    let other = peer.contains('/').then(|| set(&world, peer));
    let (peer, peer_address): (_, Option<IpAddr>) = match &other {
        Some(set) => {
            let pod = world.pod(&peer.parse().unwrap()).unwrap();
            (Peer::Pod(set), pod.addresses.first().copied())
        }
        None if peer == "node" => {
            let peer = Peer::Node {
                own: false,
                pod: None,
            };
            (peer, Some("172.18.0.9".parse().unwrap()))
        }
        None => (Peer::Outside, Some(peer.parse().unwrap())),
    };
    let (number, protocol) = port.split_once('/').unwrap();
    let question = Question {
        subject: &subject,
        direction,
        peer,
        peer_address,
        protocol: match protocol {
            "TCP" => Protocol::TCP,
            "UDP" => Protocol::UDP,
            _ => Protocol::ICMP,
        },
        port: number.parse().unwrap(),
    };
    explain(&world, &question)
}

/// The nearest miss as it is shown.
fn check(policies: &str, direction: PolicyDirection, from: &str, to: &str, port: &str, line: &str) {
    let explanation = ask(policies, direction, from, to, port);
    assert!(!explanation.allowed(), "{policies}");
    assert_eq!(explanation.nearest.unwrap().to_string(), line);
}

fn ingress(policies: &str, from: &str, port: &str, line: &str) {
    check(
        policies,
        PolicyDirection::Ingress,
        from,
        "shop/web",
        port,
        line,
    );
}

fn egress(policies: &str, to: &str, port: &str, line: &str) {
    check(
        policies,
        PolicyDirection::Egress,
        "shop/web",
        to,
        port,
        line,
    );
}

/// A policy for `app: web` in `shop`.
fn policy(name: &str, spec: &str) -> String {
    format!(
        "{{kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{podSelector: {{matchLabels: {{app: web}}}}, {spec}}}}}\n---\n"
    )
}

const WEB_80: &str =
    "ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: 80}]}]";

#[test]
fn the_peer_has_another_label() {
    let typo = "shop/p ingress[0]: it means pods with app=client, the peer has app=cilent";
    ingress(&policy("p", WEB_80), "shop/client", "80/TCP", typo);
    let none = "shop/p ingress[0]: it means pods with app=client, the peer has no label app";
    ingress(&policy("p", WEB_80), "shop/bare", "80/TCP", none);
    let spec = "ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [cilent, x]}]}}]}]";
    let not_in =
        "shop/p ingress[0]: it means pods with app notin (cilent,x), the peer has app=cilent";
    ingress(&policy("p", spec), "shop/client", "80/TCP", not_in);
}

#[test]
fn the_peer_is_in_another_namespace() {
    ingress(
        &policy("p", WEB_80),
        "dev/client",
        "80/TCP",
        "shop/p ingress[0]: it means pods of shop only, the peer is in dev: a podSelector without namespaceSelector \
         stays in the policy's namespace",
    );
    let spec = "ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: client}}}]}]";
    let label = "shop/p ingress[0]: it means namespaces with team=a, dev has team=b";
    ingress(&policy("p", spec), "dev/client", "80/TCP", label);
    let spec = "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}]";
    let name = "shop/p ingress[0]: it means namespaces with kubernetes.io/metadata.name=shop, \
                dev has kubernetes.io/metadata.name=dev";
    ingress(&policy("p", spec), "dev/client", "80/TCP", name);
}

#[test]
fn the_port_is_another_one() {
    let spec = "ingress: [{ports: [{port: 80}, {port: 8000, endPort: 8100}]}]";
    let line = "shop/p ingress[0]: it allows 80/TCP, 8000-8100/TCP, not 81/TCP";
    ingress(&policy("p", spec), "shop/client", "81/TCP", line);
    let spec = "egress: [{to: [{namespaceSelector: {}}], ports: [{port: 53}]}]";
    let line = "shop/p egress[0]: it allows 53/TCP, not 53/UDP";
    egress(&policy("p", spec), "dev/client", "53/UDP", line);
    let line = "shop/p ingress[0]: it allows 80/TCP, 8000-8100/TCP, not 81/UDP";
    let spec = "ingress: [{ports: [{port: 80}, {port: 8000, endPort: 8100}]}]";
    ingress(&policy("p", spec), "shop/client", "81/UDP", line);
    let line = "shop/p ingress[0]: it allows ports, ICMP has none: a rule without ports allows it";
    ingress(&policy("p", spec), "shop/client", "0/ICMP", line);
}

#[test]
fn a_named_port_is_another_number() {
    let spec = "ingress: [{ports: [{port: http}]}]";
    let line = "shop/p ingress[0]: it allows port http, 8080/TCP at the destination, not 80/TCP";
    ingress(&policy("p", spec), "shop/client", "80/TCP", line);
    let spec = "egress: [{ports: [{port: http}]}]";
    let line = "shop/p egress[0]: it allows port http/TCP, which the destination does not have";
    egress(&policy("p", spec), "dev/client", "80/TCP", line);
}

#[test]
fn the_address_is_elsewhere() {
    let spec = "egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}}]}]";
    let line = "shop/p egress[0]: it means addresses in 203.0.113.0/24 except 203.0.113.128/25, the peer has 198.51.100.1";
    egress(&policy("p", spec), "198.51.100.1", "443/TCP", line);
    let line = "shop/p egress[0]: it leaves out 203.0.113.128/25, where the peer's address 203.0.113.200 is";
    egress(&policy("p", spec), "203.0.113.200", "443/TCP", line);
    let spec = "ingress: [{from: [{podSelector: {}}]}]";
    let line = "shop/p ingress[0]: it means pods, the peer is outside the cluster";
    ingress(&policy("p", spec), "203.0.113.7", "80/TCP", line);
    let line = "shop/p ingress[0]: it means pods, the peer is a node";
    ingress(&policy("p", spec), "node", "80/TCP", line);
}

#[test]
fn the_policy_selects_another_pod() {
    let deny = policy("deny", "policyTypes: [Ingress]");
    let elsewhere = |namespace: &str, label: &str| {
        format!(
            "{{kind: NetworkPolicy, apiVersion: networking.k8s.io/v1, metadata: {{name: allow, namespace: {namespace}}}, \
             spec: {{podSelector: {{matchLabels: {{app: {label}}}}}, ingress: [{{from: [{{namespaceSelector: {{}}}}]}}]}}}}\n---\n"
        )
    };
    let label = "shop/allow ingress[0]: its policy selects pods with app=wbe, the pod has app=web";
    ingress(
        &format!("{deny}{}", elsewhere("shop", "wbe")),
        "shop/client",
        "80/TCP",
        label,
    );
    let namespace = "dev/allow ingress[0]: its policy selects pods of dev, the pod is in shop";
    ingress(
        &format!("{deny}{}", elsewhere("dev", "web")),
        "shop/client",
        "80/TCP",
        namespace,
    );
}

#[test]
fn the_rule_is_for_the_other_direction() {
    let spec = "policyTypes: [Ingress, Egress], egress: [{to: [{podSelector: {matchLabels: {app: cilent}}}]}]";
    let line = "shop/p egress[0]: it is written for the other direction";
    ingress(&policy("p", spec), "shop/client", "80/TCP", line);
}

#[test]
fn nothing_is_allowed_at_all() {
    let line = "shop/p ingress: it isolates the pod and allows nothing";
    ingress(
        &policy("p", "policyTypes: [Ingress]"),
        "shop/client",
        "80/TCP",
        line,
    );
    let line = "shop/p ingress: it was refused, so it isolates and allows nothing: \
                spec.ingress[0].ports[0].port: 0 is not a port: 1 to 65535";
    ingress(
        &policy("p", "ingress: [{ports: [{port: 0}]}]"),
        "shop/client",
        "80/TCP",
        line,
    );
}

#[test]
fn of_several_rules_the_nearest_is_named() {
    let spec = "ingress: [{from: [{podSelector: {matchLabels: {app: x, tier: y}}}]}, \
                {from: [{podSelector: {matchLabels: {app: other}}}, {podSelector: {matchLabels: {app: cilent}}}], ports: [{port: 443}]}]";
    let deny = policy("a-deny", "policyTypes: [Ingress]");
    let line = "shop/p ingress[1]: it allows 443/TCP, not 80/TCP";
    ingress(
        &format!("{deny}{}", policy("p", spec)),
        "shop/client",
        "80/TCP",
        line,
    );
}

#[test]
fn what_is_allowed_names_every_rule() {
    let policies = format!("{}{}", policy("p", "ingress: [{}]"), policy("q", WEB_80));
    let found = ask(
        &policies,
        PolicyDirection::Ingress,
        "shop/client",
        "shop/web",
        "80/TCP",
    );
    assert!(found.allowed() && found.nearest.is_none());
    let allowing: Vec<_> = found.allowing.iter().map(ToString::to_string).collect();
    assert_eq!(allowing, ["shop/p ingress[0]"]);
    let isolating: Vec<_> = found.isolating.iter().map(ToString::to_string).collect();
    assert_eq!(isolating, ["shop/p", "shop/q"]);
    let free = ask(
        "",
        PolicyDirection::Ingress,
        "shop/client",
        "shop/web",
        "80/TCP",
    );
    assert!(free.allowed() && free.isolating.is_empty());
    assert!(Miss::NoRules.distance() > Miss::Direction.distance());
}
