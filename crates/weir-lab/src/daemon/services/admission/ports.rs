// SPDX-License-Identifier: Apache-2.0
//! The ports of a service, on the nodes too.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::super::{is_headless, kind_of};
use crate::object::Object;

/// Fills in what each port leaves out.
pub(super) fn complete(service: &mut Object) -> Result<()> {
    let kind = kind_of(service);
    let may_be_none = kind == "ExternalName" || is_headless(service);
    let count = service.list("/spec/ports").len();
    ensure!(count > 0 || may_be_none, "spec.ports: Required value");
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let ports = service.value_mut()["spec"]["ports"].as_array_mut();
    for (at, port) in ports.into_iter().flatten().enumerate() {
        let number = port["port"].as_u64().unwrap_or_default();
        ensure!(
            (1..=65535).contains(&number),
            "spec.ports[{at}].port: Invalid value: {}: must be between 1 and 65535, inclusive",
            port["port"]
        );
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        ensure!(
            matches!(protocol.as_str(), "TCP" | "UDP" | "SCTP"),
            "spec.ports[{at}].protocol: Unsupported value: \"{protocol}\""
        );
        let name = port["name"].as_str().unwrap_or_default().to_owned();
        ensure!(
            count == 1 || !name.is_empty(),
            "spec.ports[{at}].name: Required value"
        );
        ensure!(
            names.insert(name.clone()),
            "spec.ports[{at}].name: Duplicate value: \"{name}\""
        );
        ensure!(
            numbers.insert((protocol.clone(), number)),
            "spec.ports[{at}]: Duplicate value: {protocol} {number}"
        );
        port["protocol"] = json!(protocol);
        if port["targetPort"].is_null() {
            port["targetPort"] = json!(number);
        }
    }
    Ok(())
}

/// Every node port that a service names, that of the health check too.
pub(super) fn node_ports(service: &Object) -> Vec<u16> {
    let ports = service.list("/spec/ports").iter();
    let ports = ports.map(|port| &port["nodePort"]);
    let check = service.get("/spec/healthCheckNodePort");
    let numbers = ports.chain(check).filter_map(Value::as_u64);
    numbers
        .filter(|number| *number != 0)
        .map(|number| u16::try_from(number).unwrap_or(u16::MAX))
        .collect()
}

fn has_node_ports(service: &Object) -> bool {
    match kind_of(service) {
        "NodePort" => true,
        "LoadBalancer" => {
            service.get("/spec/allocateLoadBalancerNodePorts") != Some(&Value::Bool(false))
        }
        _ => false,
    }
}

fn has_health_check(service: &Object) -> bool {
    kind_of(service) == "LoadBalancer"
        && service.text("/spec/externalTrafficPolicy") == Some("Local")
}

/// Carries node ports over from the version before (a port is known by its name), and drops those that have no meaning.
pub(super) fn keep(service: &mut Object, old: Option<&Object>) {
    let (checked, open) = (has_health_check(service), kind_of(service) != "ClusterIP");
    let allocates = has_node_ports(service);
    let spec = &mut service.value_mut()["spec"];
    if !checked && let Some(spec) = spec.as_object_mut() {
        spec.remove("healthCheckNodePort");
    }
    let before = old.and_then(|old| old.get("/spec/healthCheckNodePort"));
    if checked && spec["healthCheckNodePort"].as_u64().unwrap_or(0) == 0 {
        spec["healthCheckNodePort"] = before.cloned().unwrap_or_default();
    }
    let ports = spec["ports"].as_array_mut();
    let ports: Vec<&mut Value> = ports.into_iter().flatten().collect();
    if !open {
        for port in ports {
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
        return;
    }
    if !allocates {
        return;
    }
    let named = |port: &Value| port["name"].as_str().unwrap_or_default().to_owned();
    let before: BTreeMap<String, u64> = old
        .map_or(&[][..], |old| old.list("/spec/ports"))
        .iter()
        .filter_map(|port| Some((named(port), port["nodePort"].as_u64()?)))
        .collect();
    let mut used: BTreeSet<u64> = ports
        .iter()
        .filter_map(|port| port["nodePort"].as_u64())
        .collect();
    for port in ports {
        if port["nodePort"].as_u64().unwrap_or(0) == 0
            && let Some(number) = before.get(&named(port))
            && used.insert(*number)
        {
            port["nodePort"] = json!(number);
        }
    }
}

/// Gives node ports where they are missing. Ports of one number and different protocols share theirs.
pub(super) fn give(service: &mut Object, free: &mut dyn FnMut() -> Result<u16>) -> Result<()> {
    let (allocates, checked) = (has_node_ports(service), has_health_check(service));
    let spec = &mut service.value_mut()["spec"];
    if allocates {
        let ports = spec["ports"].as_array_mut().context("spec.ports")?;
        let known = |port: &Value| port["nodePort"].as_u64().filter(|number| *number != 0);
        let mut shared: BTreeMap<u64, u64> = ports
            .iter()
            .filter_map(|port| Some((port["port"].as_u64()?, known(port)?)))
            .collect();
        for port in ports {
            if known(port).is_some() {
                continue;
            }
            let own = port["port"].as_u64().unwrap_or_default();
            let number = match shared.get(&own) {
                Some(number) => *number,
                None => free()?.into(),
            };
            shared.insert(own, number);
            port["nodePort"] = json!(number);
        }
    }
    if checked && spec["healthCheckNodePort"].is_null() {
        spec["healthCheckNodePort"] = json!(free()?);
    }
    Ok(())
}
