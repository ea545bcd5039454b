// SPDX-License-Identifier: Apache-2.0
//! Policies as lines.

use crate::output::{Table, style};
use crate::text::count;
use weir_api::policy::{Policies, Policy, PolicySide, Selector};

pub(super) fn policies(all: &Policies) -> Vec<String> {
    let mut lines: Vec<String> = all.policies.iter().flat_map(policy).collect();
    // The words that scripts look for.
    lines.push(format!("Revision: {}", all.revision));
    if all.realized != all.revision {
        lines.push(format!("Realized: {}", all.realized));
    }
    lines
}

fn policy(policy: &Policy) -> Vec<String> {
    let Policy {
        kind,
        namespace,
        name,
        selector,
        ingress,
        egress,
        selects,
        selected_pods,
        warnings,
        refused,
    } = policy;
    let here = match selects.as_slice() {
        [] => "none on this node".to_owned(),
        pods => format!("on this node: {}", pods.join(", ")),
    };
    let mut lines = vec![
        format!("{kind} {namespace}/{name}"),
        format!(
            "  selects {selector}: {}, {here}",
            count(*selected_pods, "pod")
        ),
    ];
    lines.extend(side("ingress", ingress));
    lines.extend(side("egress", egress));
    if let Some(why) = refused {
        lines.push(style::paint(style::BAD, &format!("  refused: {why}")));
    }
    lines.extend(
        warnings
            .iter()
            .map(|warning| style::paint(style::HINT, &format!("  warning: {warning}"))),
    );
    lines
}

fn side(direction: &str, side: &PolicySide) -> Vec<String> {
    if !side.isolates {
        return Vec::new();
    }
    if side.rules.is_empty() {
        return vec![format!("  {direction}: nothing is allowed")];
    }
    let mut lines = vec![format!("  {direction}: only")];
    let rules = side.rules.iter().enumerate();
    lines.extend(rules.map(|(number, rule)| format!("    rule {number}: {rule}")));
    lines
}

/// In the peers' columns, with the number of pods.
pub(super) fn selectors(all: &[Selector], verbose: bool) -> Vec<String> {
    let mut table = Table::new(["SELECTOR", "USERS", "IDENTITIES", "PODS"]);
    for selector in all {
        let column = |texts: Vec<String>| texts.join("\n");
        let users = if verbose {
            column(selector.users.iter().map(ToString::to_string).collect())
        } else {
            selector.users.len().to_string()
        };
        table.row([
            selector.selector.clone(),
            users,
            column(
                selector
                    .identities
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
            ),
            selector.pods.to_string(),
        ]);
    }
    table.lines()
}
