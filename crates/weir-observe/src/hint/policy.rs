// SPDX-License-Identifier: Apache-2.0
//! What to do about a packet that policy denied.

use std::fmt::Write as _;
use weir_abi::DropReason;
use weir_api::event::{PacketEvent, Peer};
use weir_api::policy::PolicyRule;

/// What denied it and how to find out more; `None` where nothing is known beside the reason.
pub(super) fn hint(reason: DropReason, event: &PacketEvent) -> Option<String> {
    let mut what = denial(reason, event);
    if let Some(miss) = &event.nearest_miss {
        let _ = write!(what, "; nearest is {miss}");
    }
    match policy_trace(event) {
        Some(command) => Some(format!("{what}: run `{command}`")),
        None if event.isolated_by.is_empty() && event.denied_by.is_empty() => None,
        None => Some(what),
    }
}

/// Which policies are to be looked at.
fn denial(reason: DropReason, event: &PacketEvent) -> String {
    let names = |rules: &[PolicyRule]| {
        let names: Vec<_> = rules.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    let (pod, what) = match event.direction.as_str() {
        "egress" => (&event.source.name, "leave"),
        _ => (&event.destination.name, "enter"),
    };
    if !event.denied_by.is_empty() {
        return format!("denied by {}", names(&event.denied_by));
    }
    if reason == DropReason::PolicyDeny {
        return "an explicit deny rule matched".to_owned();
    }
    if event.isolated_by.is_empty() || pod.is_empty() {
        return "no policy rule allows this".to_owned();
    }
    format!(
        "no policy rule allows this to {what} {pod}, which is isolated by {}",
        names(&event.isolated_by)
    )
}

fn policy_trace(event: &PacketEvent) -> Option<String> {
    let pod = |peer: &Peer| {
        let (namespace, pod) = peer.name.split_once('/')?;
        (!matches!(namespace, "node" | "external")).then(|| format!("{namespace}:{pod}"))
    };
    let mut command = format!(
        "weir policy trace --src-k8s-pod {} --dst-k8s-pod {}",
        pod(&event.source)?,
        pod(&event.destination)?
    );
    if let (Some(port), Some(protocol)) = (event.destination.port, &event.protocol) {
        let _ = write!(command, " --dport {port}/{protocol}");
    }
    Some(command)
}
