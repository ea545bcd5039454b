// SPDX-License-Identifier: Apache-2.0
//! `ipFamilies` and `ipFamilyPolicy`.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use weir_net::Family;

use super::super::{cluster_ips, families, is_headless};
use crate::object::Object;

/// Fills both fields in from what the service says, what it was before and what the cluster has.
pub(super) fn complete(
    service: &mut Object,
    old: Option<&Object>,
    cluster: &[Family],
) -> Result<()> {
    let selects = service
        .get("/spec/selector")
        .and_then(Value::as_object)
        .is_some_and(|selector| !selector.is_empty());
    let anywhere = is_headless(service) && !selects;
    let policy = service
        .text("/spec/ipFamilyPolicy")
        .or_else(|| old.and_then(|old| old.text("/spec/ipFamilyPolicy")))
        .unwrap_or(if anywhere {
            "RequireDualStack"
        } else {
            "SingleStack"
        })
        .to_owned();
    let mut own = families(service);
    let named = !own.is_empty();
    if own.is_empty() {
        let addresses = cluster_ips(service).into_iter();
        own = addresses
            .filter_map(|text| text.parse::<IpAddr>().ok())
            .map(Family::of)
            .collect();
    }
    if own.is_empty() {
        own = old.map(families).unwrap_or_default();
    }
    // Addresses that a dump brings along may be of a family that the lab's ranges lack.
    for family in own
        .iter()
        .filter(|_| named && cluster_ips(service).is_empty())
    {
        ensure!(
            cluster.contains(family) || anywhere,
            "spec.ipFamilies[0]: Invalid value: \"{family}\": not configured on this cluster"
        );
    }
    let all = if anywhere { &Family::BOTH[..] } else { cluster };
    if own.is_empty() {
        own.extend(all.first());
    }
    match policy.as_str() {
        "SingleStack" => {
            ensure!(
                !named || own.len() == 1,
                "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple ipFamilies are specified"
            );
            own.truncate(1);
        }
        "PreferDualStack" | "RequireDualStack" => {
            ensure!(
                policy == "PreferDualStack" || all.len() == 2,
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
            );
            for family in all {
                if !own.contains(family) {
                    own.push(*family);
                }
            }
        }
        other => anyhow::bail!("spec.ipFamilyPolicy: Unsupported value: \"{other}\""),
    }
    let spec = &mut service.value_mut()["spec"];
    spec["ipFamilyPolicy"] = json!(policy);
    spec["ipFamilies"] = own.iter().map(ToString::to_string).collect();
    Ok(())
}
