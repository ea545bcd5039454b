// SPDX-License-Identifier: Apache-2.0
//! `policy wait`: until what was asked for is in force.

use crate::command::{Context, Outcome};
use crate::error::CliError;
use crate::output::{style, talk};
use std::time::{Duration, Instant};
use weir_api::endpoint::{Endpoint, EndpointState};
use weir_api::path;
use weir_api::policy::Policies;

pub(super) fn run(
    context: &mut Context,
    revision: u64,
    most: Duration,
    patience: Duration,
    pause: Duration,
) -> Result<Outcome, CliError> {
    let started = Instant::now();
    let mut failing: Option<Instant> = None;
    loop {
        let policies: Policies = context.client.get(path::POLICIES)?;
        let endpoints: Vec<Endpoint> = context.client.get(path::ENDPOINTS)?;
        let failed: Vec<_> = endpoints
            .iter()
            .filter(|one| {
                matches!(
                    one.status.state,
                    EndpointState::NotReady | EndpointState::Invalid
                )
            })
            .map(|one| one.status.external_identifiers.pod_name.clone())
            .collect();
        if policies.realized >= revision && failed.is_empty() {
            context
                .printer
                .line(format!("Revision: {}", policies.realized))?;
            return Ok(Outcome::Fine);
        }
        if failed.is_empty() {
            failing = None;
        }
        let since = *failing.get_or_insert_with(Instant::now);
        let given_up = !failed.is_empty() && since.elapsed() >= patience;
        if given_up || started.elapsed() >= most {
            let why = if failed.is_empty() {
                format!("revision {} is realized", policies.realized)
            } else {
                format!("not realized by {}", failed.join(", "))
            };
            talk(
                "error",
                style::BAD,
                format_args!("revision {revision} is not in force: {why}"),
            );
            talk(
                "hint",
                style::HINT,
                "see `weir status` and `weir endpoint list`",
            );
            return Ok(Outcome::Problem);
        }
        rest(pause.min(most.saturating_sub(started.elapsed())));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks is what was asked for; the wait around it has a deadline"
)]
fn rest(pause: Duration) {
    std::thread::sleep(pause);
}
