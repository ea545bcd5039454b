// SPDX-License-Identifier: Apache-2.0
//! The smaller maps, as tables.

use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Format, Table};
use ipnet::IpNet;
use std::net::IpAddr;
use weir_abi::DropReason;
use weir_api::kernel::{EndpointEntry, IpcacheEntry, MetricEntry};
use weir_api::path;

pub(super) fn ipcache(context: &mut Context, format: &Format) -> Result<Outcome, CliError> {
    let entries: Vec<IpcacheEntry> = context.client.get(path::IPCACHE)?;
    context.emit(format, &entries, |entries| {
        let mut table = Table::new(["IP PREFIX/ADDRESS", "IDENTITY", "NAME"]);
        for entry in entries {
            table.row([entry.prefix.clone(), details(entry), entry.name.clone()]);
        }
        table.lines()
    })?;
    Ok(Outcome::Fine)
}

pub(super) fn ipcache_get(
    context: &mut Context,
    address: IpAddr,
    format: &Format,
) -> Result<Outcome, CliError> {
    let entries: Vec<IpcacheEntry> = context.client.get(path::IPCACHE)?;
    let found = longest(&entries, address).ok_or_else(|| {
        CliError::missing(
            format!("{address} maps to no identity"),
            "`weir bpf ipcache list` shows all ranges",
        )
    })?;
    context.emit(format, found, |entry| {
        let name = if entry.name.is_empty() {
            String::new()
        } else {
            format!(" ({})", entry.name)
        };
        vec![
            format!(
                "{address} maps to {} {}{name} {}",
                entry.prefix,
                details(entry),
                entry.labels.join(",")
            )
            .trim_end()
            .to_owned(),
        ]
    })?;
    Ok(Outcome::Fine)
}

fn longest(entries: &[IpcacheEntry], address: IpAddr) -> Option<&IpcacheEntry> {
    entries
        .iter()
        .filter_map(|entry| {
            let range: IpNet = entry.prefix.parse().ok()?;
            range
                .contains(&address)
                .then_some((range.prefix_len(), entry))
        })
        .max_by_key(|(length, _)| *length)
        .map(|(_, entry)| entry)
}

/// In the peers' words; the traffic is not encrypted, so the key is always 0.
fn details(entry: &IpcacheEntry) -> String {
    let tunnel = entry.tunnel_endpoint.as_deref().unwrap_or("0.0.0.0");
    let mut flags = entry.flags.clone();
    if entry.tunnel_endpoint.is_some() {
        flags.insert(0, "hastunnel".to_owned());
    }
    let flags = if flags.is_empty() {
        "<none>".to_owned()
    } else {
        flags.join(",")
    };
    format!(
        "identity={} encryptkey=0 tunnelendpoint={tunnel} flags={flags}",
        entry.identity
    )
}

pub(super) fn endpoints(context: &mut Context, format: &Format) -> Result<Outcome, CliError> {
    let entries: Vec<EndpointEntry> = context.client.get(path::KERNEL_ENDPOINTS)?;
    context.emit(format, &entries, |entries| {
        let mut table = Table::new(["IP ADDRESS", "LOCAL ENDPOINT INFO", "NAME"]);
        for entry in entries {
            let details = if entry.localhost {
                "(localhost)".to_owned()
            } else {
                format!(
                    "id={} sec_id={} flags={:#06x} ifindex={} mac={}",
                    entry.id, entry.identity, entry.flags, entry.ifindex, entry.mac
                )
            };
            table.row([entry.address.clone(), details, entry.name.clone()]);
        }
        table.lines()
    })?;
    Ok(Outcome::Fine)
}

pub(super) fn metrics(
    context: &mut Context,
    all: bool,
    format: &Format,
) -> Result<Outcome, CliError> {
    let mut entries: Vec<MetricEntry> = context.client.get(path::KERNEL_METRICS)?;
    entries.retain(|entry| all || entry.packets > 0 || entry.bytes > 0);
    context.emit(format, &entries, |entries| {
        let mut table = Table::new(["REASON", "DIRECTION", "PACKETS", "BYTES", "CODE", "ENUM"])
            .right([2, 3, 4]);
        for entry in entries {
            let enum_name =
                DropReason::from_number(entry.code).map_or("", |reason| reason.info().enum_name);
            table.row([
                entry.reason.clone(),
                entry.direction.clone(),
                entry.packets.to_string(),
                entry.bytes.to_string(),
                entry.code.to_string(),
                enum_name.to_owned(),
            ]);
        }
        table.lines()
    })?;
    Ok(Outcome::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let entry = |prefix: &str| IpcacheEntry {
            prefix: prefix.to_owned(),
            identity: 0,
            labels: Vec::new(),
            name: String::new(),
            tunnel_endpoint: None,
            flags: Vec::new(),
            source: String::new(),
        };
        let entries = ["0.0.0.0/0", "10.8.0.0/16", "10.8.5.12/32", "::/0"].map(entry);
        for (address, expected) in [
            ("10.8.5.12", "10.8.5.12/32"),
            ("10.8.5.13", "10.8.0.0/16"),
            ("192.0.2.1", "0.0.0.0/0"),
            ("fd00::1", "::/0"),
        ] {
            let found = longest(&entries, address.parse().unwrap());
            assert_eq!(found.map(|entry| entry.prefix.as_str()), Some(expected));
        }
        assert!(longest(&entries[1..2], "fd00::1".parse().unwrap()).is_none());
    }
}
