// SPDX-License-Identifier: Apache-2.0
//! Any map as text, and how its rows compare with the desired ones.

mod services;

use std::collections::BTreeMap;
use std::fmt::Display;

use weir_abi::counter::{Counter, Direction, Metric};
use weir_abi::fragment::{FragmentKey, FragmentRow};
use weir_abi::ipcache::PrefixKey;
use weir_abi::map::{self, MapInfo};
use weir_abi::policy::{PolicyKey, PolicyRow, rule_flags};
use weir_abi::{DropReason, FlowEntry, FlowKey, Slot};
use weir_api::kernel::MapEntry;
use weir_compile::Rows;
use weir_compile::prefix::display_prefix;
use weir_datapath::{Maps, Result};

use crate::directory::Directory;

/// What a number of the `metrics` map stands for.
pub(super) fn reason_name(code: u8) -> String {
    match (code, DropReason::from_number(code)) {
        (0, _) => "Forwarded".to_owned(),
        (_, Some(reason)) => reason.info().prose.to_owned(),
        (_, None) => format!("Unknown ({code})"),
    }
}

pub(super) fn direction_name(number: u32) -> &'static str {
    let found = Direction::ALL
        .into_iter()
        .find(|direction| *direction as u32 == number);
    found.unwrap_or(Direction::Unspecified).name()
}

fn dynamic(key: impl Display, value: impl Display) -> MapEntry {
    MapEntry {
        key: key.to_string(),
        value: value.to_string(),
        state: "dynamic".to_owned(),
    }
}

/// Every row of one map.
pub(super) fn entries(info: &MapInfo, maps: &Maps, directory: &Directory) -> Result<Vec<MapEntry>> {
    let of_programs = [
        map::FLOWS,
        map::FRAGMENTS,
        map::TUNNEL_MTU,
        map::GENERATIONS,
        map::METRICS,
        map::COUNTERS,
        map::POLICY_HITS,
        map::EVENTS,
    ];
    // The loop must not wait while a large table is read that is compared with nothing.
    if of_programs.iter().any(|map| map.name == info.name) {
        return written_by_programs(info.name, maps);
    }
    let services = directory.services();
    if let Some(entries) = services::entries(info, maps, services.rows())? {
        return Ok(entries);
    }
    let policy = directory.policy();
    let desired: &Rows = policy.rows();
    match info.name {
        name if name == map::ENDPOINTS.name => {
            let rows = maps.endpoints.entries()?;
            Ok(compared(
                rows,
                &desired.endpoints,
                ToString::to_string,
                |row| {
                    format!(
                        "id={} sec_id={} ifindex={} mac={} flags={:#06x} policy_set={} blocks={}",
                        row.id,
                        row.identity.0,
                        row.ifindex,
                        row.mac,
                        row.flags,
                        row.policy_set,
                        row.blocks
                    )
                },
            ))
        }
        name if name == map::IPCACHE.name => {
            let rows = maps.ipcache.entries()?;
            let prefix = |key: &PrefixKey| display_prefix(key).to_string();
            let desired = services::with_addresses(&desired.ipcache, services.rows());
            Ok(compared(rows, &desired, prefix, |row| {
                format!(
                    "identity={} node={} flags={:#06x} blocks={}",
                    row.identity.0, row.node, row.flags, row.blocks
                )
            }))
        }
        name if name == map::MASQUERADE_EXEMPT.name => {
            let rows = maps
                .masquerade_exempt
                .keys()?
                .into_iter()
                .map(|key| (key, ()))
                .collect();
            let wanted = desired
                .masquerade_exempt
                .iter()
                .map(|key| (*key, ()))
                .collect();
            let prefix = |key: &PrefixKey| display_prefix(key).to_string();
            Ok(compared(rows, &wanted, prefix, |()| String::new()))
        }
        name if name == map::POLICY.name => {
            let rows = maps.policy.entries()?;
            Ok(compared(rows, &desired.policy, policy_key, policy_row))
        }
        name if name == map::NODES.name => {
            let rows = maps.read_back()?.nodes.into_iter().collect();
            Ok(compared(rows, &desired.nodes, ToString::to_string, |row| {
                format!("local={} remote={}", row.local, row.remote)
            }))
        }
        _ => Ok(Vec::new()),
    }
}

/// Rows that the agent does not own: nothing is desired of them.
fn written_by_programs(name: &str, maps: &Maps) -> Result<Vec<MapEntry>> {
    let found = match name {
        name if name == map::FLOWS.name => maps
            .flows
            .entries()?
            .iter()
            .map(|(key, entry)| flow(key, entry))
            .collect(),
        name if name == map::FRAGMENTS.name => maps
            .fragments
            .entries()?
            .iter()
            .map(|(key, row)| fragment(key, *row))
            .collect(),
        name if name == map::TUNNEL_MTU.name => {
            let rows = maps.tunnel_mtu.entries()?.into_iter();
            rows.map(|(key, row)| dynamic(key, format!("mtu={} expires={}", row.mtu, row.expires)))
                .collect()
        }
        name if name == map::GENERATIONS.name => {
            let rows = maps.generations.entries()?.into_iter();
            rows.filter(|(_, generation)| generation.0 != 0)
                .map(|(slot, generation)| dynamic(slot_name(slot), generation))
                .collect()
        }
        name if name == map::METRICS.name => {
            let show = |(index, metric): (u32, Metric)| {
                let reason = reason_name(u8::try_from(index >> 2).unwrap_or(u8::MAX));
                let key = format!("{reason} {}", direction_name(index & 3));
                dynamic(
                    key,
                    format!("packets={} bytes={}", metric.packets, metric.bytes),
                )
            };
            maps.metrics.sums()?.into_iter().map(show).collect()
        }
        name if name == map::COUNTERS.name => {
            let mut found = Vec::new();
            for counter in Counter::ALL {
                found.push(dynamic(counter.name(), maps.counter(*counter)?));
            }
            found
        }
        name if name == map::POLICY_HITS.name => {
            let rows = (0_u32..).zip(maps.policy_hits.places(0, maps.policy_hits.size())?);
            rows.filter(|(_, hits)| hits.packets > 0)
                .map(|(cookie, hits)| {
                    let value = format!("packets={} bytes={}", hits.packets, hits.bytes);
                    dynamic(format_args!("cookie {cookie}"), value)
                })
                .collect()
        }
        // A ring has no rows.
        _ => Vec::new(),
    };
    Ok(found)
}

fn policy_key(key: &PolicyKey) -> String {
    let direction = if key.direction == 0 {
        "ingress"
    } else {
        "egress"
    };
    let peer = match key.peer_kind {
        0 => "any".to_owned(),
        1 => format!("identity {}", key.peer),
        _ => format!("blocks {}", key.peer),
    };
    format!("set {} {direction} {peer} part {}", key.set, key.part)
}

fn policy_row(row: &PolicyRow) -> String {
    let rules = row.rules.iter().take(usize::from(row.count)).map(|rule| {
        let deny = if rule.flags & rule_flags::DENY != 0 {
            "deny "
        } else {
            ""
        };
        format!(
            "{deny}{}-{}/{} precedence {} cookie {}",
            rule.first_port, rule.last_port, rule.protocol, rule.precedence, rule.cookie
        )
    });
    rules.collect::<Vec<_>>().join(", ")
}

fn flow(key: &FlowKey, entry: &FlowEntry) -> MapEntry {
    let FlowEntry {
        expires,
        packets,
        bytes,
        action,
        egress,
        kind,
        state,
        ..
    } = *entry;
    let value = format!(
        "expires={expires} packets={packets} bytes={bytes} action={action} egress={egress} \
         kind={kind:?} state={state:#x}"
    );
    dynamic(key, value)
}

fn fragment(key: &FragmentKey, row: FragmentRow) -> MapEntry {
    let id = u32::from_be_bytes(key.identification);
    let text = format!(
        "{} {} -> {} id={id:#x}",
        key.protocol, key.source, key.destination
    );
    dynamic(
        text,
        format!("ports={}->{}", row.source_port, row.destination_port),
    )
}

fn slot_name(slot: u32) -> String {
    match u16::try_from(slot).map(Slot) {
        Ok(Slot::ALL) => "1 (all)".to_owned(),
        Ok(Slot::ROUTES) => "2 (routes)".to_owned(),
        Ok(_) | Err(_) => slot.to_string(),
    }
}

fn compared<K: Ord + Copy, V: PartialEq>(
    found: Vec<(K, V)>,
    desired: &BTreeMap<K, V>,
    key_text: impl Fn(&K) -> String,
    value_text: impl Fn(&V) -> String,
) -> Vec<MapEntry> {
    let found: BTreeMap<K, V> = found.into_iter().collect();
    let mut entries: BTreeMap<K, MapEntry> = BTreeMap::new();
    for (key, value) in &found {
        let state = match desired.get(key) {
            Some(wanted) if wanted == value => "sync",
            Some(_) => "changed",
            None => "foreign",
        };
        let entry = MapEntry {
            key: key_text(key),
            value: value_text(value),
            state: state.to_owned(),
        };
        entries.insert(*key, entry);
    }
    for (key, value) in desired.iter().filter(|(key, _)| !found.contains_key(key)) {
        let state = "missing".to_owned();
        let entry = MapEntry {
            key: key_text(key),
            value: value_text(value),
            state,
        };
        entries.insert(*key, entry);
    }
    entries.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_with_the_desired_ones() {
        let desired = BTreeMap::from([(1, 10), (2, 20), (3, 30)]);
        let found = vec![(1, 10), (2, 21), (4, 40)];
        let entries = compared(found, &desired, ToString::to_string, ToString::to_string);
        let shown: Vec<_> = entries
            .iter()
            .map(|one| format!("{}={} {}", one.key, one.value, one.state))
            .collect();
        assert_eq!(
            shown,
            ["1=10 sync", "2=21 changed", "3=30 missing", "4=40 foreign"]
        );
    }
}
