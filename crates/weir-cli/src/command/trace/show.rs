// SPDX-License-Identifier: Apache-2.0
//! Traces as lines.

use crate::output::style::{self, paint};
use crate::text::word;
use weir_api::trace::{Trace, TraceEnd, TraceSide, TraceStep, TraceVerdict};

/// The whole way.
pub(super) fn whole(trace: &Trace) -> Vec<String> {
    let mut lines = vec![heading(trace)];
    lines.extend(suppositions(trace));
    lines.push(String::new());
    lines.extend(steps(trace));
    for (name, side) in [("Egress", &trace.egress), ("Ingress", &trace.ingress)] {
        lines.push(format!("{name}: {}", side.reason));
        lines.extend(miss(side));
    }
    lines.extend(ending(trace, "Verdict"));
    lines
}

/// Every program that the packet meets.
fn steps(trace: &Trace) -> Vec<String> {
    let numbered = (1_u32..).zip(&trace.steps);
    numbered
        .flat_map(|(number, one)| step(number, one))
        .collect()
}

fn step(number: u32, step: &TraceStep) -> Vec<String> {
    let at = match step.interface.as_str() {
        "" => String::new(),
        name => format!(" at {name}"),
    };
    let mut lines = vec![format!(
        "{number}. node {}: {}{at} ({})",
        step.node,
        step.program,
        word(&step.evaluated)
    )];
    lines.push(format!("   {}", step.packet));
    let width = |part: fn(&weir_api::trace::Lookup) -> &String| {
        let lengths = step.lookups.iter().map(|one| part(one).chars().count());
        lengths.max().unwrap_or(0)
    };
    let (tables, keys) = (width(|one| &one.table), width(|one| &one.key));
    for one in &step.lookups {
        let (table, key, found) = (&one.table, &one.key, &one.found);
        lines.push(format!("     {table:tables$}  {key:keys$}  {found}"));
    }
    lines.extend(step.translations.iter().map(|text| format!("   => {text}")));
    let observed = step.observation.as_ref();
    let mut end = format!("   {}", step.verdict);
    if let Some(point) = observed {
        end = format!("{end}, {point}");
    }
    if let Some(reason) = &step.reason {
        end = format!("{end}: {reason}");
    }
    lines.push(end);
    lines.push(String::new());
    lines
}

/// The two sides of policy, in the words that people know from the peers.
pub(in crate::command) fn policies(trace: &Trace, verbose: bool) -> Vec<String> {
    let (source, destination) = (&trace.source, &trace.destination);
    let mut lines = vec![
        "-".repeat(64),
        format!(
            "Tracing From: {} => To: {} Ports: [{}]",
            labels(source),
            labels(destination),
            port(trace)
        ),
        heading(trace),
    ];
    lines.extend(suppositions(trace));
    for (name, side, whose) in [
        ("egress", &trace.egress, source),
        ("ingress", &trace.ingress, destination),
    ] {
        let subject = if side.subject.is_empty() {
            &whose.name
        } else {
            &side.subject
        };
        lines.push(String::new());
        lines.push(format!("Resolving {name} policy for {subject}"));
        if side.verdict == TraceVerdict::Denied || verbose {
            let policies = side.policies.iter();
            lines.extend(policies.map(|policy| format!("* {} {policy}", policy.kind)));
        }
        lines.push(format!("  {} ({})", side.reason, word(&side.evaluated)));
        lines.extend(miss(side));
        let name = if name == "egress" {
            "Egress"
        } else {
            "Ingress"
        };
        lines.push(format!("{name} verdict: {}", word(&side.verdict)));
    }
    lines.push(String::new());
    if verbose {
        lines.extend(steps(trace));
    }
    lines.extend(ending(trace, "Final verdict"));
    lines
}

fn heading(trace: &Trace) -> String {
    let (from, to) = (end(&trace.source), end(&trace.destination));
    format!("{from} -> {to} {}, IPv{}", port(trace), trace.family)
}

fn end(end: &TraceEnd) -> String {
    let node = match &end.node {
        Some(node) if !end.name.starts_with("node/") => format!(" on {node}"),
        _ => String::new(),
    };
    format!("{} ({}{node})", end.name, end.address)
}

fn port(trace: &Trace) -> String {
    match trace.port {
        0 => trace.protocol.clone(),
        port => format!("{port}/{}", trace.protocol),
    }
}

fn labels(end: &TraceEnd) -> String {
    if end.labels.is_empty() {
        return format!("[{}]", end.name);
    }
    format!("[{}]", end.labels.join(", "))
}

fn suppositions(trace: &Trace) -> Vec<String> {
    if trace.hypothetical.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["HYPOTHETICAL: this is not how it is, but how it would be if".to_owned()];
    lines.extend(trace.hypothetical.iter().map(|one| format!("  - {one}")));
    lines
}

fn miss(side: &TraceSide) -> Option<String> {
    let miss = side.nearest_miss.as_ref()?;
    Some(paint(style::HINT, &format!("  nearest miss: {miss}")))
}

fn ending(trace: &Trace, words: &str) -> Vec<String> {
    let verdict = match trace.verdict {
        TraceVerdict::Allowed => paint(style::GOOD, "ALLOWED"),
        TraceVerdict::Denied => paint(style::BAD, "DENIED"),
    };
    let mut lines = vec![
        format!("{words}: {verdict}"),
        format!("  {}", trace.outcome),
    ];
    if let (Some(name), Some(number)) = (&trace.reason_enum, trace.reason_code) {
        lines.push(format!("  reason: {name} ({number})"));
    }
    if let Some(hint) = &trace.hint {
        lines.push(paint(style::HINT, &format!("  hint: {hint}")));
    }
    lines.extend(trace.notes.iter().map(|note| format!("  note: {note}")));
    lines
}
