// SPDX-License-Identifier: Apache-2.0
//! What `--verbose` adds: controllers, maps, policy sets and nodes.

use weir_api::kernel::{MapState, NodeEntry};
use weir_api::status::{Controller, PolicySetUse};

use crate::output::Table;
use crate::text::{or_never, percent};

pub(super) fn controllers(controllers: &[Controller]) -> Table {
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

pub(super) fn maps(maps: &[MapState]) -> Table {
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

pub(super) fn policy_sets(sets: &[PolicySetUse]) -> Table {
    let mut table = Table::new(["Set", "Endpoints", "Rows", "Bytes"]).right([0, 1, 2, 3]);
    for one in sets {
        table.row(
            [u64::from(one.set), one.endpoints, one.rows, one.bytes]
                .map(|number| number.to_string()),
        );
    }
    table
}

pub(super) fn nodes(nodes: &[NodeEntry]) -> Table {
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
