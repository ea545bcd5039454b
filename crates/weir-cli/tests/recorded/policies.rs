// SPDX-License-Identifier: Apache-2.0
//! Policies of the same small node.

use super::agent::json;
use super::world::{text, texts};
use weir_api::policy::{
    EndpointPolicy, Policies, Policy, PolicyRow, PolicyRule, PolicySide, Selector,
};

pub(crate) fn answers() -> Vec<(&'static str, (u16, String))> {
    let [cli, web] = rows();
    vec![
        ("GET /v1/policies", json(&policies())),
        ("GET /v1/policies/selectors", json(&selectors())),
        ("GET /v1/kernel/policy", json(&[cli.clone(), web.clone()])),
        ("GET /v1/kernel/policy/12", json(&[cli])),
        ("GET /v1/kernel/policy/shop%2Fweb", json(&[web])),
    ]
}

pub(crate) fn rule(name: &str, rule: Option<u32>) -> PolicyRule {
    PolicyRule {
        kind: text("NetworkPolicy"),
        namespace: text("shop"),
        name: text(name),
        rule,
    }
}

fn policies() -> Policies {
    Policies {
        revision: 7,
        realized: 7,
        policies: vec![
            Policy {
                kind: text("NetworkPolicy"),
                namespace: text("shop"),
                name: text("web"),
                selector: text("app=web"),
                ingress: PolicySide {
                    isolates: true,
                    rules: texts(&[
                        "from pods app=cli in namespace shop to 8080/TCP",
                        "from 192.0.2.0/24",
                    ]),
                },
                selects: texts(&["shop/web"]),
                selected_pods: 2,
                warnings: texts(&["rule 1: 192.0.2.0/24 covers no address of the cluster"]),
                ..Policy::default()
            },
            Policy {
                kind: text("NetworkPolicy"),
                namespace: text("shop"),
                name: text("deny"),
                selector: text("every pod"),
                ingress: PolicySide {
                    isolates: true,
                    rules: Vec::new(),
                },
                egress: PolicySide {
                    isolates: true,
                    rules: Vec::new(),
                },
                refused: Some(text("spec.egress[0].ports[0].endPort: below port")),
                ..Policy::default()
            },
        ],
    }
}

fn selectors() -> Vec<Selector> {
    vec![Selector {
        selector: text("app=cli in namespace shop"),
        users: vec![rule("web", Some(0))],
        identities: vec![268],
        pods: 1,
    }]
}

fn rows() -> [EndpointPolicy; 2] {
    let row = PolicyRow {
        set: 3,
        action: text("Allow"),
        direction: text("Ingress"),
        peer_kind: text("identity"),
        peer: 268,
        labels: texts(&["k8s:app=cli", "k8s:io.kubernetes.pod.namespace=shop"]),
        port: text("8080/TCP"),
        precedence: 1,
        cookie: 11,
        packets: 5,
        bytes: 300,
        rules: vec![rule("web", Some(0))],
        state: text("sync"),
    };
    let blocks = PolicyRow {
        peer_kind: text("blocks"),
        peer: 2,
        labels: Vec::new(),
        port: text("ANY"),
        rules: vec![rule("web", Some(1)), rule("other", Some(0))],
        state: text("changed"),
        ..row.clone()
    };
    [
        EndpointPolicy {
            endpoint: 12,
            pod: text("shop/cli"),
            ..EndpointPolicy::default()
        },
        EndpointPolicy {
            endpoint: 34,
            pod: text("shop/web"),
            set: 3,
            ingress_enforced: true,
            egress_enforced: false,
            rows: vec![row, blocks],
        },
    ]
}
