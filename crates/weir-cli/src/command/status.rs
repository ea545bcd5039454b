// SPDX-License-Identifier: Apache-2.0
//! `status`: is the node's dataplane healthy, and how full is it?

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Output, Table, style};
use crate::text::{count, duration, or_never, percent};
use std::fmt::Write as _;
use std::time::Duration;
use weir_api::kernel::{MapState, NodeEntry};
use weir_api::path;
use weir_api::status::{Controller, IpamPool, PolicySetUse, ServiceStatus, Status, Subsystem};

/// Shows whether the dataplane of this node is healthy; exit status 1 when it is not
///
/// One line for each part. `--verbose` adds controllers, maps (used, size, percent) and nodes.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    weir status\n  \
    weir status --brief && echo healthy\n  \
    weir status --verbose | grep -i \"ct-\"\n  \
    weir status -o jsonpath='{.revision}'")]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches of a command line"
)]
pub(crate) struct Args {
    /// Print everything that is known
    #[arg(long)]
    verbose: bool,
    /// Print only OK, or the first thing that is wrong
    #[arg(long, conflicts_with = "verbose")]
    brief: bool,
    /// Show every controller, also healthy ones
    #[arg(long)]
    all_controllers: bool,
    /// Show the cluster's nodes
    #[arg(long)]
    all_nodes: bool,
    /// The same as --verbose would add for these; taken so that scripts run
    #[arg(long, hide = true)]
    all_addresses: bool,
    #[arg(long, hide = true)]
    all_clusters: bool,
    #[arg(long, hide = true)]
    all_health: bool,
    #[arg(long, hide = true)]
    all_redirects: bool,
    /// Seconds to wait for the agent
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,
    #[command(flatten)]
    output: Output,
}

/// What to show of the sections.
struct Sections {
    controllers: bool,
    nodes: bool,
    details: bool,
}

/// `30`, `30s`, `2m`.
fn seconds(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    match number.parse::<u64>() {
        Ok(number @ 1..=3600) => Ok(Duration::from_secs(number * unit)),
        _ => Err("give seconds, such as 30 or 30s".to_owned()),
    }
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Outcome, CliError> {
    let client = context.client.clone().with_timeout(args.timeout);
    let status: Status = client.get(path::STATUS)?;
    if args.brief && args.output.format == Format::Table {
        context.printer.line(brief(&status))?;
    } else {
        let sections = Sections {
            controllers: args.verbose || args.all_controllers,
            nodes: args.verbose || args.all_nodes || args.all_health,
            details: args.verbose || args.all_addresses,
        };
        context.emit(&args.output.format, &status, |status| {
            lines(status, &sections)
        })?;
    }
    Ok(Outcome::problem_if(!status.healthy))
}

fn brief(status: &Status) -> String {
    let failing = status.subsystems.iter().find(|part| !part.healthy);
    match failing {
        Some(part) => format!("error in {}: {}", part.name, part.message),
        None if !status.healthy => "error in agent: not healthy".to_owned(),
        None => "OK".to_owned(),
    }
}

/// Where the second column begins.
const SECOND: usize = 22;

fn named(name: &str, text: &str) -> String {
    format!("{:SECOND$}{text}", format!("{name}:"))
        .trim_end()
        .to_owned()
}

fn health(healthy: bool, message: &str) -> String {
    let word = if healthy {
        style::paint(style::GOOD, "Ok")
    } else {
        style::paint(style::BAD, "Failure")
    };
    format!("{word}   {message}")
}

fn lines(status: &Status, sections: &Sections) -> Vec<String> {
    let summary = format!(
        "{}, node {}, revision {}, up {}",
        status.version,
        status.node_name,
        status.revision,
        duration(status.uptime_seconds)
    );
    let mut lines = vec![named("Weir", &health(status.healthy, &summary))];
    lines.extend(
        status
            .subsystems
            .iter()
            .map(|part| named(&title(part), &health(part.healthy, &part.message))),
    );
    lines.extend(facts(status));
    lines.push(controllers_summary(&status.controllers));
    if sections.controllers {
        lines.extend(indented(controllers(&status.controllers).lines()));
    }
    if sections.details {
        lines.push("KubeProxyReplacement Details:".to_owned());
        lines.extend(indented(replacement_details(status)));
        let sets = &status.policy_sets;
        lines.push(named("Policy Sets", &sets.len().to_string()));
        if !sets.is_empty() {
            lines.extend(indented(policy_sets(sets).lines()));
        }
        lines.push("BPF Maps:".to_owned());
        lines.extend(indented(maps(&status.maps).lines()));
    }
    if sections.nodes {
        lines.push(named("Nodes", &status.nodes.len().to_string()));
        lines.extend(indented(nodes(&status.nodes).lines()));
    }
    lines
}

fn title(part: &Subsystem) -> String {
    if part.name == "ipam" {
        return "IPAM".to_owned();
    }
    capital(&part.name)
}

/// What is neither good nor bad.
fn facts(status: &Status) -> Vec<String> {
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
            &format!("Network: {}   Host: BPF", title_case(&status.routing_mode)),
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
fn replacement_details(status: &Status) -> Vec<String> {
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

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
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

fn title_case(mode: &str) -> &str {
    match mode {
        "tunnel" => "Tunnel",
        "native" => "Native",
        other => other,
    }
}

fn controllers_summary(controllers: &[Controller]) -> String {
    let healthy = controllers
        .iter()
        .filter(|controller| controller.consecutive_errors == 0)
        .count();
    named(
        "Controller Status",
        &format!("{healthy}/{} healthy", controllers.len()),
    )
}

fn controllers(controllers: &[Controller]) -> Table {
    let mut table = Table::new(["Name", "Last success", "Last error", "Count", "Message"]);
    for controller in controllers {
        table.row([
            controller.name.clone(),
            or_never(controller.last_success.as_ref()),
            or_never(controller.last_error.as_ref()),
            controller.consecutive_errors.to_string(),
            controller.message.clone(),
        ]);
    }
    table
}

fn maps(maps: &[MapState]) -> Table {
    let mut table =
        Table::new(["Name", "Used", "Size", "Percent", "Errors", "Map"]).right([1, 2, 3, 4]);
    for map in maps {
        let used = |text: fn(u64, u64) -> String| {
            map.used
                .map_or_else(|| "-".to_owned(), |used| text(used, map.size))
        };
        table.row([
            map.title.clone(),
            used(|used, _| used.to_string()),
            map.size.to_string(),
            used(percent),
            map.errors.to_string(),
            map.name.clone(),
        ]);
    }
    table
}

fn policy_sets(sets: &[PolicySetUse]) -> Table {
    let mut table = Table::new(["Set", "Endpoints", "Rows", "Bytes"]).right([0, 1, 2, 3]);
    for one in sets {
        table.row(
            [u64::from(one.set), one.endpoints, one.rows, one.bytes]
                .map(|number| number.to_string()),
        );
    }
    table
}

fn nodes(nodes: &[NodeEntry]) -> Table {
    let mut table = Table::new(["Name", "Addresses", "Pod CIDRs"]);
    for node in nodes {
        let local = if node.local { " (localhost)" } else { "" };
        table.row([
            format!("{}{local}", node.name),
            node.addresses.join(", "),
            node.pod_cidrs.join(", "),
        ]);
    }
    table
}

fn indented(lines: Vec<String>) -> impl Iterator<Item = String> {
    lines.into_iter().map(|line| format!("  {line}"))
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

    #[test]
    fn time_outs_are_read() {
        assert_eq!(seconds("30"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds("2m"), Ok(Duration::from_mins(2)));
        for text in ["", "s", "-1", "0", "99999999999999999999"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
