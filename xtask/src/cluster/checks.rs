// SPDX-License-Identifier: Apache-2.0
//! One line for each thing that a verb has checked, and the closing line that other programs read.

use std::fmt::Display;

use anyhow::{Result, ensure};

use super::processes::wait_for;
use crate::output;

/// What is shown of a long list of problems.
const SHOWN: usize = 20;

/// The checks of one verb.
#[derive(Debug)]
pub(super) struct Checks {
    verb: &'static str,
    passed: u32,
    failed: u32,
}

impl Checks {
    pub(super) fn of(verb: &'static str) -> Self {
        Self {
            verb,
            passed: 0,
            failed: 0,
        }
    }

    /// One thing that must hold: it does where there is no problem, and where none was hindered from being seen.
    pub(super) fn check(&mut self, what: impl Display, problems: Result<Vec<String>>) {
        let problems = problems.unwrap_or_else(|error| vec![format!("{error:#}")]);
        if problems.is_empty() {
            self.passed += 1;
            output::data(format_args!("passed  {}: {what}", self.verb));
            return;
        }
        self.failed += 1;
        output::data(format_args!("FAILED  {}: {what}", self.verb));
        for problem in problems.iter().take(SHOWN) {
            output::data(format_args!("    {problem}"));
        }
        if problems.len() > SHOWN {
            output::data(format_args!("    ... and {} more", problems.len() - SHOWN));
        }
    }

    pub(super) fn close(self) -> Result<()> {
        output::data(format_args!(
            "{} passed, {} failed, 0 skipped",
            self.passed, self.failed
        ));
        ensure!(self.failed == 0, "{} checks failed", self.failed);
        Ok(())
    }
}

/// Looks until no problem is left; those that are still there after so many seconds are the answer.
pub(super) fn until_none(
    what: &str,
    seconds: u64,
    mut look: impl FnMut() -> Result<Vec<String>>,
) -> Result<Vec<String>> {
    let mut last = Ok(Vec::new());
    let ended = wait_for(what, seconds, || {
        last = look();
        last.as_ref().is_ok_and(Vec::is_empty)
    });
    match ended {
        Ok(()) => Ok(Vec::new()),
        Err(error) => last.map(|mut problems| {
            problems.insert(0, format!("{error:#}"));
            problems
        }),
    }
}
