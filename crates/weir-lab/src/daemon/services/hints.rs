// SPDX-License-Identifier: Apache-2.0
//! For whom endpoints are meant: hints from `trafficDistribution` and from the topology annotation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{super::store::Store, condition};
use crate::object::Object;

/// What the annotation was called before is understood too.
const ANNOTATIONS: [&str; 2] = [
    "service.kubernetes.io/topology-mode",
    "service.kubernetes.io/topology-aware-hints",
];
const ZONE: &str = "topology.kubernetes.io/zone";
/// How much more than its share an endpoint may have to carry (kube-controller-manager's `OverloadThreshold`).
const OVERLOAD: f64 = 0.2;

/// The share of each zone in the cluster's processors; none when a node does not say where it is.
#[derive(Debug)]
pub(super) struct Nodes(Option<BTreeMap<String, f64>>);

impl Nodes {
    pub(super) fn of(store: &Store) -> Self {
        let mut zones: BTreeMap<String, f64> = BTreeMap::new();
        for node in store.of_kind("Node") {
            let Some(zone) = node.labels().remove(ZONE) else {
                return Self(None);
            };
            *zones.entry(zone).or_default() += processors(node);
        }
        let all: f64 = zones.values().sum();
        for share in zones.values_mut() {
            *share /= all;
        }
        Self(Some(zones))
    }
}

/// The processors of a node as its status has them; nodes of a lab are alike.
fn processors(node: &Object) -> f64 {
    let text = match node.get("/status/allocatable/cpu") {
        Some(Value::String(text)) => text.clone(),
        Some(number) => number.to_string(),
        None => return 1.0,
    };
    let (number, unit) = match text.strip_suffix('m') {
        Some(thousandths) => (thousandths, 1000.0),
        None => (text.as_str(), 1.0),
    };
    number.parse::<f64>().map_or(1.0, |number| number / unit)
}

/// Gives the endpoints of one family their hints.
pub(super) fn give(service: &Object, endpoints: Vec<&mut Value>, nodes: &Nodes) {
    let annotated = ANNOTATIONS
        .into_iter()
        .find_map(|name| service.annotation(name));
    if annotated.is_some_and(|mode| mode.eq_ignore_ascii_case("auto")) {
        by_topology(endpoints, nodes);
        return;
    }
    let by_node = match service.text("/spec/trafficDistribution") {
        Some("PreferClose" | "PreferSameZone") => false,
        Some("PreferSameNode") => true,
        _ => return,
    };
    for endpoint in endpoints.into_iter().filter(|endpoint| is_ready(endpoint)) {
        let mut hints = json!({});
        if let Some(zone) = endpoint["zone"].as_str() {
            hints["forZones"] = json!([{"name": zone}]);
        }
        if let (true, Some(node)) = (by_node, endpoint["nodeName"].as_str()) {
            hints["forNodes"] = json!([{"name": node}]);
        }
        if hints != json!({}) {
            endpoint["hints"] = hints;
        }
    }
}

fn is_ready(endpoint: &Value) -> bool {
    condition(endpoint, "ready", true)
}

/// How many endpoints a zone should have.
#[derive(Clone, Copy, Debug)]
struct Share {
    least: usize,
    most: usize,
    desired: f64,
}

/// Each zone gets endpoints in proportion to its processors: its own first, then what others have too many of. Where
/// that cannot be done, nobody gets a hint.
fn by_topology(endpoints: Vec<&mut Value>, nodes: &Nodes) {
    let mut ready: Vec<&mut Value> = endpoints
        .into_iter()
        .filter(|endpoint| is_ready(endpoint))
        .collect();
    let zone_of = |endpoint: &Value| endpoint["zone"].as_str().map(ToOwned::to_owned);
    let zones: Option<Vec<String>> = ready.iter().map(|endpoint| zone_of(endpoint)).collect();
    let (Some(mut zones), Some(shares)) = (zones, shares(nodes, ready.len())) else {
        return;
    };
    let mut given: BTreeMap<&str, usize> = shares.keys().map(|zone| (zone.as_str(), 0)).collect();
    for zone in &zones {
        if let Some(count) = given.get_mut(zone.as_str()) {
            *count += 1;
        }
    }
    let mut giving: BTreeMap<String, f64> = BTreeMap::new();
    let mut receiving: BTreeMap<String, f64> = BTreeMap::new();
    for (zone, share) in &shares {
        let count = given.get(zone.as_str()).copied().unwrap_or_default();
        if count > share.most {
            giving.insert(zone.clone(), float(count) - share.desired);
        } else if count < share.least {
            receiving.insert(zone.clone(), share.desired - float(count));
        }
    }
    while let (Some(from), Some(to)) = (neediest(&mut giving), neediest(&mut receiving)) {
        if let Some(zone) = zones.iter_mut().find(|zone| **zone == from) {
            *zone = to;
        }
    }
    for (endpoint, zone) in ready.iter_mut().zip(zones) {
        endpoint["hints"] = json!({"forZones": [{"name": zone}]});
    }
}

/// The shares of the zones; none when there is one zone only or too few endpoints for a fair division.
fn shares(nodes: &Nodes, count: usize) -> Option<BTreeMap<String, Share>> {
    let zones = nodes.0.as_ref()?;
    if zones.len() < 2 || zones.len() > count {
        return None;
    }
    let mut shares = BTreeMap::new();
    let mut sum = 0;
    for (zone, ratio) in zones {
        let desired = ratio * float(count);
        let least = ceiling(desired / (1.0 + OVERLOAD));
        sum += least;
        let desired = desired.max(float(least));
        let most = least;
        shares.insert(
            zone.clone(),
            Share {
                least,
                most,
                desired,
            },
        );
    }
    let spare = count.checked_sub(sum)?;
    for share in shares.values_mut() {
        share.most += spare;
    }
    Some(shares)
}

/// Takes one away from whoever has the most, if that is more than nothing.
fn neediest(amounts: &mut BTreeMap<String, f64>) -> Option<String> {
    let (zone, amount) = amounts
        .iter_mut()
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .filter(|(_, amount)| **amount > 0.0)?;
    *amount -= 1.0;
    Some(zone.clone())
}

#[expect(clippy::cast_precision_loss, reason = "a count of endpoints")]
fn float(count: usize) -> f64 {
    count as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of endpoints"
)]
fn ceiling(number: f64) -> usize {
    number.ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Endpoints by zone (`-` is none, lower case is not ready), and the zones that they are meant for.
    fn check(annotation: &str, distribution: &str, zones: &str, expected: &str) {
        let service = Object::new(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "annotations": {ANNOTATIONS[0]: annotation}},
            "spec": {"trafficDistribution": distribution},
        }))
        .unwrap();
        let nodes = Nodes(Some(
            ["A", "B", "C"]
                .map(|zone| (zone.to_owned(), 1.0 / 3.0))
                .into(),
        ));
        let mut endpoints: Vec<Value> = zones
            .chars()
            .map(|zone| {
                let mut endpoint =
                    json!({"nodeName": "n1", "conditions": {"ready": !zone.is_lowercase()}});
                if zone != '-' {
                    endpoint["zone"] = json!(zone.to_uppercase().to_string());
                }
                endpoint
            })
            .collect();
        give(&service, endpoints.iter_mut().collect(), &nodes);
        let hints: Vec<String> = endpoints
            .iter()
            .map(|endpoint| {
                let name = |list: &str| endpoint["hints"][list][0]["name"].as_str().unwrap_or("");
                name("forZones").to_owned() + name("forNodes")
            })
            .collect();
        assert_eq!(
            hints.join(" "),
            expected,
            "{annotation} {distribution} {zones}"
        );
    }

    #[test]
    fn endpoints_are_meant_for_their_own_zones_or_for_those_that_lack_some() {
        check("Auto", "", "AABBCC", "A A B B C C");
        // Too many here, too few there.
        check("Auto", "", "AAABBB", "C A A C B B");
        check("Auto", "", "AAAA", "   ");
        check("auto", "", "ABCc", "A B C ");
        // Too few for a fair division, or an endpoint that is nowhere.
        check("Auto", "", "AB", " ");
        check("Auto", "", "ABC-", "   ");
        check("Disabled", "", "ABC", "  ");
    }

    #[test]
    fn traffic_is_kept_close_where_that_is_asked_for() {
        check("", "", "AB", " ");
        check("", "PreferClose", "AbA-", "A  A ");
        check("", "PreferSameZone", "AB", "A B");
        check("", "PreferSameNode", "A-", "An1 n1");
        // The annotation is asked first.
        check("Auto", "PreferSameNode", "ABC", "A B C");
    }
}
