// SPDX-License-Identifier: Apache-2.0
//! An agent gives way to the agent of a newer program while connections of every kind run through its node: none of
//! them breaks, nothing they send is lost, and everything works afterwards.
//!
//! `WEIR_UPGRADE_FROM` names the older program; `cargo xtask test upgrade` builds the one of an earlier commit.

#[cfg(test)]
#[path = "lab/harness.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod harness;

#[cfg(test)]
mod upgrade {
    use std::ffi::OsString;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::Path;
    use std::time::Instant;
    use std::{env, fs, thread};

    use serde_json::{Value, json};

    use super::harness::{Lab, can_run_weir};

    const NODES: [&str; 2] = ["n1", "n2"];
    const FLOWS: &str = "8";

    /// From, to and port of what runs during the upgrade: on one node, between nodes, by services at the socket and per
    /// packet, from outside and to it, and to a pod that policies isolate.
    const PATHS: [(&str, &str, u16); 9] = [
        ("shop/client", "shop/web-1", 80),
        ("shop/client", "shop/web-2", 80),
        ("shop/client", "svc:shop/web", 80),
        ("shop/client", "shop/guarded", 80),
        ("shop/web-2", "svc:shop/guarded", 80),
        ("shop/web-2", "world", 8080),
        ("node:n1", "shop/web-2", 80),
        ("node:n2", "svc:shop/web", 80),
        ("world", "node:n1", 30080),
    ];

    const OBJECTS: &str = include_str!("upgrade/objects.yaml");

    /// One run of `weir lab traffic`.
    fn traffic(lab: &Lab, path: (&str, &str, u16), family: &str, seconds: u64) -> Value {
        let (from, to, port) = path;
        let (port, duration) = (port.to_string(), format!("{seconds}s"));
        let mut words = vec!["traffic", "--from", from, "--to", to, "--port", &port];
        words.extend(["--family", family, "--tcp", FLOWS, "--udp", FLOWS]);
        words.extend(["--pause", "20ms", "--duration", &duration]);
        if !to.starts_with("svc:") && port != "30080" {
            words.push("--serve");
        }
        let output = lab.run(&words);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("{from} to {to}:{port}, IPv{family}: {error}: {said}")
        })
    }

    /// Runs all paths at the same time, both families, and does something meanwhile.
    fn with_traffic(lab: &Lab, seconds: u64, meanwhile: impl FnOnce()) {
        thread::scope(|scope| {
            let flows: Vec<_> = PATHS
                .iter()
                .flat_map(|path| ["4", "6"].map(|family| (*path, family)))
                .map(|(path, family)| {
                    let run = scope.spawn(move || traffic(lab, path, family, seconds));
                    (path, family, run)
                })
                .collect();
            meanwhile();
            let all_run = flows.iter().all(|(_, _, run)| !run.is_finished());
            assert!(all_run, "connections ended before the upgrade did");
            for (path, family, run) in flows {
                let told = run.join().unwrap();
                for protocol in ["tcp", "udp"] {
                    let told = &told[protocol];
                    assert_eq!(told["broken"], 0, "{path:?} {protocol} IPv{family}: {told}");
                    assert_eq!(told["lost"], 0, "{path:?} {protocol} IPv{family}: {told}");
                    assert!(told["requests"].as_u64().unwrap() > 100, "{told}");
                }
            }
        });
    }

    /// New connections on every path, and one that policy forbids.
    fn check_new_connections(lab: &Lab) {
        let ask = |from: &str, to: &str, port: u16, protocol: &str, family: u8, limit: u32| json!({"from": from, "to": to, "port": port, "protocol": protocol, "family": family, "timeout_ms": limit});
        let mut requests = Vec::new();
        for protocol in ["tcp", "udp"] {
            for family in [4, 6] {
                for (from, to, port) in PATHS.iter().filter(|(_, to, _)| *to != "world") {
                    requests.push(ask(from, to, *port, protocol, family, 5000));
                }
                requests.push(ask("shop/web-1", "shop/guarded", 80, protocol, family, 300));
            }
        }
        let answers = lab.probe_batch(&requests);
        assert_eq!(answers.len(), requests.len());
        for (request, answer) in requests.iter().zip(&answers) {
            let forbidden = request["from"] == "shop/web-1";
            let right = if forbidden {
                answer["allowed"] == false && answer["outcome"] == "timeout"
            } else {
                answer["allowed"] == true
            };
            assert!(right, "{request}: {answer}");
        }
    }

    /// The file that a process runs.
    fn program_of(process: u32) -> u64 {
        fs::metadata(format!("/proc/{process}/exe")).unwrap().ino()
    }

    fn check_upgrade(routing: &str, old: &Path, new: &Path) {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("weir");
        fs::copy(old, &program).unwrap();
        let config = folder.path().join("lab.yaml");
        let text = format!(
            "agent: {{routingMode: {routing}, nonMasqueradeCIDRs: [10.0.0.0/8, 172.16.0.0/12, \"fd00::/8\"]}}\n"
        );
        fs::write(&config, text).unwrap();
        let arguments = ["--config", config.to_str().unwrap()];
        let lab = Lab::up_by(OsString::from(&program), "upgrade", &arguments, OBJECTS);
        let begin = Instant::now();
        lab.text(&["restart-agent", "n1"]);
        let one = begin.elapsed().as_secs() + 1;
        check_new_connections(&lab);
        with_traffic(&lab, 3, || {});

        // As an installer does: the new file takes the place of the old one, which still runs.
        let staged = folder.path().join("new");
        fs::copy(new, &staged).unwrap();
        fs::rename(&staged, &program).unwrap();
        let wanted = fs::metadata(&program).unwrap().ino();
        with_traffic(&lab, 10 + 4 * one, || {
            for node in NODES {
                lab.text(&["restart-agent", node]);
                let processes = lab.agent_processes(node);
                assert!(!processes.is_empty());
                for process in processes {
                    assert_eq!(program_of(process), wanted, "{node} runs the old program");
                }
            }
        });
        check_new_connections(&lab);
        with_traffic(&lab, 3, || {});
    }

    fn check(routing: &str) {
        if !can_run_weir() {
            return;
        }
        let old = env::var_os("WEIR_UPGRADE_FROM");
        let required = env::var_os("WEIR_REQUIRE_KERNEL").is_some();
        assert!(
            old.is_some() || !required,
            "WEIR_UPGRADE_FROM does not name an older `weir`"
        );
        if let (Some(old), Some(new)) = (old, env::var_os("WEIR_BIN")) {
            check_upgrade(routing, Path::new(&old), Path::new(&new));
        }
    }

    #[test]
    fn no_connection_breaks_in_tunnel_mode() {
        check("tunnel");
    }

    #[test]
    fn no_connection_breaks_with_native_routing() {
        check("native");
    }
}
