// SPDX-License-Identifier: Apache-2.0
//! What is neither good nor bad: one line for each fact, and the peers' words for services.

use std::fmt::Write as _;

use weir_api::kernel::MapState;
use weir_api::status::{IpamPool, ServiceStatus, Status};

use super::{SECOND, capital, named};
use crate::output::style;
use crate::text::{count, percent};

/// What is neither good nor bad.
pub(super) fn facts(status: &Status) -> Vec<String> {
    let pools: Vec<String> = status.ipam.iter().map(allocated).collect();
    let devices: Vec<String> = status
        .devices
        .iter()
        .map(|device| {
            let mut about = vec![format!("mtu {}", device.mtu)];
            about.extend(device.addresses.iter().cloned());
            format!("{} ({})", device.name, about.join(", "))
        })
        .collect();
    let events = &status.events;
    let masquerade = if status.masquerade {
        "Enabled"
    } else {
        "Disabled"
    };
    vec![
        named(
            "Pods",
            &format!(
                "{}/{} ready",
                status.endpoints.ready, status.endpoints.total
            ),
        ),
        named("Pod addresses", &pools.join(", ")),
        named(
            "Routing",
            &format!("Network: {}   Host: BPF", capital(&status.routing_mode)),
        ),
        named("Masquerading", &format!("BPF   {masquerade}")),
        named("KubeProxyReplacement", &replacement(status)),
        named("Service ports", &balanced(&status.services)),
        named("Underlay", &devices.join(", ")),
        named("Fullest map", &fullest(&status.maps)),
        named(
            "Monitor",
            &format!(
                "{} received, {} lost in the kernel, {} lost by slow listeners, {}",
                count(events.received, "event"),
                events.lost,
                events.dropped,
                count(events.listeners, "listener")
            ),
        ),
        named(
            "Repairs",
            &format!(
                "{} put right since the agent started",
                count(status.repairs, "row")
            ),
        ),
    ]
}

/// In the peers' words: the devices where services are balanced.
fn replacement(status: &Status) -> String {
    let devices: Vec<String> = status
        .devices
        .iter()
        .map(|device| format!("{} {}", device.name, device.addresses.join(" ")))
        .collect();
    format!("True   [{}]", devices.join(", "))
}

fn balanced(services: &ServiceStatus) -> String {
    let ServiceStatus {
        services,
        frontends,
        backends,
        without_backend,
        ..
    } = services;
    let mut text = format!(
        "{}, {}, {}",
        count(*services, "service"),
        count(*frontends, "frontend"),
        count(*backends, "backend")
    );
    if *without_backend > 0 {
        let services = count(*without_backend, "service");
        let _ = write!(text, "; {services} without a healthy backend");
    }
    text
}

/// In the peers' words, for those who look for them.
pub(super) fn replacement_details(status: &Status) -> Vec<String> {
    let ServiceStatus {
        socket_lb,
        algorithm,
        mode,
        acceleration,
        no_backend,
        node_port_range,
        ..
    } = &status.services;
    let coverage = if *socket_lb { "Full" } else { "Hostns-only" };
    let devices = replacement(status);
    let devices = devices.trim_start_matches("True").trim();
    [
        ("Status", "True"),
        ("Socket LB", "Enabled"),
        ("Socket LB Coverage", coverage),
        ("Devices", devices),
        ("Mode", &mode.to_uppercase()),
        ("Backend Selection", capital(algorithm).as_str()),
        ("Session Affinity", "Enabled"),
        ("XDP Acceleration", capital(acceleration).as_str()),
        ("No backend", capital(no_backend).as_str()),
    ]
    .into_iter()
    .map(|(name, value)| format!("{:SECOND$}{value}", format!("{name}:")))
    .chain([
        "Services:".to_owned(),
        "- ClusterIP:      Enabled".to_owned(),
        format!("- NodePort:       Enabled (Range: {node_port_range})"),
        "- LoadBalancer:   Enabled".to_owned(),
        "- externalIPs:    Enabled".to_owned(),
        "- HostPort:       Enabled".to_owned(),
    ])
    .collect()
}

/// From these per mille on somebody should do something.
const NEARLY_FULL: u64 = 900;

/// The map that will be in the way first.
fn fullest(maps: &[MapState]) -> String {
    let used = |map: &MapState| map.used?.saturating_mul(1000).checked_div(map.size);
    // Of equal ones the first, which is the flow table.
    let Some((fullness, map)) = maps
        .iter()
        .rev()
        .filter_map(|map| Some((used(map)?, map)))
        .max_by_key(|(used, _)| *used)
    else {
        return String::new();
    };
    let filled = map.used.unwrap_or_default();
    let text = format!(
        "{} {filled}/{} ({})",
        map.title,
        map.size,
        percent(filled, map.size)
    );
    if fullness >= NEARLY_FULL {
        let warning = format!("nearly full: raise mapSizes.{}", map.name);
        format!("{text} {}", style::paint(style::BAD, &warning))
    } else {
        text
    }
}

/// How many addresses a /64 has is a number that nobody can read or use up.
fn allocated(pool: &IpamPool) -> String {
    let IpamPool {
        cidr,
        used,
        capacity,
    } = pool;
    if *capacity > u64::from(u32::MAX) {
        format!("{used} allocated from {cidr}")
    } else {
        format!("{used}/{capacity} allocated from {cidr}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_is_nearly_full_is_named() {
        let map = |name: &str, used, size| MapState {
            name: name.to_owned(),
            title: name.to_owned(),
            kind: "hash".to_owned(),
            used,
            size,
            errors: 0,
        };
        let maps = [
            map("events", None, 1),
            map("ipcache", Some(89), 100),
            map("flows", Some(901), 1000),
            map("empty", Some(0), 0),
        ];
        let text = fullest(&maps);
        assert!(text.starts_with("flows 901/1000 (90.1%) "), "{text}");
        assert!(text.contains("raise mapSizes.flows"), "{text}");
        assert_eq!(fullest(&maps[..2]), "ipcache 89/100 (89.0%)");
        assert_eq!(fullest(&[]), "");
    }
}
