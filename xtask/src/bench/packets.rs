// SPDX-License-Identifier: Apache-2.0
//! What one packet costs in the loaded programs, measured by the kernel's own test run.

use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::report::{Figure, Target};
use crate::process::{cargo, display, root_command, run_step};
use crate::{output, workspace};

/// The example of `weir-tests` that loads the object and runs packets through it. It prints a line of JSON for each
/// case: program, case, family, ns, measured.
const EXAMPLE: &str = "packet_cost";

/// Nanoseconds that a packet of an established flow, and the first one of a new flow, may cost.
const ESTABLISHED: f64 = 200.0;
const NEW: f64 = 1000.0;
const SERVICE_ESTABLISHED: f64 = 220.0;
const SERVICE_NEW: f64 = 1_200.0;
const DENIAL: f64 = 180.0;
const DRIVER: f64 = 250.0;
/// What policy may add: to an established packet nothing but noise, to the first one nanoseconds.
const POLICY: f64 = 1.02;
const POLICY_NEW: f64 = 250.0;
/// What changes that concern others may add, which is nothing but noise.
const CHANGES: f64 = 1.02;

pub(super) fn measure() -> Result<Vec<Figure>> {
    let mut build = cargo();
    build
        .args([
            "build",
            "--release",
            "--package",
            "weir-tests",
            "--example",
            EXAMPLE,
        ])
        .current_dir(workspace::root());
    run_step("building the packet measurements", &mut build)?;
    output::step("running packets through the loaded programs");
    let mut command = root_command(
        workspace::target_dir()
            .join("release/examples")
            .join(EXAMPLE),
    )?;
    let result = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", display(&command)))?;
    if !result.status.success() {
        bail!("`{}` failed ({})", display(&command), result.status);
    }
    let figures: Vec<Figure> = String::from_utf8_lossy(&result.stdout)
        .lines()
        .filter_map(figure)
        .collect();
    if figures.is_empty() {
        bail!("the packet measurements printed nothing");
    }
    Ok(figures)
}

fn figure(line: &str) -> Option<Figure> {
    let line: Value = serde_json::from_str(line).ok()?;
    let case = line["case"].as_str()?;
    let program = line["program"].as_str()?;
    let name = format!("{program} {case}, IPv{}", line["family"].as_u64()?);
    let target = target(program, case);
    if let Some(ratio) = line["ratio"].as_f64() {
        let side = |place: usize| line["sides"][place].as_f64();
        return Some(Figure {
            name,
            value: ratio,
            unit: "x",
            target,
            note: format!("({:.0} ns / {:.0} ns)", side(0)?, side(1)?),
        });
    }
    Some(Figure {
        name,
        value: line["ns"].as_f64()?,
        unit: "ns",
        target,
        note: match line["measured"].as_f64() {
            Some(measured) if measured > line["ns"].as_f64()? => {
                format!("({measured:.0} with what a run by itself costs)")
            }
            _ => String::new(),
        },
    })
}

/// Targets are for pod to pod on one node; what else is measured is printed for information: services and policies by
/// the ten thousand should cost what the first ones do. A denial is measured as an established packet is, in a row and
/// with every event written; what one costs that comes alone is printed beside it.
fn target(program: &str, case: &str) -> Target {
    match (program, case) {
        ("from_container", "established") => Target::AtMost(ESTABLISHED),
        ("from_container", "new") => Target::AtMost(NEW),
        // A full table visited in random order misses the caches.
        ("from_container", "established-500k") => Target::AtMost(2.0 * ESTABLISHED),
        ("from_container", "service-established" | "service-10k-established") => {
            Target::AtMost(SERVICE_ESTABLISHED)
        }
        ("from_container", "service-new" | "service-10k-new") => Target::AtMost(SERVICE_NEW),
        ("from_container", "policy-denial" | "policy-denial-10k") => Target::AtMost(DENIAL),
        ("from_container", "policy-established") => Target::AtMost(POLICY),
        ("from_container", "policy-new-more") => Target::AtMost(POLICY_NEW),
        ("from_container", "established-100k-under-changes") => Target::AtMost(CHANGES),
        ("at_driver", "nodeport-established") => Target::AtMost(DRIVER),
        _ => Target::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_becomes_a_figure_with_its_target() {
        let line = r#"{"program":"from_container","case":"established","family":6,"ns":95.5}"#;
        let figure = figure(line).expect("a measurement");
        assert_eq!(figure.name, "from_container established, IPv6");
        assert_eq!(figure.target, Target::AtMost(200.0));
        assert_eq!(super::figure("loading"), None);
    }
}
