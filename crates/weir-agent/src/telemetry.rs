// SPDX-License-Identifier: Apache-2.0
//! Log lines on stderr.

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::config::LogLevel;

/// Starts logging; `WEIR_LOG` overrides the level with a filter. A process that logs already goes on
/// as it does.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    let filter =
        EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(level.name()));
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter);
    let started = match format {
        LogFormat::Text => lines.with_target(false).with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    drop(started);
}
