// SPDX-License-Identifier: Apache-2.0
//! Recorded answers to questions about packets that nobody sent.

use weir_api::policy::PolicyRule;
use weir_api::trace::{Evaluated, Lookup, Trace, TraceEnd, TraceSide, TraceStep, TraceVerdict};

use super::agent::{Answers, json};
use super::world::{text, texts};

fn end(name: &str, address: &str, node: &str, labels: &[&str]) -> TraceEnd {
    TraceEnd {
        name: text(name),
        address: text(address),
        node: (!node.is_empty()).then(|| text(node)),
        labels: texts(labels),
    }
}

fn rule(name: &str, rule: Option<u32>) -> PolicyRule {
    PolicyRule {
        kind: text("NetworkPolicy"),
        namespace: text("shop"),
        name: text(name),
        rule,
    }
}

fn side(subject: &str, reason: &str) -> TraceSide {
    TraceSide {
        verdict: TraceVerdict::Allowed,
        policies: Vec::new(),
        reason: text(reason),
        subject: text(subject),
        enforced: false,
        evaluated: Evaluated::Kernel,
        nearest_miss: None,
    }
}

fn lookup(table: &str, key: &str, found: &str) -> Lookup {
    Lookup {
        table: text(table),
        key: text(key),
        found: text(found),
    }
}

fn trace() -> Trace {
    Trace {
        verdict: TraceVerdict::Allowed,
        source: end(
            "shop/cli",
            "10.8.1.4",
            "n1",
            &["k8s:app=cli", "k8s:io.kubernetes.pod.namespace=shop"],
        ),
        destination: end("svc:shop/web", "10.96.0.9", "", &[]),
        protocol: text("TCP"),
        port: 80,
        family: 4,
        egress: side("shop/cli", "no policy isolates shop/cli for egress"),
        ingress: TraceSide {
            policies: vec![rule("web", Some(0))],
            enforced: true,
            evaluated: Evaluated::Compiled,
            ..side("shop/web-1", "allowed by shop/web rule 0")
        },
        outcome: text("delivered to shop/web-1 (10.8.2.7:8080) on node n2"),
        reason: None,
        reason_enum: None,
        reason_code: None,
        hint: None,
        steps: vec![
            TraceStep {
                node: text("n1"),
                program: text("from_container"),
                interface: text("weir12ab34cd"),
                evaluated: Evaluated::Kernel,
                packet: text("10.8.1.4:54321 -> 10.96.0.9:80 TCP"),
                verdict: text("forwarded"),
                observation: Some(text("to-overlay")),
                reason: None,
                lookups: vec![
                    lookup(
                        "endpoints",
                        "10.8.1.4",
                        "shop/cli, endpoint 12, identity 257, no policies",
                    ),
                    lookup(
                        "frontends",
                        "10.96.0.9:80/TCP",
                        "shop/web, 2 backends for clients of this node",
                    ),
                ],
                translations: texts(&["destination 10.96.0.9:80 -> 10.8.2.7:8080 (shop/web-1)"]),
            },
            TraceStep {
                node: text("n2"),
                program: text("from_netdev"),
                interface: String::new(),
                evaluated: Evaluated::Compiled,
                packet: text("10.8.1.4:54321 -> 10.8.2.7:8080 TCP"),
                verdict: text("delivered"),
                observation: Some(text("to-endpoint")),
                reason: None,
                lookups: vec![lookup(
                    "policy",
                    "set 1 ingress identity 256 8080/TCP",
                    "allow, cookie 1: shop/web rule 0",
                )],
                translations: Vec::new(),
            },
        ],
        hypothetical: Vec::new(),
        notes: texts(&["steps that say `compiled` are of other nodes"]),
    }
}

/// What is denied at its destination.
fn denied() -> Trace {
    let allowed = trace();
    let mut steps = allowed.steps.clone();
    for step in steps.iter_mut().skip(1) {
        step.verdict = text("dropped");
        step.observation = None;
        step.reason = Some(text("Policy denied (133)"));
    }
    Trace {
        verdict: TraceVerdict::Denied,
        port: 81,
        ingress: TraceSide {
            verdict: TraceVerdict::Denied,
            policies: vec![rule("web", None)],
            reason: text(
                "shop/web isolates shop/web-1 for ingress and no rule allows 8081/TCP from shop/cli",
            ),
            nearest_miss: Some(text(
                "shop/web ingress[0]: it allows 8080/TCP, this is 8081/TCP",
            )),
            ..allowed.ingress.clone()
        },
        outcome: text("dropped by from_netdev on node n2: Policy denied"),
        reason: Some(text("Policy denied")),
        reason_enum: Some(text("POLICY_DENIED")),
        reason_code: Some(133),
        hint: Some(text("see `weir policy trace`")),
        steps,
        hypothetical: texts(&["policy shop/other is deleted"]),
        ..allowed
    }
}

fn answers(traces: &[Trace]) -> Answers {
    [(text("POST /v1/trace"), json(&traces))].into()
}

pub(crate) fn one_allowed() -> Answers {
    answers(&[trace()])
}

pub(crate) fn one_of_two_denied() -> Answers {
    answers(&[trace(), denied()])
}
