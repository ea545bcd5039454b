// SPDX-License-Identifier: Apache-2.0
//! `version`: of this command and of the agent.

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::{Output, style, talk};
use serde::Serialize;
use weir_api::path;
use weir_api::status::Status;

/// Shows the versions of this command and of the agent
///
/// Runs without an agent, too; then only the client's version is known.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir version\n  weir version -o jsonpath='{.daemon}'")]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
}

#[derive(Serialize)]
struct Versions {
    client: &'static str,
    daemon: Option<String>,
}

pub(super) fn run(args: &Args, context: &mut Context) -> Result<Outcome, CliError> {
    let daemon = match context.client.get::<Status>(path::STATUS) {
        Ok(status) => Some(status.version),
        Err(error) => {
            talk("note", style::HINT, error);
            None
        }
    };
    let versions = Versions {
        client: env!("CARGO_PKG_VERSION"),
        daemon,
    };
    context.emit(&args.output.format, &versions, |versions| {
        vec![
            format!("Client: {}", versions.client),
            format!(
                "Daemon: {}",
                versions.daemon.as_deref().unwrap_or("not reachable")
            ),
        ]
    })?;
    Ok(Outcome::Fine)
}
