// SPDX-License-Identifier: Apache-2.0
//! Runs test executables and adds up what they report.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::targets::{Level, Target};
use crate::process::{cargo, command, display, root_command};
use crate::{output, workspace};

/// One executable may take this long; a test that hangs must not hold everything up. All variants of a lab take longer.
const LIMIT_SECONDS: &str = "900";
const FULL_LIMIT_SECONDS: &str = "2700";

/// So much of a failed test's words is said again at the end, where even a log that was cut short still has it.
const WORDS: usize = 12;
const WORD_LENGTH: usize = 600;

/// What ran so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) skipped: u32,
    pub(super) failures: Vec<String>,
}

impl Tally {
    /// Counts one check of the source.
    pub(super) fn check(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => self.passed += 1,
            Err(error) => {
                output::error(&error);
                self.failed += 1;
                self.failures.push(name.to_owned());
            }
        }
    }

    /// Adds what ran elsewhere.
    pub(super) fn merge(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.extend(other.failures);
    }

    /// The line that other programs read.
    pub(super) fn closing_line(&self) -> String {
        let mut line = format!("{} passed, {} failed", self.passed, self.failed);
        if self.skipped > 0 {
            line = format!("{line}, {} skipped", self.skipped);
        }
        line
    }

    /// Counts what one run of libtest printed; a run without its closing line has failed, whatever it printed before.
    fn add(&mut self, name: &str, report: &Report, success: bool) {
        self.passed += report.passed;
        self.failed += report.failed;
        self.skipped += report.ignored;
        self.failures.extend(report.failures.iter().map(|test| {
            let words = report.words.iter().filter(|(of, _)| of == test);
            words.fold(format!("{name}: {test}"), |said, (_, line)| {
                format!("{said}\n    {line}")
            })
        }));
        if !success && report.failed == 0 {
            self.failed += 1;
            self.failures
                .push(format!("{name}: ended before all its tests had run"));
        }
    }
}

/// What libtest said.
#[derive(Debug, Default, Eq, PartialEq)]
struct Report {
    passed: u32,
    failed: u32,
    ignored: u32,
    failures: Vec<String>,
    /// What failed tests printed, line by line with the test's name.
    words: Vec<(String, String)>,
    /// The failed test whose words are being printed, and how many lines they have so far.
    speaks: Option<(String, usize)>,
}

impl Report {
    fn read_line(&mut self, line: &str) {
        self.read_words(line);
        if let Some(counts) = line.strip_prefix("test result: ") {
            let counts = counts.split_once(". ").map_or("", |(_, rest)| rest);
            for part in counts.split("; ") {
                let mut words = part.split(' ');
                let number = words
                    .next()
                    .and_then(|word| word.parse::<u32>().ok())
                    .unwrap_or(0);
                match words.next() {
                    Some("passed") => self.passed += number,
                    Some("failed") => self.failed += number,
                    Some("ignored") => self.ignored += number,
                    _ => {}
                }
            }
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
    }

    /// libtest prints what a failed test said below a line with its name, when all tests have run.
    fn read_words(&mut self, line: &str) {
        let name = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(name) = name {
            self.speaks = Some((name.to_owned(), 0));
        } else if line == "failures:" || line.starts_with("stack backtrace:") {
            self.speaks = None;
        } else if let Some((name, lines)) = &mut self.speaks
            && !line.is_empty()
        {
            if *lines < WORDS {
                let start: String = line.chars().take(WORD_LENGTH).collect();
                self.words.push((name.clone(), start));
            }
            *lines += 1;
        }
    }
}

/// What tests start, where it is there.
#[derive(Debug)]
pub(super) struct Programs<'a> {
    pub(super) weir: Option<&'a Path>,
    /// The `weir` of an earlier commit.
    pub(super) earlier: Option<&'a Path>,
    /// A folder with an API server's programs.
    pub(super) api_server: Option<&'a Path>,
}

/// Runs one executable, as root when its level asks for that.
pub(super) fn run(
    target: &Target,
    filter: Option<&str>,
    programs: &Programs<'_>,
    full: bool,
    tally: &mut Tally,
) -> Result<()> {
    let privileged = target.level != Level::Unit;
    output::step(format_args!(
        "{}{}",
        target.name,
        if privileged { " (as root)" } else { "" }
    ));
    let mut command = if privileged {
        root_command("env")?
    } else {
        command("env")
    };
    command.arg(format!("CARGO_MANIFEST_DIR={}", target.directory.display()));
    command.arg("RUST_BACKTRACE=1");
    for (variable, program) in [
        ("WEIR_BIN", programs.weir),
        ("WEIR_UPGRADE_FROM", programs.earlier),
        ("KUBEBUILDER_ASSETS", programs.api_server),
    ] {
        if let Some(program) = program {
            command.arg(format!("{variable}={}", program.display()));
        }
    }
    if privileged {
        // A privileged test that lacks something must fail here, never pass as skipped.
        command.arg("WEIR_REQUIRE_KERNEL=1");
    }
    let all_variants = full && target.level == Level::Lab;
    let limit = if all_variants {
        FULL_LIMIT_SECONDS
    } else {
        LIMIT_SECONDS
    };
    command
        .args(["timeout", "--kill-after=10", limit])
        .arg(&target.executable);
    if matches!(target.level, Level::Lab | Level::Upgrade) {
        // Labs share the machine's cores; one after the other their timings mean something.
        command.arg("--test-threads=1");
    }
    if all_variants {
        command.arg("--include-ignored");
    }
    command.args(filter).current_dir(&target.directory);
    run_libtest(&target.name, &mut command, tally)
}

/// Runs the examples in doc comments.
pub(super) fn run_doc_tests(tally: &mut Tally) -> Result<()> {
    output::step("examples in doc comments");
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--doc", "--quiet"])
        .current_dir(workspace::root());
    run_libtest("doc tests", &mut command, tally)
}

fn run_libtest(name: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", display(command)))?;
    let mut report = Report::default();
    let stdout = child
        .stdout
        .take()
        .context("the output of the tests is not piped")?;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.context("cannot read the output of the tests")?;
        let line = String::from_utf8_lossy(&line);
        report.read_line(&line);
        if !line.is_empty() {
            output::data(&line);
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {name}"))?;
    tally.add(name, &report, status.success());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Report {
        let mut report = Report::default();
        text.lines().for_each(|line| report.read_line(line));
        report
    }

    #[test]
    fn libtest_output_is_counted() {
        let report = report(
            "running 3 tests\ntest a::b ... ok\ntest a::c ... FAILED\n\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.00s\n",
        );
        assert_eq!((report.passed, report.failed, report.ignored), (1, 1, 1));
        assert_eq!(report.failures, ["a::c"]);
    }

    #[test]
    fn a_failed_tests_words_stand_beside_its_name() {
        let mut tally = Tally::default();
        let report = report(
            "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n\nthread 'b' panicked at x.rs:1:1:\n\
             no answer\nstack backtrace:\n   0: begin\n\nfailures:\n    b\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored\n",
        );
        tally.add("x", &report, false);
        assert_eq!(
            tally.failures,
            ["x: b\n    thread 'b' panicked at x.rs:1:1:\n    no answer"]
        );
    }

    #[test]
    fn a_run_that_dies_is_one_failure() {
        let mut tally = Tally::default();
        tally.add("x", &report("running 3 tests\ntest a ... ok\n"), false);
        assert_eq!((tally.passed, tally.failed), (0, 1));
    }

    #[test]
    fn the_closing_line_names_skipped_tests_only_when_there_are_some() {
        let mut tally = Tally {
            passed: 7,
            ..Tally::default()
        };
        assert_eq!(tally.closing_line(), "7 passed, 0 failed");
        tally.skipped = 2;
        assert_eq!(tally.closing_line(), "7 passed, 0 failed, 2 skipped");
    }
}
