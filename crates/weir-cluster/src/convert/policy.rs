// SPDX-License-Identifier: Apache-2.0
//! Network policies, with every rule that the API server has for them.
//!
//! A policy that cannot be read must not be left out: pods that it was to isolate would be open. So
//! one that isolates the same pods and allows nothing takes its place, unless an earlier version was
//! accepted.

mod peer;
mod port;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::Value;
use weir_model::{LabelSelector, NetworkPolicy, PolicyName, PolicyRef, PolicyRule, Refusal};

use super::{Converted, FieldProblem, typed, wrong};
use crate::object::Object;
use peer::{peers, selector};
use port::ports;

type Proven<T> = Result<T, FieldProblem>;

/// Annotations of policies that are acted on.
const ANNOTATIONS: &str = "policy.network.gke.io/";

/// The policy, or what isolates in its place; a problem alone where not even a name is known.
pub(super) fn policy(raw: &Value) -> Proven<Converted> {
    let reference = reference(raw)?;
    let (policy, problem) = match proven(raw, &reference) {
        Ok(policy) => (policy, None),
        Err(problem) => (closed(raw, reference, &problem), Some(problem)),
    };
    let object = Object::NetworkPolicy(Arc::new(policy));
    Ok(match problem {
        None => Converted::Object(object),
        Some(problem) => Converted::Instead(object, problem),
    })
}

fn reference(raw: &Value) -> Proven<PolicyRef> {
    let text = |pointer: &str| raw.pointer(pointer).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").unwrap_or("default");
    let namespace = weir_model::Namespace::new(namespace)
        .map_err(|error| wrong("metadata.namespace", error))?;
    let name = PolicyName::new(text("/metadata/name").unwrap_or_default())
        .map_err(|error| wrong("metadata.name", error))?;
    Ok(PolicyRef { namespace, name })
}

fn proven(raw: &Value, reference: &PolicyRef) -> Proven<NetworkPolicy> {
    let policy: networking::NetworkPolicy = typed(raw.clone())?;
    let spec = policy.spec.unwrap_or_default();
    let pod_selector = match &spec.pod_selector {
        Some(found) => selector(found, "spec.podSelector")?,
        None => LabelSelector::default(),
    };
    let ingress = spec.ingress.unwrap_or_default();
    let egress = spec.egress.unwrap_or_default();
    let types = spec.policy_types.unwrap_or_default();
    let (is_ingress, is_egress) = directions(&types, !egress.is_empty())?;

    // Rules of a direction that the policy is not about are proven too, as the API server does.
    let mut ingress_rules = Vec::new();
    for (place, rule) in ingress.into_iter().enumerate() {
        let field = format!("spec.ingress[{place}]");
        let peers = peers(rule.from.unwrap_or_default(), &format!("{field}.from"))?;
        let ports = ports(rule.ports.unwrap_or_default(), &format!("{field}.ports"))?;
        ingress_rules.push(PolicyRule { peers, ports });
    }
    let mut egress_rules = Vec::new();
    for (place, rule) in egress.into_iter().enumerate() {
        let field = format!("spec.egress[{place}]");
        let peers = peers(rule.to.unwrap_or_default(), &format!("{field}.to"))?;
        let ports = ports(rule.ports.unwrap_or_default(), &format!("{field}.ports"))?;
        egress_rules.push(PolicyRule { peers, ports });
    }
    let annotations = policy.metadata.annotations.unwrap_or_default();
    Ok(NetworkPolicy {
        reference: reference.clone(),
        pod_selector,
        ingress: is_ingress.then_some(ingress_rules),
        egress: is_egress.then_some(egress_rules),
        annotations: annotations
            .into_iter()
            .filter(|(key, _)| key.starts_with(ANNOTATIONS))
            .collect(),
        refused: None,
    })
}

/// Isolates at least what the policy was to isolate. What cannot be read counts as "all".
fn closed(raw: &Value, reference: PolicyRef, problem: &FieldProblem) -> NetworkPolicy {
    let pod_selector = raw
        .pointer("/spec/podSelector")
        .and_then(|found| typed::<meta::LabelSelector>(found.clone()).ok())
        .and_then(|found| selector(&found, "").ok());
    let has_egress = match raw.pointer("/spec/egress") {
        None | Some(Value::Null) => false,
        Some(rules) => rules.as_array().is_none_or(|rules| !rules.is_empty()),
    };
    let types = match raw.pointer("/spec/policyTypes") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(types) => typed::<Vec<String>>(types.clone()).ok(),
    };
    let (ingress, egress) = types
        .and_then(|types| directions(&types, has_egress).ok())
        .unwrap_or((true, true));
    NetworkPolicy {
        reference,
        pod_selector: pod_selector.unwrap_or_default(),
        ingress: ingress.then(Vec::new),
        egress: egress.then(Vec::new),
        annotations: BTreeMap::new(),
        refused: Some(Refusal {
            field: problem.field.clone(),
            message: problem.message.clone(),
        }),
    }
}

/// Which directions a policy is about: where it does not say, ingress always and egress if it has
/// rules for it.
fn directions(types: &[String], has_egress: bool) -> Proven<(bool, bool)> {
    if types.is_empty() {
        return Ok((true, has_egress));
    }
    let known = |name: &str| types.iter().any(|one| one == name);
    for (place, one) in types.iter().enumerate() {
        if one != "Ingress" && one != "Egress" {
            return Err(wrong(
                format!("spec.policyTypes[{place}]"),
                format!("`{}` is not Ingress or Egress", shown(one)),
            ));
        }
    }
    Ok((known("Ingress"), known("Egress")))
}

fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
