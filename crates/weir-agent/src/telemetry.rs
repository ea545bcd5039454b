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

/// Libraries talk a lot below `info`, and none of it is about the cluster. The client of the API
/// server warns of every kind that is not defined there, each time it is asked for.
fn filter_of(level: LogLevel) -> String {
    let name = level.name();
    let own = match level {
        LogLevel::Error | LogLevel::Warn | LogLevel::Info => name.to_owned(),
        LogLevel::Debug | LogLevel::Trace => {
            let own = ["agent", "cluster", "datapath", "net"];
            let own = own.map(|name_of_crate| format!(",weir_{name_of_crate}={name}"));
            format!("info{}", own.concat())
        }
    };
    format!("{own},kube_client=error")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines_at(level: LogLevel) -> String {
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || lines.clone())
            .with_env_filter(EnvFilter::new(filter_of(level)))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "kube_client::client", "no such kind");
            tracing::warn!(target: "weir_agent::core", "own warning");
            tracing::debug!(target: "weir_cluster::api", "own detail");
            tracing::debug!(target: "hyper", "detail of a library");
        });
        let text = written.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn libraries_are_quiet_at_every_level() {
        for (level, warning, detail) in [
            (LogLevel::Error, false, false),
            (LogLevel::Info, true, false),
            (LogLevel::Debug, true, true),
        ] {
            let text = lines_at(level);
            assert_eq!(text.contains("own warning"), warning, "{text}");
            assert_eq!(text.contains("own detail"), detail, "{text}");
            assert!(!text.contains("no such kind"), "{text}");
            assert!(!text.contains("of a library"), "{text}");
        }
    }
}
