// SPDX-License-Identifier: Apache-2.0
//! The rows that a program met on its way to a decision, in names.

use weir_abi::endpoint::flags::READY;
use weir_abi::event::policy_flags;
use weir_abi::observation::Hook;
use weir_abi::{Address, NodeIndex, ObservationPoint, PolicyCookie, map};
use weir_api::trace::Lookup;
use weir_verdict::Tables as _;

use super::frame::has_ports;
use super::hop::{Hop, socket};
use super::place::of_address;
use super::scene::Scene;
use super::side::party;
use super::view::View;

/// In the order in which the program asks.
pub(super) fn of(scene: &Scene<'_>, hop: &Hop) -> Vec<Lookup> {
    let mut all = Vec::new();
    let (arrives, leaves) = (&hop.arrives, &hop.leaves);
    all.push(who(
        scene,
        &hop.view,
        arrives.source,
        hop.hook == Hook::FromContainer,
    ));
    all.extend(frontend(hop));
    // Nothing is looked for at the destination of what may not come from where it came.
    let stopped =
        hop.seen.dropped.is_some() && hop.seen.observation.is_none() && hop.seen.policy == 0;
    let local = hop.view.tables.endpoints.contains_key(&leaves.destination);
    if !stopped || hop.seen.service.0 != 0 || local {
        all.push(who(scene, &hop.view, leaves.destination, local));
    }
    all.extend(policy(hop));
    all.extend(way(hop));
    all
}

fn lookup(table: &map::MapInfo, key: &impl ToString, found: impl Into<String>) -> Lookup {
    Lookup {
        table: table.name.to_owned(),
        key: key.to_string(),
        found: found.into(),
    }
}

/// The row of an endpoint, or whoever else has the address.
fn who(scene: &Scene<'_>, view: &View, address: Address, endpoint: bool) -> Lookup {
    let name = of_address(scene, address.to_ip()).name;
    if endpoint {
        let Some(row) = view.tables.endpoint(&address) else {
            return lookup(&map::ENDPOINTS, &address, "none");
        };
        let identity = row.identity;
        let ready = if row.flags & READY == 0 {
            ", not ready"
        } else {
            ""
        };
        let set = match row.policy_set.get() {
            0 => "no policies".to_owned(),
            set => format!("policy set {set}"),
        };
        let found = if view.is_live() {
            let id = row.id;
            format!("{name}, endpoint {id}, identity {identity}, {set}{ready}")
        } else {
            format!("{name} ({}){ready}", view.labels(identity))
        };
        return lookup(&map::ENDPOINTS, &address, found);
    }
    let Some(row) = view.tables.ipcache(&address) else {
        return lookup(&map::IPCACHE, &address, "none: outside the cluster");
    };
    let labels = view.labels(row.identity);
    if !view.is_live() {
        // Numbers of another node are its own.
        return lookup(&map::IPCACHE, &address, format!("{name} ({labels})"));
    }
    let node = match row.node {
        NodeIndex::NONE => String::new(),
        index => format!(", behind node place {index}"),
    };
    let found = format!("{name}, identity {} ({labels}){node}", row.identity);
    lookup(&map::IPCACHE, &address, found)
}

fn frontend(hop: &Hop) -> Vec<Lookup> {
    let key = &hop.arrives;
    let asked = has_ports(key.protocol) && hop.hook != Hook::ToNetdev;
    let Some(row) = hop
        .view
        .tables
        .frontends
        .get(&hop.frontend())
        .filter(|_| asked)
    else {
        return Vec::new();
    };
    let internal = hop.is_internal();
    let run = if internal {
        &row.internal
    } else {
        &row.external
    };
    let name = hop.view.service(row.service);
    let name = name.unwrap_or_else(|| format!("service {}", row.service));
    let scope = if internal { "this node" } else { "the network" };
    let found = format!("{name}, {} backends for clients of {scope}", run.count);
    let at = format!("{}/{}", socket(key, false), key.protocol);
    let mut all = vec![lookup(&map::FRONTENDS, &at, found)];
    if let Some((address, port)) = hop.seen.translated {
        let place = (run.first..run.first.saturating_add(run.count)).find(|place| {
            let backend = hop.view.tables.backends.get(place);
            backend.is_some_and(|row| (row.address, row.port) == (address, port))
        });
        let place = place.map_or_else(|| "?".to_owned(), |place| place.to_string());
        all.push(lookup(&map::BACKENDS, &place, socket(&hop.leaves, false)));
    }
    all
}

fn policy(hop: &Hop) -> Vec<Lookup> {
    let seen = &hop.seen;
    let mut all = Vec::new();
    let (source, destination) = (hop.arrives.source, hop.leaves.destination);
    let directions = [
        (
            "egress",
            (policy_flags::EGRESS_ASKED, policy_flags::EGRESS_DENIED),
            (source, destination),
            seen.egress_cookie,
        ),
        (
            "ingress",
            (policy_flags::INGRESS_ASKED, policy_flags::INGRESS_DENIED),
            (destination, source),
            seen.ingress_cookie,
        ),
    ];
    for (direction, (asked, denied), (own, peer), cookie) in directions {
        if seen.policy & asked == 0 {
            continue;
        }
        let (own, peer) = (party(&hop.view, own), party(&hop.view, peer));
        let what = if has_ports(hop.leaves.protocol) {
            format!("{}/{}", hop.leaves.destination_port, hop.leaves.protocol)
        } else {
            hop.leaves.protocol.to_string()
        };
        let key = if hop.view.is_live() {
            let blocks = match peer.blocks.get() {
                0 => String::new(),
                group => format!(" or blocks {group}"),
            };
            let (set, identity) = (own.policy_set, peer.identity);
            format!("set {set} {direction} identity {identity}{blocks} {what}")
        } else {
            format!("{direction} {what}")
        };
        let found = if seen.policy & denied != 0 {
            "no rule matches".to_owned()
        } else {
            allowed(&hop.view, cookie)
        };
        all.push(lookup(&map::POLICY, &key, found));
    }
    all
}

fn allowed(view: &View, cookie: PolicyCookie) -> String {
    let rules: Vec<_> = view.rules(cookie).iter().map(ToString::to_string).collect();
    let rules = rules.join(", ");
    if view.is_live() {
        format!("allow, cookie {cookie}: {rules}")
    } else {
        format!("allow: {rules}")
    }
}

fn way(hop: &Hop) -> Vec<Lookup> {
    let tables = &hop.view.tables;
    match hop.seen.observation {
        Some(ObservationPoint::ToOverlay) => {
            let row = tables.ipcache(&hop.leaves.destination);
            let Some(row) = row.filter(|row| row.node != NodeIndex::NONE) else {
                return Vec::new();
            };
            let node = tables.nodes.get(&row.node.get());
            let found = node.map_or_else(
                || "none".to_owned(),
                |node| format!("tunnel {} -> {}", node.local, node.remote),
            );
            let place = if hop.view.is_live() {
                row.node.to_string()
            } else {
                "?".to_owned()
            };
            vec![lookup(&map::NODES, &place, found)]
        }
        Some(ObservationPoint::ToNetwork) if hop.seen.redirected => vec![Lookup {
            table: "route".to_owned(),
            key: hop.leaves.destination.to_string(),
            found: "by the node's own routing table".to_owned(),
        }],
        Some(_) | None => Vec::new(),
    }
}
