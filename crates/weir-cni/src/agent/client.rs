// SPDX-License-Identifier: Apache-2.0
//! Asking an agent until it answers, or until the time is over.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use weir_api::{Client, ClientError, path};

use super::PAUSE;
use crate::config::Network;
use crate::failure::Failure;

/// An agent that may be away for a moment.
pub(super) struct Agent {
    socket: PathBuf,
    since: Instant,
    deadline: Instant,
}

impl Agent {
    pub(super) fn of(network: &Network, deadline: Instant) -> Self {
        Self {
            socket: network.socket.clone(),
            since: Instant::now(),
            deadline,
        }
    }

    /// Asks until there is an answer that another attempt would not change. Every request may be
    /// sent twice: the agent answers a repeated one as it did the first.
    pub(super) fn ask<T>(
        &self,
        ask: impl Fn(&Client) -> Result<T, ClientError>,
    ) -> Result<T, Failure> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            // Zero would mean for ever.
            let timeout = left.max(Duration::from_millis(1));
            let client = Client::new(&self.socket).with_timeout(timeout);
            match ask(&client) {
                Ok(answer) => return Ok(answer),
                Err(error) if !passes(&error) => {
                    let full = matches!(error, ClientError::Refused { status: 507, .. });
                    return Err(if full {
                        Failure::NoAddress(error)
                    } else {
                        Failure::Refused(error)
                    });
                }
                Err(source) if Instant::now() + PAUSE >= self.deadline => {
                    return Err(Failure::Later {
                        within: self.deadline.saturating_duration_since(self.since),
                        socket: self.socket.clone(),
                        source,
                    });
                }
                Err(_) => pause(),
            }
        }
    }

    pub(super) fn delete(&self, container: &str, interface: &str) -> Result<(), Failure> {
        let path = format!(
            "{}/{}?interface={}",
            path::ENDPOINTS,
            escaped(container),
            escaped(interface)
        );
        self.ask(|client| client.delete(&path))
    }
}

/// Whether the agent may answer otherwise in a moment: it is being started again, or was stopped
/// while it answered.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::Io { .. } => true,
        ClientError::Refused { status, .. } => *status == 503,
        ClientError::Decode { source, .. } => source.is_io() || source.is_eof(),
        ClientError::Protocol { .. } | ClientError::Encode { .. } | _ => false,
    }
}

pub(super) fn pause() {
    thread::park_timeout(PAUSE);
}

/// Text as a part of a path or query.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use serde_json::Value;

    use super::*;
    use crate::agent::tests::refused;

    #[test]
    fn only_what_passes_is_waited_for() {
        let io = |kind: io::ErrorKind| ClientError::Io {
            path: "/x".into(),
            source: kind.into(),
        };
        assert!(passes(&refused(503)));
        assert!(passes(&io(io::ErrorKind::ConnectionReset)));
        for status in [400, 404, 409, 422, 500, 507] {
            assert!(!passes(&refused(status)));
        }
    }

    #[test]
    fn names_of_interfaces_do_not_end_a_query() {
        assert_eq!(escaped("eth0"), "eth0");
        assert_eq!(escaped("a?&%b"), "a%3F%26%25b");
    }

    #[test]
    fn an_agent_that_is_away_is_waited_for_no_longer_than_asked() {
        let agent = Agent {
            socket: "/nonexistent/weir.sock".into(),
            since: Instant::now(),
            deadline: Instant::now() + Duration::from_millis(100),
        };
        let answer = agent.ask(|client| client.get::<Value>(path::STATUS));
        let failure = answer.unwrap_err();
        assert_eq!(failure.code(), 11, "{failure}");
        assert!(
            failure.to_string().contains("/nonexistent/weir.sock"),
            "{failure}"
        );
    }
}
