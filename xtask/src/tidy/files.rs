// SPDX-License-Identifier: Apache-2.0
//! Rules that one source file can break by itself.

use std::path::Path;

/// A longer file has two subjects.
const MOST_LINES: usize = 600;

/// How many lines of documentation a crate root has at least: its question, what it must not know, where to start.
const LEAST_ROOT_DOC: usize = 3;

const LICENCE: &str = "// SPDX-License-Identifier: Apache-2.0";

/// What no pure crate may touch, as it stands in source.
const IMPURE: [&str; 8] = [
    "std::time",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "std::io",
    "SystemTime",
    "Instant::now",
];

/// What only `weir-net` may call: a thread in the wrong namespace does damage that nobody sees.
const NAMESPACES: [&str; 2] = ["setns(", "unshare("];

/// The problems of one file, each with its place.
pub(super) fn check(path: &Path, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut report =
        |line: usize, what: &str| problems.push(format!("{}:{line}: {what}", path.display()));

    if text.lines().next() != Some(LICENCE) {
        report(1, &format!("the first line is not `{LICENCE}`"));
    }
    if text.lines().count() > MOST_LINES {
        report(
            MOST_LINES,
            &format!("longer than {MOST_LINES} lines: split it by subject"),
        );
    }
    if path.file_name().is_some_and(|name| name == "mod.rs") {
        report(1, "foo.rs beside foo/ instead of foo/mod.rs");
    }
    if is_crate_root(path)
        && text.lines().filter(|line| line.starts_with("//! ")).count() < LEAST_ROOT_DOC
    {
        report(
            1,
            "a crate root says which question it answers, what it must not know and where to start",
        );
    }
    for (index, line) in text.lines().enumerate() {
        // Rules about code do not apply to what is said about code.
        let code = line.split("//").next().unwrap_or_default();
        if names_no_issue(line) {
            report(index + 1, "a TODO names its issue: TODO(#12)");
        }
        if !may_change_namespaces(path) && NAMESPACES.iter().any(|call| calls(code, call)) {
            report(index + 1, "only weir-net changes namespaces");
        }
        if is_pure(path) {
            for impure in IMPURE.iter().filter(|impure| code.contains(*impure)) {
                report(index + 1, &format!("a pure crate does not touch {impure}"));
            }
        }
    }
    problems
}

fn is_crate_root(path: &Path) -> bool {
    path.ends_with("src/lib.rs") || path.ends_with("src/main.rs")
}

/// Sources (not the tests) of the crates on the pure side.
fn is_pure(path: &Path) -> bool {
    super::edges::PURE
        .iter()
        .any(|name| path.starts_with(Path::new("crates").join(name).join("src")))
}

fn may_change_namespaces(path: &Path) -> bool {
    path.starts_with("crates/weir-net") || path.starts_with("xtask/src/tidy")
}

/// Whether the code calls that function, and not another whose name ends alike.
fn calls(code: &str, call: &str) -> bool {
    code.match_indices(call).any(|(at, _)| {
        !code[..at]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '"')
    })
}

fn names_no_issue(line: &str) -> bool {
    // In two parts, so that this file may speak of it.
    let word = concat!("TO", "DO");
    line.match_indices(word).any(|(at, _)| {
        let rest = &line[at + word.len()..];
        let comment = line[..at].contains("//");
        let named = rest
            .strip_prefix("(#")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        comment && !named
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_one(path: &str, body: &str, expected: &[&str]) {
        let text = format!("{LICENCE}\n{body}");
        let prefix = format!("{path}:");
        let found: Vec<String> = check(Path::new(path), &text)
            .into_iter()
            .map(|problem| {
                problem
                    .strip_prefix(&prefix)
                    .expect("names the file")
                    .to_owned()
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_clean_file_has_no_problem() {
        check_one(
            "crates/weir-abi/src/number.rs",
            "//! Numbers.\nfn one() {}\n",
            &[],
        );
    }

    #[test]
    fn the_licence_is_the_first_line() {
        let problems = check(Path::new("crates/a/src/b.rs"), "fn one() {}\n");
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn long_files_are_named() {
        let body = "fn one() {}\n".repeat(MOST_LINES);
        check_one(
            "crates/a/src/b.rs",
            &body,
            &["600: longer than 600 lines: split it by subject"],
        );
    }

    #[test]
    fn a_root_needs_three_lines_of_documentation() {
        let short = "//! One.\n//! Two.\n";
        assert_eq!(
            check(
                Path::new("crates/a/src/lib.rs"),
                &format!("{LICENCE}\n{short}")
            )
            .len(),
            1
        );
        check_one("crates/a/src/lib.rs", &format!("{short}//! Three.\n"), &[]);
    }

    #[test]
    fn unfinished_work_names_its_issue() {
        let named = concat!("// TO", "DO(#7): later\n");
        let unnamed = concat!("// TO", "DO: later\n");
        check_one("crates/a/src/b.rs", named, &[]);
        check_one(
            "crates/a/src/b.rs",
            unnamed,
            &["2: a TODO names its issue: TODO(#12)"],
        );
    }

    #[test]
    fn namespaces_belong_to_one_crate() {
        let body = "fn f() { setns(fd, flags); }\n";
        check_one(
            "crates/weir-lab/src/b.rs",
            body,
            &["2: only weir-net changes namespaces"],
        );
        check_one("crates/weir-net/src/b.rs", body, &[]);
        check_one(
            "crates/weir-lab/src/b.rs",
            "fn f() { reset_unshare(); }\n// setns(fd)\n",
            &[],
        );
    }

    #[test]
    fn pure_crates_know_no_clock() {
        let body = "use std::time::Duration;\n";
        check_one(
            "crates/weir-verdict/src/b.rs",
            body,
            &["2: a pure crate does not touch std::time"],
        );
        check_one("crates/weir-verdict/tests/b.rs", body, &[]);
        check_one("crates/weir-agent/src/b.rs", body, &[]);
    }
}
