// SPDX-License-Identifier: Apache-2.0
//! What every command prints, from recorded answers.

#[cfg(test)]
#[path = "recorded/agent.rs"]
mod agent;
#[cfg(test)]
#[path = "recorded/policies.rs"]
mod policies;
#[cfg(test)]
#[path = "recorded/services.rs"]
mod services;
#[cfg(test)]
#[path = "recorded/trace.rs"]
mod trace;
#[cfg(test)]
#[path = "recorded/world.rs"]
mod world;

#[cfg(test)]
mod commands {
    use super::agent::{self, Agent};
    use super::{trace, world};
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    /// Prints of all these commands, one after the other.
    #[track_caller]
    fn check(name: &str, commands: &[&str]) {
        let agent = Agent::start(world::answers());
        let all: Vec<String> = commands
            .iter()
            .map(|words| agent.transcript(words))
            .collect();
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, all.join("\n\n"));
        });
    }

    fn stdout(agent: &Agent, words: &str) -> String {
        let output = agent.command(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn status() {
        check(
            "status",
            &[
                "status",
                "status --brief",
                "status --verbose",
                "status -o json",
            ],
        );
    }

    #[test]
    fn status_of_a_broken_node() {
        let agent = Agent::start(world::unhealthy());
        let all = ["status --verbose", "status --brief"].map(|words| agent.transcript(words));
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("status_of_a_broken_node", all.join("\n\n"));
        });
    }

    #[test]
    fn endpoints() {
        check(
            "endpoints",
            &[
                "endpoint list",
                "endpoint list --no-headers",
                "endpoint list -o json",
                "endpoint list -o jsonpath='{[*].id}'",
                "endpoint list -o jsonpath='{range .items[*]}{.id}: {.status.state}{\"\\n\"}{end}'",
                "endpoint get shop/cli -o yaml",
                "endpoint get 999",
                "endpoint get -l app=nothing",
                "endpoint log 12",
                "endpoint log 12 -o json",
                "endpoint health 12",
                "endpoint health 34",
                "endpoint health 12 -o json",
                "endpoint config 12",
                "endpoint config 12 -o json",
                "endpoint config 12 Debug=enable",
            ],
        );
    }

    #[track_caller]
    fn check_traces(name: &str, answers: agent::Answers, commands: &[&str]) {
        let agent = Agent::start(answers);
        let all = commands.iter().map(|words| agent.transcript(words));
        let all: Vec<String> = all.collect();
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, all.join("\n\n"));
        });
    }

    #[test]
    fn what_is_allowed_is_traced() {
        check_traces(
            "trace_allowed",
            trace::one_allowed(),
            &[
                "policy trace --src-k8s-pod shop:cli --dst-service shop/web --dport 80",
                "policy trace -s k8s:app=cli -d k8s:app=web --dport 80/TCP -v",
                "policy trace --src-endpoint 12 --dst-ip 10.96.0.9 -o json",
                "policy trace --src-identity 257 --dst-identity 258 -o jsonpath='{.verdict}'",
                "trace shop/cli svc:shop/web:80",
                "trace shop/cli svc:shop/web:80 -o yaml",
            ],
        );
    }

    #[test]
    fn what_is_denied_is_traced() {
        check_traces(
            "trace_denied",
            trace::one_of_two_denied(),
            &[
                "policy trace --src-k8s-pod shop:cli --dst-k8s-pod shop:web-1 --dport 80,81",
                "policy trace --src-k8s-pod shop:cli --dst-k8s-pod shop:web-1 -o jsonpath='{.verdict} {.traces[*].verdict}'",
                "policy trace --src-k8s-pod shop:cli",
                "policy trace --src-k8s-pod shop:cli --src-ip 10.8.0.1 --dst-ip 10.8.0.2",
                "policy trace --src-k8s-yaml /nowhere.yaml --dst-ip 10.8.0.2",
                "trace shop/cli a:b:c:d",
            ],
        );
    }

    #[test]
    fn regenerate() {
        check(
            "regenerate",
            &[
                "endpoint regenerate 34",
                "endpoint regenerate [12]",
                "endpoint regenerate '[12, 34]'",
                "endpoint regenerate [12, 34]",
                "endpoint regenerate shop/cli",
                "endpoint regenerate []",
                "endpoint regenerate web",
                "endpoint regenerate 12 -o json",
            ],
        );
    }

    #[test]
    fn monitor() {
        check(
            "monitor",
            &[
                "monitor -c 4",
                "monitor -c 2 -n --type drop -v --hex",
                "monitor -c 1 -T --type drop:STALE_OR_UNROUTABLE",
                "monitor -c 2 --from-endpoint 12",
                "monitor -c 2 --related-to fd00:8:5::/48",
                "monitor -c 2 --to shop/web -j",
                "monitor -c 2 --type agent -o yaml",
                "monitor -c 3 -o jsonpath='{.type} {.source.name}'",
                "monitor -c 5 --type agent",
                "monitor --type nonsense",
                "monitor --related-to Shop",
            ],
        );
    }

    #[test]
    fn kernel() {
        check(
            "kernel",
            &[
                "bpf ct list global",
                "bpf ct list",
                "bpf ct list global -n",
                "bpf ct list endpoint 34",
                "bpf ct list 34",
                "bpf ct list nowhere",
                "bpf ct list global -o jsonpath='{[*].sourcePort}'",
                "bpf nat list",
                "bpf nat list -o json",
                "bpf ipcache list",
                "bpf ipcache list -o json",
                "bpf ipcache get 10.8.5.7",
                "bpf ipcache get 10.8.5.8",
                "bpf ipcache get fd00::1",
                "bpf endpoint list",
                "bpf endpoint list -o json",
                "bpf metrics list",
                "bpf metrics list --all",
                "bpf metrics list -o json",
            ],
        );
    }

    #[test]
    fn services() {
        check(
            "services",
            &[
                "service list",
                "service list -o jsonpath='{[?(@.spec.flags.name==\"db\")].spec.id}'",
                "service get 7",
                "service get shop/web -o json",
                "service get 10.96.0.9:80 -o yaml",
                "service get shop/nothing",
                "service update",
                "service update -o json",
                "service update --frontend 10.96.0.9:80 --backends 10.8.3.41:8080",
                "bpf lb list",
                "bpf lb list --frontends",
                "bpf lb list --backends",
                "bpf lb list --revnat",
                "bpf lb list --source-ranges",
                "bpf lb list --maglev",
                "bpf lb list -o json",
                "bpf lb maglev list",
                "bpf lb maglev get shop/web",
                "bpf lb maglev get shop/db",
                "bpf lb affinity list",
                "bpf lb sockets list",
            ],
        );
    }

    #[test]
    fn policies() {
        check(
            "policies",
            &[
                "policy get",
                "policy get shop/web -o json",
                "policy get -n elsewhere",
                "policy get nothing",
                "policy selectors",
                "policy selectors -v",
                "policy wait 7 --fail-wait-time 0",
                "policy wait 8 --max-wait-time 0",
                "bpf policy get 12",
                "bpf policy get shop/web",
                "bpf policy get shop/web -n",
                "bpf policy get --all",
                "bpf policy get 12 -o json",
            ],
        );
    }

    #[test]
    fn policies_in_files_are_validated_without_an_agent() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n";
        write("a.yaml", &format!("{head}spec: {{podSelector: {{}}}}\n"));
        write(
            "b.yaml",
            &format!(
                "{head}spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: 99999}}]}}]}}\n"
            ),
        );
        write(
            "c.yaml",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n",
        );
        let run = |what: &str| {
            let output = agent::command(env!("CARGO_BIN_EXE_weir"))
                .args(["policy", "validate", what])
                .current_dir(folder.path())
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            (output.status.code(), text)
        };
        assert_eq!(
            run("a.yaml"),
            (
                Some(0),
                "a.yaml: NetworkPolicy shop/web: valid\n".to_owned()
            )
        );
        let (status, text) = run(".");
        assert_eq!(status, Some(1), "{text}");
        assert!(
            text.contains("b.yaml: NetworkPolicy shop/web: spec.ingress[0].ports[0].port: "),
            "{text}"
        );
        assert!(text.contains("c.yaml: no policy, 1 other object"), "{text}");
        assert_eq!(run("nothing.yaml").0, Some(2));
    }

    #[test]
    fn flows() {
        check(
            "flows",
            &[
                "flows",
                "flows -v --numeric",
                "flows --last 1",
                "flows --first 1 --print-node-name",
                "flows --verdict DROPPED --drop-reason POLICY_DENIED",
                "flows --to-pod shop/web --type policy-verdict",
                "flows --service shop/web -o json",
                "flows --from-pod shop/nobody",
                "flows --since 2026-03-01T10:00:01Z",
                "flows --follow --all",
                "flows --follow",
                "flows --pod /",
            ],
        );
    }

    #[test]
    fn lists() {
        check(
            "lists",
            &[
                "identity list",
                "identity list app=cli --endpoints",
                "identity list -o json",
                "identity get 300",
                "identity get --label app=cli",
                "identity get 7777",
                "ip list",
                "ip list -n -v",
                "ip list -o jsonpath='{[?(@.identity==300)].prefix}'",
                "node list",
                "node list -o json",
                "map list",
                "map list -o json",
                "map get ipcache",
                "map get endpoints",
                "map get nothing",
                "metrics list",
                "metrics list -p drop",
                "metrics list -p '^weir_.*_total$' -o json",
                "metrics list -p '('",
                "config",
                "config -o yaml",
                "config get routing-mode",
                "config get mapSizes -o json",
                "config get nothing",
                "config Debug=enable",
                "version",
                "version -o json",
            ],
        );
    }

    #[test]
    fn what_people_grep_for_is_there() {
        let agent = Agent::start(world::answers());
        let grep = |words: &str, wanted: &str| -> Vec<String> {
            stdout(&agent, words)
                .lines()
                .filter(|line| line.to_lowercase().contains(&wanted.to_lowercase()))
                .map(str::to_owned)
                .collect()
        };
        assert!(!grep("status --verbose", "ct-").is_empty());
        assert!(grep("status", "ok").len() >= 4);
        let endpoint = grep("endpoint list", "shop/web");
        assert_eq!(endpoint.len(), 1);
        assert!(endpoint[0].starts_with("34 "), "{endpoint:?}");
        assert!(endpoint[0].contains("not-ready"), "{endpoint:?}");
        // One line for each entry: people count them.
        assert_eq!(stdout(&agent, "bpf ct list global").lines().count(), 3);
        assert_eq!(stdout(&agent, "bpf nat list").lines().count(), 2);
    }

    #[test]
    fn the_list_of_endpoints_is_a_list_with_ids_and_pod_names() {
        let agent = Agent::start(world::answers());
        let list: serde_json::Value =
            serde_json::from_str(&stdout(&agent, "endpoint list -o json")).unwrap();
        let ids: Vec<u64> = list
            .as_array()
            .unwrap()
            .iter()
            .filter(|item| item.to_string().contains("web"))
            .map(|item| item["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids, [34]);
    }

    #[test]
    fn the_peers_names_take_the_same_commands() {
        let agent = Agent::start(world::answers());
        let folder = tempfile::tempdir().unwrap();
        for name in ["cilium", "cilium-dbg"] {
            let link = folder.path().join(name);
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weir"), &link).unwrap();
            let run = |words: &str| {
                agent::command(&link)
                    .args(agent::split(words))
                    .env(
                        "CILIUM_SOCK",
                        format!("unix://{}", agent.socket().display()),
                    )
                    .output()
                    .unwrap()
            };
            let output = run("endpoint list");
            assert!(output.status.success());
            let text = String::from_utf8(output.stdout).unwrap();
            assert_eq!(text, stdout(&agent, "endpoint list"));
            let help = String::from_utf8(run("endpoint --help").stdout).unwrap();
            assert!(help.contains(&format!("Usage: {name} endpoint")), "{help}");
        }
    }

    #[test]
    fn without_an_agent_the_error_says_what_to_do() {
        let run = |words: &str| {
            let output = agent::command(env!("CARGO_BIN_EXE_weir"))
                .args(agent::split(words))
                .output()
                .unwrap();
            agent::transcript(words, &output, std::path::Path::new("/nowhere/x.sock"))
        };
        let all = [
            "status --socket /nowhere/x.sock",
            "status --brief --socket /nowhere/x.sock",
            "--socket /nowhere/x.sock endpoint list",
            "version --socket /nowhere/x.sock",
            "nonsense",
            "endpoint list -o xml",
            "endpoint list -o jsonpath='{[0'",
        ]
        .map(run);
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("without_an_agent", all.join("\n\n"));
        });
    }

    #[test]
    fn an_agent_that_answers_nonsense_or_nothing_is_an_error() {
        let mut answers = world::answers();
        for (request, status, body) in [
            ("GET /v1/status", 200, "{"),
            ("GET /v1/endpoints", 200, r#"{"id": "x"}"#),
            ("GET /v1/nodes", 500, "<html>"),
            ("GET /v1/kernel/flows", 200, "{}\n"),
        ] {
            answers.insert(request.to_owned(), (status, body.to_owned()));
        }
        let agent = Agent::start(answers);
        let mut all: Vec<String> = ["status", "endpoint list", "node list", "bpf nat list"]
            .iter()
            .map(|words| agent.transcript(words))
            .collect();
        // Taken by the kernel, never answered.
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("silent.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let words = "status --timeout 1";
        let output = agent
            .command(words)
            .env("WEIR_SOCK", &socket)
            .output()
            .unwrap();
        all.push(agent::transcript(words, &output, &socket));
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!("nonsense", all.join("\n\n"));
        });
    }

    /// The commands of a well-known page of troubleshooting, as written there.
    #[test]
    fn well_known_commands_are_taken_as_they_are_written() {
        let agent = Agent::start(world::answers());
        for words in [
            "status",
            "status --verbose",
            "endpoint list",
            "endpoint list -o json",
            "endpoint regenerate [12]",
            "monitor --type drop -c 1",
            "monitor --from-endpoint 12 -c 1",
            "monitor --from 12 -c 1",
            "monitor --related-to 10.8.3.9 -c 1",
            "bpf ct list global",
            "bpf nat list",
        ] {
            let output = agent.command(words).output().unwrap();
            assert!(output.status.success(), "{words}: {output:?}");
        }
        let requests = agent.requests();
        assert!(
            requests.contains(&"POST /v1/endpoints/12/regenerate".to_owned()),
            "{requests:?}"
        );
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        let mut answers = world::answers();
        let (status, line) = answers["GET /v1/kernel/flows"].clone();
        answers.insert(
            "GET /v1/kernel/flows".to_owned(),
            (status, line.repeat(5000)),
        );
        let agent = Agent::start(answers);
        for words in ["bpf ct list global", "bpf ct list global -o json"] {
            let mut child = agent
                .command(words)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut first = String::new();
            BufReader::new(child.stdout.take().unwrap())
                .read_line(&mut first)
                .unwrap();
            // The reading end is closed here.
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{words}");
            assert!(output.stderr.is_empty(), "{words}: {output:?}");
            assert!(!first.is_empty());
        }
    }

    #[test]
    fn pipes_and_no_color_get_no_colours() {
        let agent = Agent::start(world::answers());
        for setting in [None, Some("NO_COLOR")] {
            let mut command = agent.command("status");
            if let Some(name) = setting {
                command.env(name, "1");
            }
            let output = command.output().unwrap();
            assert!(!output.stdout.contains(&0x1b), "{setting:?}");
        }
        let output = agent
            .command("status")
            .env("CLICOLOR_FORCE", "1")
            .output()
            .unwrap();
        assert!(output.stdout.contains(&0x1b));
    }
}
