// SPDX-License-Identifier: Apache-2.0
//! `ci`: what `.ci/run` runs, step by step: the toolchain, then every test.

use anyhow::Result;

use crate::{setup, test};

/// Sets up what is missing, then runs every test
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How much to run
    #[arg(value_enum, default_value_t = test::Selection::All)]
    level: test::Selection,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run(&setup::Args { check: false })?;
    test::run(&test::Args {
        level: args.level,
        filter: None,
        full: false,
        trace: false,
        from: test::EARLIER.to_owned(),
        no_checks: false,
    })
}
