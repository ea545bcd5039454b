// SPDX-License-Identifier: Apache-2.0
//! The agent alone, without the rest of the `weir` command.

use clap::Parser;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    args: weir_agent::Args,
}

fn main() -> Result<(), weir_agent::AgentError> {
    weir_agent::run(Program::parse().args)
}
