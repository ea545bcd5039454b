// SPDX-License-Identifier: Apache-2.0
//! The page of drop reasons, from the table that the programs use.

use std::fmt::Write as _;

use weir_abi::DropReason;
use weir_abi::reason::Severity;

pub(super) fn page() -> String {
    let mut page = String::from(
        "<!-- made by `cargo xtask docs` from weir-abi/src/reason.rs -->\n\
         # Drop reasons\n\
         \n\
         What `weir monitor --type drop`, `weir bpf metrics list` and the metrics call the reason for which a packet was\n\
         dropped. The number, the prose and the enum name are all accepted where a reason can be given. *Expected* ones\n\
         are everyday noise or packets that were meant to end here; a *problem* is somebody's packet that did not arrive.\n\
         \n\
         | number | prose | enum name | kind | what to do |\n\
         |---|---|---|---|---|\n",
    );
    for reason in DropReason::ALL {
        let info = reason.info();
        let kind = match info.severity {
            Severity::Expected => "expected",
            Severity::Problem => "problem",
        };
        let hint = info.hint.replace('|', "\\|");
        let _ = writeln!(
            page,
            "| {} | {} | `{}` | {kind} | {hint} |",
            info.number, info.prose, info.enum_name
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_line_of_five_cells() {
        let page = page();
        for reason in DropReason::ALL {
            let info = reason.info();
            let lines: Vec<&str> = page
                .lines()
                .filter(|line| line.contains(info.enum_name))
                .collect();
            assert!(
                lines
                    .iter()
                    .any(|line| line.starts_with(&format!("| {} |", info.number))),
                "{}",
                info.enum_name
            );
            assert!(!info.hint.is_empty(), "{} has no hint", info.enum_name);
        }
    }
}
