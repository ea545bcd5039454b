// SPDX-License-Identifier: Apache-2.0
//! Network policies, with every rule that the API server has for them.
//!
//! A policy that cannot be read must not be left out: pods that it was to isolate would be open. So
//! one that isolates the same pods and allows nothing takes its place, unless an earlier version was
//! accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use weir_abi::Protocol;
use weir_model::{
    IpBlock, LabelSelector, NetworkPolicy, PeerNamespaces, PolicyName, PolicyPeer, PolicyPort,
    PolicyRef, PolicyRule, PortMatch, Refusal, Requirement,
};

use super::{Converted, FieldProblem, typed, wrong};
use crate::object::Object;

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

fn selector(raw: &meta::LabelSelector, field: &str) -> Proven<LabelSelector> {
    let mut requirements = Vec::new();
    for (key, value) in raw.match_labels.iter().flatten() {
        // Only the values of `matchLabels` are proven: of an expression, one that no label can have
        // just matches nothing.
        weir_model::Labels::new([(key, value)])
            .map_err(|error| wrong(format!("{field}.matchLabels"), error))?;
        requirements.push(Requirement::In(
            key.clone(),
            BTreeSet::from([value.clone()]),
        ));
    }
    for (place, expression) in raw.match_expressions.iter().flatten().enumerate() {
        let at = |part: &str| format!("{field}.matchExpressions[{place}]{part}");
        let key = expression.key.clone();
        let values: BTreeSet<_> = expression.values.iter().flatten().cloned().collect();
        let operator = expression.operator.as_str();
        let lists = matches!(operator, "In" | "NotIn");
        let requirement = match operator {
            "In" => Requirement::In(key, values.clone()),
            "NotIn" => Requirement::NotIn(key, values.clone()),
            "Exists" => Requirement::Exists(key),
            "DoesNotExist" => Requirement::DoesNotExist(key),
            other => {
                let other = shown(other);
                let message = format!("`{other}` is not In, NotIn, Exists or DoesNotExist");
                return Err(wrong(at(".operator"), message));
            }
        };
        if lists && values.is_empty() {
            return Err(wrong(at(".values"), format!("{operator} needs values")));
        }
        if !lists && !values.is_empty() {
            return Err(wrong(at(".values"), format!("{operator} has no values")));
        }
        LabelSelector::new([requirement.clone()]).map_err(|error| wrong(at(".key"), error))?;
        requirements.push(requirement);
    }
    LabelSelector::new(requirements).map_err(|error| wrong(field, error))
}

fn peers(raw: Vec<networking::NetworkPolicyPeer>, field: &str) -> Proven<Vec<PolicyPeer>> {
    let place = |(place, one)| peer(one, &format!("{field}[{place}]"));
    raw.into_iter().enumerate().map(place).collect()
}

fn peer(raw: networking::NetworkPolicyPeer, field: &str) -> Proven<PolicyPeer> {
    let pods = raw
        .pod_selector
        .map(|found| selector(&found, &format!("{field}.podSelector")))
        .transpose()?;
    let namespaces = raw
        .namespace_selector
        .map(|found| selector(&found, &format!("{field}.namespaceSelector")))
        .transpose()?;
    match (raw.ip_block, namespaces, pods) {
        (Some(found), None, None) => {
            block(&found, &format!("{field}.ipBlock")).map(PolicyPeer::Block)
        }
        (Some(_), _, _) => Err(wrong(field, "ipBlock stands alone, without selectors")),
        (None, None, None) => Err(wrong(
            field,
            "one of ipBlock, namespaceSelector and podSelector is needed",
        )),
        (None, namespaces, pods) => Ok(PolicyPeer::Pods {
            namespaces: namespaces.map_or(PeerNamespaces::Own, PeerNamespaces::Selected),
            pods: pods.unwrap_or_default(),
        }),
    }
}

fn block(raw: &networking::IPBlock, field: &str) -> Proven<IpBlock> {
    let cidr = range(&raw.cidr, &format!("{field}.cidr"))?;
    let mut except = Vec::new();
    for (place, text) in raw.except.iter().flatten().enumerate() {
        except.push(range(text, &format!("{field}.except[{place}]"))?);
    }
    IpBlock::new(cidr, except)
        .map_err(|error| wrong(format!("{field}.except[{}]", error.place), &error))
}

/// A range; one of mapped addresses is the IPv4 range that it stands for.
fn range(text: &str, field: &str) -> Proven<IpNet> {
    let net: IpNet = text.parse().map_err(|_| {
        let text = shown(text);
        let message = format!("`{text}` is not a CIDR such as 10.0.0.0/8 or fd00::/8");
        wrong(field, message)
    })?;
    let mapped = match net.addr() {
        IpAddr::V6(v6) if net.prefix_len() >= 96 => v6.to_ipv4_mapped(),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    };
    let v4 = mapped.and_then(|v4| Ipv4Net::new(v4, net.prefix_len() - 96).ok());
    Ok(v4.map_or(net, IpNet::from).trunc())
}

fn ports(raw: Vec<networking::NetworkPolicyPort>, field: &str) -> Proven<Vec<PolicyPort>> {
    let place = |(place, one)| port(one, &format!("{field}[{place}]"));
    raw.into_iter().enumerate().map(place).collect()
}

fn port(raw: networking::NetworkPolicyPort, field: &str) -> Proven<PolicyPort> {
    let protocol = match raw.protocol.as_deref() {
        None | Some("TCP") => Protocol::TCP,
        Some("UDP") => Protocol::UDP,
        Some("SCTP") => Protocol::SCTP,
        Some(other) => {
            let message = format!("`{}` is not TCP, UDP or SCTP", shown(other));
            return Err(wrong(format!("{field}.protocol"), message));
        }
    };
    let number = |value: i32, part: &str| {
        let number = u16::try_from(value).ok().filter(|number| *number > 0);
        number.ok_or_else(|| {
            let message = format!("{value} is not a port: 1 to 65535");
            wrong(format!("{field}.{part}"), message)
        })
    };
    let ports = match (raw.port, raw.end_port) {
        (None, None) => PortMatch::All,
        (None, Some(_)) => {
            return Err(wrong(
                format!("{field}.endPort"),
                "a range needs its first port in `port`",
            ));
        }
        (Some(IntOrString::Int(first)), last) => {
            let first = number(first, "port")?;
            let last = last.map_or(Ok(first), |last| number(last, "endPort"))?;
            if last < first {
                let message = format!("{last} is less than port {first}");
                return Err(wrong(format!("{field}.endPort"), message));
            }
            PortMatch::Range(first, last)
        }
        (Some(IntOrString::String(name)), None) => {
            check_port_name(&name).map_err(|reason| {
                let message = format!("`{}` is not the name of a port: {reason}", shown(&name));
                wrong(format!("{field}.port"), message)
            })?;
            PortMatch::Named(name)
        }
        (Some(IntOrString::String(_)), Some(_)) => {
            return Err(wrong(
                format!("{field}.endPort"),
                "a range cannot begin at a port with a name",
            ));
        }
    };
    Ok(PolicyPort { protocol, ports })
}

/// RFC 6335, section 5.1, as Kubernetes reads it.
fn check_port_name(name: &str) -> Result<(), &'static str> {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 15 {
        Err("it has 1 to 15 characters")
    } else if !name.chars().all(legal) {
        Err("only lower-case letters, digits and `-` are allowed")
    } else if !name.chars().any(|c| c.is_ascii_lowercase()) {
        Err("it needs a letter")
    } else if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        Err("`-` stands alone between letters or digits")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
