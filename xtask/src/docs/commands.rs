// SPDX-License-Identifier: Apache-2.0
//! The page of commands: what the binary itself says with `--help`, command by command.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use crate::process::{command, stdout_of};

pub(super) fn page(weir: &Path) -> Result<String> {
    let mut page = String::from(
        "<!-- made by `cargo xtask docs` from the help of the binary -->\n\
         # Commands\n\
         \n\
         The same commands are there when the binary is called as `cilium` or `cilium-dbg`.\n",
    );
    add(&mut page, weir, &[])?;
    Ok(page)
}

fn add(page: &mut String, weir: &Path, path: &[&str]) -> Result<()> {
    // A fixed width and no colour: the page must not depend on who writes it.
    let help = stdout_of(
        command(weir)
            .args(path)
            .arg("--help")
            .env("COLUMNS", "100")
            .env("NO_COLOR", "1"),
    )?;
    let title = ["weir"]
        .iter()
        .chain(path)
        .copied()
        .collect::<Vec<_>>()
        .join(" ");
    let text: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(
        page,
        "\n## {title}\n\n```text\n{}\n```\n",
        text.join("\n").trim_end()
    );
    for name in subcommands(&help) {
        let mut below = path.to_vec();
        below.push(name);
        add(page, weir, &below)?;
    }
    Ok(())
}

/// The names below `Commands:`, but for clap's own `help`.
fn subcommands(help: &str) -> Vec<&str> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_commands_are_read_from_help() {
        let help = "Weir\n\nUsage: weir <COMMAND>\n\nCommands:\n  status  Says how it is\n          and more\n  \
                    lab     Plays\n  help    Prints\n\nOptions:\n  -h, --help\n";
        assert_eq!(subcommands(help), ["status", "lab"]);
        assert!(subcommands("Usage: weir status\n").is_empty());
    }
}
