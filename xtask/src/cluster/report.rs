// SPDX-License-Identifier: Apache-2.0
//! What ginkgo reports of a run, and what is shown of it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::output;

/// How a test ended.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Outcome {
    Passed,
    /// It found that the cluster has not what it is about, such as three nodes.
    Skipped(String),
    Failed(String),
}

/// One test that was chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Test {
    name: String,
    seconds: u64,
    outcome: Outcome,
}

/// A whole run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Report {
    tests: Vec<Test>,
    pub(super) passed: usize,
    pub(super) failed: usize,
    skipped: usize,
}

impl Report {
    /// Reads what ginkgo wrote.
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("the tests left no report {}", file.display()))?;
        let report: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is no report of ginkgo", file.display()))?;
        Ok(Self::of(&report))
    }

    fn of(report: &Value) -> Self {
        let mut all = Self::default();
        let specs = list(report)
            .iter()
            .flat_map(|suite| list(&suite["SpecReports"]));
        for test in specs.filter_map(read_test) {
            match test.outcome {
                Outcome::Passed => all.passed += 1,
                Outcome::Skipped(_) => all.skipped += 1,
                Outcome::Failed(_) => all.failed += 1,
            }
            all.tests.push(test);
        }
        all.tests.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The names of the tests that were not left out: of a run without running, all that could be chosen.
    pub(super) fn names(&self) -> Vec<String> {
        self.tests.iter().map(|test| test.name.clone()).collect()
    }

    /// One line for each test.
    pub(super) fn lines(&self) -> String {
        let line = |test: &Test| format!("{test}\n");
        self.tests.iter().map(line).collect()
    }

    /// The closing table, the reasons of what failed and was skipped, and the line that other programs read.
    pub(super) fn show(&self) {
        output::data(
            "group                                              passed  failed  skipped  longest",
        );
        for (name, group) in self.groups() {
            output::data(format_args!(
                "{name:<50} {:>6} {:>7} {:>8} {:>6} s",
                group.passed, group.failed, group.skipped, group.longest
            ));
        }
        for test in &self.tests {
            if test.outcome != Outcome::Passed {
                output::data(test);
            }
        }
        output::data(self.closing_line());
    }

    fn closing_line(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }

    fn groups(&self) -> BTreeMap<&str, GroupLine> {
        let mut groups: BTreeMap<&str, GroupLine> = BTreeMap::new();
        for test in &self.tests {
            let line = groups.entry(group_of(&test.name)).or_default();
            match test.outcome {
                Outcome::Passed => line.passed += 1,
                Outcome::Skipped(_) => line.skipped += 1,
                Outcome::Failed(_) => line.failed += 1,
            }
            line.longest = line.longest.max(test.seconds);
        }
        groups
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct GroupLine {
    passed: usize,
    failed: usize,
    skipped: usize,
    longest: u64,
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, message) = match &self.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Skipped(message) => ("skipped", message.as_str()),
            Outcome::Failed(message) => ("FAILED", message.as_str()),
        };
        write!(f, "{word:<8}{:>4} s  {}", self.seconds, self.name)?;
        if !message.is_empty() {
            write!(f, "\n                {message}")?;
        }
        Ok(())
    }
}

/// The part of a name before what it `should` do, without what stands in front of all names.
fn group_of(name: &str) -> &str {
    let name = name.trim_start_matches("[sig-network] ");
    let end = [" should ", " [", " will ", " can ", " only ", " must "]
        .iter()
        .filter_map(|word| name.find(word))
        .min()
        .unwrap_or(name.len());
    &name[..end.min(50)]
}

/// None for a test that was not chosen, and for steps of the suite that went well.
fn read_test(spec: &Value) -> Option<Test> {
    let state = spec["State"].as_str().unwrap_or_default();
    let message: String = spec["Failure"]["Message"]
        .as_str()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(300)
        .collect();
    let is_test = spec["LeafNodeType"] == "It";
    let outcome = match state {
        "passed" if is_test => Outcome::Passed,
        // Without a reason: by focus, skip or label.
        "skipped" | "pending" if is_test && !message.is_empty() => Outcome::Skipped(message),
        "passed" | "skipped" | "pending" => return None,
        other => Outcome::Failed(format!("{other}: {message}")),
    };
    let words = list(&spec["ContainerHierarchyTexts"])
        .iter()
        .chain([&spec["LeafNodeText"], &spec["LeafNodeType"]])
        .filter_map(Value::as_str)
        .take_while(|word| *word != "It");
    Some(Test {
        name: words.collect::<Vec<_>>().join(" "),
        seconds: spec["RunTime"].as_u64().unwrap_or_default() / 1_000_000_000,
        outcome,
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(kind: &str, text: &str, state: &str, message: &str) -> Value {
        json!({
            "ContainerHierarchyTexts": ["[sig-network] Services"], "LeafNodeText": text, "LeafNodeType": kind,
            "State": state, "RunTime": 2_900_000_000_u64, "Failure": {"Message": message},
        })
    }

    #[test]
    fn what_ran_is_counted_and_what_was_left_out_is_not() {
        let report = Report::of(&json!([{"SpecReports": [
            spec("It", "should serve", "passed", ""),
            spec("It", "should not be chosen", "skipped", ""),
            spec("It", "should need three nodes", "skipped", "needs\n 3 nodes"),
            spec("It", "should fail", "failed", "timed out"),
            spec("It", "should be cut off", "interrupted", ""),
            spec("BeforeEach", "", "passed", ""),
            spec("SynchronizedBeforeSuite", "", "failed", "no node"),
        ]}, {"SpecReports": null}]));
        assert_eq!(report.closing_line(), "1 passed, 3 failed, 1 skipped");
        let lines = report.lines();
        assert!(lines.contains("passed     2 s  [sig-network] Services should serve\n"));
        assert!(lines.contains("failed: timed out"));
        assert!(lines.contains("needs 3 nodes"));
        assert_eq!(report.groups().len(), 2);
    }

    #[test]
    fn groups_are_what_comes_before_the_promise() {
        assert_eq!(
            group_of("[sig-network] DNS should answer [Conformance]"),
            "DNS"
        );
        assert_eq!(group_of("[sig-network] NoSNAT"), "NoSNAT");
        assert_eq!(
            group_of("[sig-network] HostPort validates that [x]"),
            "HostPort validates that"
        );
    }
}
