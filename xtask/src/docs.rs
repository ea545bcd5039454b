// SPDX-License-Identifier: Apache-2.0
//! `docs`: the pages that are made from the code, so that they cannot disagree with it.

mod commands;
mod reasons;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::process::{cargo, run_step};
use crate::{output, workspace};

/// Writes the generated pages, or checks that they are up to date
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail when a page is not what the code says; write nothing
    #[arg(long)]
    pub(crate) check: bool,
}

/// A page and what it must say.
struct Page {
    path: PathBuf,
    text: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    output::step("generated pages");
    let mut stale = Vec::new();
    for Page { path, text } in pages()? {
        let file = workspace::root().join(&path);
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            continue;
        }
        if args.check {
            stale.push(path.display().to_string());
            continue;
        }
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(&file, text).with_context(|| format!("cannot write {}", path.display()))?;
        output::say(format_args!("    {}", path.display()));
    }
    if !stale.is_empty() {
        bail!(
            "not up to date: {} (hint: `cargo xtask docs` writes them)",
            stale.join(", ")
        );
    }
    Ok(())
}

fn pages() -> Result<Vec<Page>> {
    let mut build = cargo();
    build
        .args(["build", "--quiet", "--package", "weir-cli"])
        .current_dir(workspace::root());
    run_step("building the weir binary for its help", &mut build)?;
    let weir = workspace::target_dir().join("debug/weir");
    Ok(vec![
        Page {
            path: "docs/reference/drop-reasons.md".into(),
            text: reasons::page(),
        },
        Page {
            path: "docs/reference/cli.md".into(),
            text: commands::page(&weir)?,
        },
    ])
}
