// SPDX-License-Identifier: Apache-2.0
//! What a person sees: talk on stderr, data on stdout. A closed pipe is not an error.

use std::fmt::Display;
use std::io::Write as _;

/// Announces a step that may take longer than two seconds.
pub(crate) fn step(text: impl Display) {
    say(format_args!("==> {text}"));
}

/// One line of talk.
pub(crate) fn say(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// One line of data.
pub(crate) fn data(text: impl Display) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}");
    let _ = stdout.flush();
}

/// The error that ends a command, with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    say(format_args!("error: {error:#}"));
}
