// SPDX-License-Identifier: Apache-2.0
//! `kubectl weir`, with a `kubectl` that tells what it was asked.

#[cfg(test)]
mod plugin {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;
    use std::process::{Command, Output};

    /// Two agents; the second one finds a problem with everything.
    const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >>"${0%/*}/asked"
case $* in
"get pods "*"nodeName=n1"*)
    echo '{"items": [{"metadata": {"name": "agent-1"}, "spec": {"nodeName": "n1"}}]}' ;;
"get pods "*)
    echo '{"items": [{"metadata": {"name": "agent-2"}, "spec": {"nodeName": "n2"}},
                     {"metadata": {"name": "agent-1"}, "spec": {"nodeName": "n1"}}]}' ;;
"get pod "*) printf n1 ;;
exec*agent-1*) echo fine; echo "one word" ;;
exec*agent-2*) echo bad; echo hint >&2; exit 1 ;;
esac
"#;

    fn run(words: &[&str]) -> (Output, String) {
        let home = tempfile::tempdir().unwrap();
        let kubectl = home.path().join("kubectl");
        fs::write(&kubectl, KUBECTL).unwrap();
        fs::set_permissions(&kubectl, fs::Permissions::from_mode(0o755)).unwrap();
        let plugin = home.path().join("kubectl-weir");
        symlink(env!("CARGO_BIN_EXE_weir"), &plugin).unwrap();
        let output = command(&plugin)
            .arg("--kubectl")
            .arg(&kubectl)
            .args(words)
            .output()
            .unwrap();
        let asked = fs::read_to_string(home.path().join("asked")).unwrap_or_default();
        (output, asked)
    }

    #[expect(clippy::disallowed_methods, reason = "the tested program is started")]
    fn command(program: &Path) -> Command {
        Command::new(program)
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn every_node_is_asked_and_named_on_each_line() {
        let (output, asked) = run(&["--all-nodes", "status", "--verbose"]);
        let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["n1  fine", "n1  one word", "n2  bad"]);
        assert_eq!(text(&output.stderr), "n2  hint\n");
        assert_eq!(output.status.code(), Some(1), "the worst of them");
        assert!(
            asked.contains("agent-2 --container cilium-agent -- weir status --verbose\n"),
            "{asked}"
        );
    }

    #[test]
    fn the_agent_of_a_pod_is_the_one_on_its_node() {
        let (output, asked) = run(&["--pod", "shop/web", "endpoint", "get", "shop/web"]);
        assert_eq!(text(&output.stdout), "fine\none word\n");
        assert_eq!(output.status.code(), Some(0));
        let asked: Vec<&str> = asked.lines().collect();
        assert!(
            asked[0].starts_with("get pod web --namespace shop "),
            "{asked:?}"
        );
        assert!(asked[1].contains("spec.nodeName=n1"), "{asked:?}");
        assert!(
            asked[2].ends_with("-- weir endpoint get shop/web"),
            "{asked:?}"
        );
    }

    #[test]
    fn who_is_meant_must_be_said_where_there_are_many() {
        let (output, _) = run(&["status"]);
        assert_eq!(output.status.code(), Some(2));
        let talk = text(&output.stderr);
        assert!(
            talk.contains("2 agents") && talk.contains("--all-nodes"),
            "{talk}"
        );
    }
}
