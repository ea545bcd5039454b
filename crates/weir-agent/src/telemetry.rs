// SPDX-License-Identifier: Apache-2.0
//! Log lines on stderr.

use tracing_subscriber::EnvFilter;

use crate::args::LogFormat;
use crate::config::LogLevel;

/// Starts logging; `WEIR_LOG` overrides the level with a filter. A process that logs already goes on
/// as it does.
pub(crate) fn start(format: LogFormat, level: LogLevel) {
    let filter =
        EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new(filter_of(level)));
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter);
    let started = match format {
        LogFormat::Text => lines.with_target(false).with_ansi(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    drop(started);
}

/// Libraries talk a lot below `info`, and none of it is about the cluster.
fn filter_of(level: LogLevel) -> String {
    let name = level.name();
    match level {
        LogLevel::Error | LogLevel::Warn | LogLevel::Info => name.to_owned(),
        LogLevel::Debug | LogLevel::Trace => {
            let own = ["agent", "cluster", "datapath", "net"];
            let own = own.map(|name_of_crate| format!(",weir_{name_of_crate}={name}"));
            format!("info{}", own.concat())
        }
    }
}
