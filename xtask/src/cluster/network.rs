// SPDX-License-Identifier: Apache-2.0
//! The underlay: a bridge in a namespace of its own, and a namespace plugged into it for each host. Nothing is added to
//! the machine's own network.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::place::{CONTROL_PLANE, Node, Place, WORLD};
use super::processes::run;
use crate::process::command;

/// A command in one of the cluster's network namespaces.
pub(crate) fn inside(place: &Place, part: impl std::fmt::Display, program: &str) -> Command {
    let mut nsenter = command("nsenter");
    nsenter
        .arg(format!("--net={}", place.namespace_file(part).display()))
        .arg(program);
    nsenter
}

/// Builds all of it.
pub(super) fn build(place: &Place, nodes: u8) -> Result<()> {
    add_namespace(place, "net")?;
    ip(
        place,
        "net",
        "link add underlay type bridge mcast_snooping 0",
    )?;
    ip(place, "net", "link set underlay up")?;

    plug(place, "control", CONTROL_PLANE.v4, CONTROL_PLANE.v6)?;
    plug(place, "world", WORLD.v4, WORLD.v6)?;
    // Hosts far away, which only the default route reaches.
    ip(place, "world", "address add 203.0.113.1/32 dev lo")?;
    ip(place, "world", "address add 2001:db8:113::1/128 dev lo")?;
    add_default_routes(place, "control")?;
    for node in Node::all(nodes) {
        plug(place, &node.to_string(), &node.v4(), &node.v6())?;
        let mut forward = inside(place, node, "sysctl");
        run(forward.args([
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
        ]))?;
        add_default_routes(place, &node.to_string())?;
    }
    Ok(())
}

/// The API server reaches pods through their node, whatever the nodes among themselves do: it has no other network.
pub(super) fn route_pods(place: &Place, node: Node, ranges: &[String]) -> Result<()> {
    for range in ranges {
        let gateway = if range.contains(':') {
            node.v6()
        } else {
            node.v4()
        };
        ip(
            place,
            "control",
            &format!("route add {range} via {gateway}"),
        )?;
    }
    Ok(())
}

/// Removes every namespace of the cluster, also of one that was built halfway.
pub(super) fn remove(place: &Place) -> Result<()> {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Ok(());
    };
    let prefix = place.namespace("");
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(&prefix) {
            run(command("ip").args(["netns", "delete"]).arg(&name))?;
        }
    }
    Ok(())
}

pub(crate) fn add_namespace(place: &Place, part: &str) -> Result<()> {
    let name = place.namespace(part);
    run(command("ip").args(["netns", "add", &name]))
        .with_context(|| format!("cannot make the network namespace {name}"))?;
    ip(place, part, "link set lo up")
}

fn plug(place: &Place, part: &str, v4: &str, v6: &str) -> Result<()> {
    add_namespace(place, part)?;
    let peer = place.namespace(part);
    ip(
        place,
        "net",
        &format!("link add {part} type veth peer name eth0 netns {peer}"),
    )?;
    ip(place, "net", &format!("link set {part} master underlay up"))?;
    // Or the address stays tentative for a second, and nothing binds to it.
    run(inside(place, part, "sysctl").args(["-qw", "net.ipv6.conf.eth0.accept_dad=0"]))?;
    ip(place, part, "link set eth0 up")?;
    ip(place, part, &format!("address add {v4}/24 dev eth0"))?;
    ip(place, part, &format!("address add {v6}/64 dev eth0 nodad"))
}

fn add_default_routes(place: &Place, part: &str) -> Result<()> {
    for gateway in [WORLD.v4, WORLD.v6] {
        ip(place, part, &format!("route add default via {gateway}"))?;
    }
    Ok(())
}

/// `ip` in a namespace, with its arguments as one would type them.
pub(crate) fn ip(place: &Place, part: impl std::fmt::Display, arguments: &str) -> Result<()> {
    run(inside(place, part, "ip").args(arguments.split(' ')))
}
