// SPDX-License-Identifier: Apache-2.0
//! Whom a rule is about: selectors of labels, and ranges of addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use weir_model::{IpBlock, LabelSelector, PeerNamespaces, PolicyPeer, Requirement};

use super::{Proven, shown, wrong};

pub(super) fn selector(raw: &meta::LabelSelector, field: &str) -> Proven<LabelSelector> {
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

pub(super) fn peers(
    raw: Vec<networking::NetworkPolicyPeer>,
    field: &str,
) -> Proven<Vec<PolicyPeer>> {
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
