// SPDX-License-Identifier: Apache-2.0
//! `policy`: what is in force, and whom it is about.

mod show;
mod trace;
mod validate;
mod wait;

use super::{Context, Outcome};
use crate::error::CliError;
use crate::output::Output;
use std::path::PathBuf;
use std::time::Duration;
use weir_api::path;
use weir_api::policy::{Policies, Policy, Selector};

/// Shows network policies and whether they are realized
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Shows all policies: whom they select, what they allow, and what in them does nothing
    ///
    /// The last line is the revision, which grows with every change of a policy.
    #[command(after_help = "Examples:\n  \
        weir policy get\n  \
        weir policy get shop/web\n  \
        weir policy get -n shop -o json")]
    Get {
        /// Only these: NAMESPACE/NAME or NAME
        #[arg(value_name = "POLICY")]
        policies: Vec<String>,
        /// Only policies of this namespace
        #[arg(short, long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Lists the selectors of policies with the identities that they match
    #[command(after_help = "Examples:\n  weir policy selectors\n  weir policy selectors -v")]
    Selectors {
        /// Every policy that uses a selector, not only how many
        #[arg(short, long)]
        verbose: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Shows whether policies allow a connection, and which rule decides
    ///
    /// No packet is sent and nothing changes: the programs themselves say what they would do, over
    /// their live maps. Exit status 0: allowed, 1: denied.
    #[command(after_help = "Examples:\n  \
        weir policy trace --src-k8s-pod shop:cli --dst-k8s-pod shop:web --dport 8080\n  \
        weir policy trace --src-k8s-pod shop:cli --dst-service shop/web --dport 80/TCP -v\n  \
        weir policy trace -s k8s:app=cli -d k8s:app=web --dport 80 --with new-policy.yaml")]
    Trace(Box<trace::Args>),
    /// Says whether policies in files would be accepted; exit status 1 when one would not
    ///
    /// The agent is not asked. A policy that would be refused is named with its field.
    #[command(
        after_help = "Examples:\n  weir policy validate policy.yaml\n  weir policy validate manifests/\n  kubectl get networkpolicies -A -o yaml | weir policy validate -"
    )]
    Validate {
        /// Files, folders, or - for the standard input
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Waits until every endpoint of this node has realized a revision
    #[command(
        after_help = "Examples:\n  weir policy wait 7\n  weir policy wait 7 --max-wait-time 10"
    )]
    Wait {
        /// As `weir policy get` shows it
        #[arg(value_name = "REVISION")]
        revision: u64,
        /// Seconds after which it is given up
        #[arg(long, value_name = "SECONDS", default_value_t = 360)]
        max_wait_time: u64,
        /// Seconds that an unhealthy endpoint is waited for
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        fail_wait_time: u64,
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value_t = 1)]
        sleep_time: u64,
    },
}

pub(super) fn run(args: Args, context: &mut Context) -> Result<Outcome, CliError> {
    match args.command {
        Command::Get {
            policies,
            namespace,
            output,
        } => {
            let mut all: Policies = context.client.get(path::POLICIES)?;
            let named = |policy: &Policy, wanted: &String| {
                policy.name == *wanted || format!("{}/{}", policy.namespace, policy.name) == *wanted
            };
            all.policies.retain(|policy| {
                namespace
                    .as_ref()
                    .is_none_or(|namespace| policy.namespace == *namespace)
                    && (policies.is_empty() || policies.iter().any(|one| named(policy, one)))
            });
            if all.policies.is_empty() && !policies.is_empty() {
                return Err(CliError::missing(
                    format!("there is no policy {}", policies.join(", ")),
                    "`weir policy get` shows all of them",
                ));
            }
            context.emit(&output.format, &all, show::policies)?;
            Ok(Outcome::Fine)
        }
        Command::Selectors { verbose, output } => {
            let all: Vec<Selector> = context.client.get(path::POLICY_SELECTORS)?;
            context.emit(&output.format, &all, |all| show::selectors(all, verbose))?;
            Ok(Outcome::Fine)
        }
        Command::Trace(args) => trace::run(&args, context),
        Command::Validate { paths, output } => validate::run(context, &paths, &output.format),
        Command::Wait {
            revision,
            max_wait_time,
            fail_wait_time,
            sleep_time,
        } => wait::run(
            context,
            revision,
            Duration::from_secs(max_wait_time),
            Duration::from_secs(fail_wait_time),
            Duration::from_secs(sleep_time),
        ),
    }
}
