// SPDX-License-Identifier: Apache-2.0
//! The only way to the two outputs: data on stdout, talk on stderr.

use crate::error::CliError;
use anstream::{AutoStream, ColorChoice};
use anstyle::Style;
use std::fmt::Display;
use std::io::{self, BufWriter, Write};

/// Colours carry no meaning of their own: without them nothing is missing. They are left out for
/// pipes and under `NO_COLOR`.
pub(crate) mod style {
    use anstyle::{AnsiColor, Style};

    pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
    pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
    pub(crate) const HINT: Style = AnsiColor::Cyan.on_default();

    /// The text in a colour.
    pub(crate) fn paint(style: Style, text: &str) -> String {
        format!("{style}{text}{style:#}")
    }
}

/// Writes to stdout and stderr; a failure to write is a value, not a panic.
pub(crate) struct Printer {
    out: BufWriter<io::Stdout>,
    colours: bool,
}

impl Printer {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        Self {
            colours: AutoStream::choice(&stdout) != ColorChoice::Never,
            out: BufWriter::with_capacity(64 * 1024, stdout),
        }
    }

    /// A line of data.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), CliError> {
        let text = text.as_ref();
        // Half a million flows are half a million lines: most have nothing to strip.
        let result = if self.colours || !text.contains('\x1b') {
            writeln!(self.out, "{text}")
        } else {
            writeln!(self.out, "{}", anstream::adapter::strip_str(text))
        };
        result.map_err(CliError::Output)
    }

    /// What was written so far reaches its reader.
    pub(crate) fn flush(&mut self) -> Result<(), CliError> {
        self.out.flush().map_err(CliError::Output)
    }
}

/// A line of talk; that nobody may be listening is no reason to stop.
pub(crate) fn talk(heading: &str, style: Style, text: impl Display) {
    let mut stderr = anstream::stderr();
    let _ = if heading.is_empty() {
        writeln!(stderr, "{text}")
    } else {
        writeln!(stderr, "{style}{heading}:{style:#} {text}")
    };
}
