// SPDX-License-Identifier: Apache-2.0
//! What the benchmark prints: one line for each figure, with its target and whether it is met.

use std::fmt;

use crate::output;

/// Which way a target points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Printed for information.
    None,
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    pub(super) target: Target,
    /// The numbers behind a ratio.
    pub(super) note: String,
}

impl Figure {
    fn verdict(&self) -> &'static str {
        let met = match self.target {
            Target::AtLeast(least) => self.value >= least,
            Target::AtMost(most) => self.value <= most,
            Target::None => return "",
        };
        if met { "met" } else { "missed" }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(value) => write!(f, ">= {value}"),
            Self::AtMost(value) => write!(f, "<= {value}"),
            Self::None => Ok(()),
        }
    }
}

/// Prints the figures as a table; the answer is how many targets are missed.
pub(super) fn print(title: &str, figures: &[Figure]) -> usize {
    output::data(title);
    for figure in figures {
        let Figure {
            name,
            value,
            unit,
            target,
            note,
        } = figure;
        let line = format!(
            "  {name:<44} {value:>9.2} {unit:<5} {:<8} {:<6} {note}",
            target.to_string(),
            figure.verdict()
        );
        output::data(line.trim_end());
    }
    output::data("");
    figures
        .iter()
        .filter(|figure| figure.verdict() == "missed")
        .count()
}

/// The middle of an odd number of measurements; of an even number the lower middle.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_not_moved_by_one_bad_round() {
        assert_eq!(median(&[5.0, 100.0, 6.0]), Some(6.0));
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[1.0]), Some(1.0));
    }

    #[test]
    fn targets_point_both_ways() {
        let figure = |value, target| Figure {
            name: String::new(),
            value,
            unit: "",
            target,
            note: String::new(),
        };
        assert_eq!(figure(1.1, Target::AtLeast(1.05)).verdict(), "met");
        assert_eq!(figure(201.0, Target::AtMost(200.0)).verdict(), "missed");
        assert_eq!(figure(1.0, Target::None).verdict(), "");
    }
}
