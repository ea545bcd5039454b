// SPDX-License-Identifier: Apache-2.0
//! The commands of a day of troubleshooting, typed on a node of a lab with real agents.
//!
//! They need root and the kernel programs: without root they fail when `WEIR_REQUIRE_KERNEL=1` is
//! set and do nothing otherwise.

#[cfg(test)]
mod lab {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Child, Command, Output, Stdio};
    use std::sync::mpsc::Receiver;
    use std::time::Duration;

    use serde_json::Value;
    use tempfile::TempDir;

    const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {nodeName: n1, containers: [{name: c, image: c, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n2, containers: [{name: c, image: c, ports: [{containerPort: 80}]}]}
";

    struct Lab {
        folder: TempDir,
        name: &'static str,
    }

    impl Lab {
        /// `None`: this cannot run here, and need not.
        fn up(name: &'static str) -> Option<Self> {
            if !nix::unistd::geteuid().is_root() {
                assert!(
                    std::env::var_os("WEIR_REQUIRE_KERNEL").is_none(),
                    "WEIR_REQUIRE_KERNEL is set, but this is not root"
                );
                return None;
            }
            let lab = Self {
                folder: tempfile::tempdir().unwrap(),
                name,
            };
            // The world's address is one that is not masqueraded by default.
            let config = lab.folder.path().join("lab.yaml");
            std::fs::write(&config, "agent: {nonMasqueradeCIDRs: [10.0.0.0/8]}\n").unwrap();
            let config = config.to_str().unwrap();
            let mut child = lab
                .command(&["up", "--nodes", "2", "--config", config, "-f", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(PODS.as_bytes()).unwrap();
            drop(input);
            let output = child.wait_with_output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{words}");
            Some(lab)
        }

        #[expect(
            clippy::disallowed_methods,
            reason = "the binary is what these tests are about"
        )]
        fn command(&self, words: &[&str]) -> Command {
            let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
            command
                .args(["lab", words[0], "--name", self.name])
                .args(&words[1..])
                .env("WEIR_LAB_DIR", self.folder.path())
                .env("NO_COLOR", "1");
            command
        }

        /// A command typed on the first node, split by a shell.
        fn on_node(&self, line: &str) -> Command {
            self.command(&["node", "n1", "--", "sh", "-c", line])
        }

        fn run(&self, line: &str) -> Output {
            self.on_node(line).output().unwrap()
        }

        /// What a command prints; it must end well.
        #[track_caller]
        fn text(&self, line: &str) -> String {
            let output = self.run(line);
            assert!(output.status.success(), "{line}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        }

        #[track_caller]
        fn json(&self, line: &str) -> Value {
            serde_json::from_str(&self.text(line)).unwrap()
        }

        /// The number of the first node's one endpoint whose pod has this name; the node has
        /// others (the lab's DNS), and their order is that of their creation.
        #[track_caller]
        fn endpoint_id(&self, pod: &str) -> u64 {
            let list = self.json("weir endpoint list -o json");
            let ids: Vec<u64> = list
                .as_array()
                .unwrap()
                .iter()
                .filter(|endpoint| endpoint.to_string().contains(pod))
                .map(|endpoint| endpoint["id"].as_u64().unwrap())
                .collect();
            let [id] = ids[..] else {
                panic!("one endpoint: {list}")
            };
            id
        }

        fn probe(&self, to: &str, port: &str) -> bool {
            let probe = ["probe", "--from", "shop/client", "--to", to, "--port", port];
            let output = self.command(&probe).output().unwrap();
            output.status.success()
        }
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            let _ = self.command(&["down"]).output();
        }
    }

    /// A line of the monitor may take this long; without a limit a line that never comes would
    /// hold up everything after it.
    const LINE_LIMIT: Duration = Duration::from_mins(1);

    /// The lines of a pipe, as they come.
    fn lines_of(pipe: impl Read + Send + 'static) -> Receiver<String> {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        receiver
    }

    /// `weir monitor` on the first node, listening already.
    struct Monitor {
        child: Child,
        lines: Receiver<String>,
        talk: Receiver<String>,
    }

    impl Monitor {
        fn start(lab: &Lab, words: &str) -> Self {
            let mut child = lab
                .on_node(&format!("exec weir monitor {words}"))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut monitor = Self {
                lines: lines_of(child.stdout.take().unwrap()),
                talk: lines_of(child.stderr.take().unwrap()),
                child,
            };
            monitor.wait_for("Ctrl-C");
            monitor
        }

        /// Waits for a line of talk with these words.
        #[track_caller]
        fn wait_for(&mut self, words: &str) {
            loop {
                match self.talk.recv_timeout(LINE_LIMIT) {
                    Ok(line) if line.contains(words) => break,
                    Ok(_) => {}
                    Err(error) => panic!("the monitor did not say {words}: {error}"),
                }
            }
        }

        #[track_caller]
        fn next(&mut self) -> String {
            self.lines.recv_timeout(LINE_LIMIT).expect("a line")
        }
    }

    impl Drop for Monitor {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn a_day_of_troubleshooting() {
        let Some(lab) = Lab::up("test-cli-day") else {
            return;
        };
        let status = lab.text("cilium status");
        assert!(status.starts_with("Weir:                 Ok"), "{status}");
        assert!(!status.contains("Failure"), "{status}");
        assert_eq!(lab.text("weir status --brief"), "OK\n");
        assert!(
            lab.text("weir status --verbose | grep -i 'ct-'")
                .contains("ct-global")
        );

        let row = lab.text("weir endpoint list | grep shop/client");
        assert!(row.contains("ready"), "{row}");
        let id = lab.endpoint_id("client");
        // A list with one number, as Python prints it.
        let done = lab.text(&format!("cilium endpoint regenerate [{id}]"));
        assert!(
            done.starts_with(&format!("Endpoint {id} successfully regenerated\n")),
            "{done}"
        );
        assert!(
            lab.text("weir endpoint regenerate shop/client")
                .contains(&id.to_string())
        );
        assert!(
            lab.text(&format!("weir endpoint log {id}"))
                .contains("ready")
        );
        assert!(
            lab.text(&format!("weir endpoint health {id}"))
                .contains("OK")
        );
        let state = lab.text(&format!(
            "weir endpoint get {id} -o jsonpath='{{[0].status.state}}'"
        ));
        assert_eq!(state, "ready\n");

        assert!(lab.probe("shop/web", "80"));
        assert!(lab.probe("world", "80"));
        let flows = lab.text("weir bpf ct list global");
        assert!(flows.contains("(shop/client) -> "), "{flows}");
        assert!(flows.contains("(shop/web) "), "{flows}");
        assert!(
            lab.text("weir bpf nat list")
                .contains(" XLATE_SRC 172.18.0.2:")
        );
        let count: usize = lab
            .text("weir bpf ct list global | wc -l")
            .trim()
            .parse()
            .unwrap();
        assert!(count >= 4, "{flows}");
        assert!(lab.text("weir ip list").contains("shop/web"));
        assert!(
            lab.text("weir bpf ipcache list")
                .contains("tunnelendpoint=172.18.0.3")
        );
        assert!(lab.text("weir bpf endpoint list").contains("shop/client"));
        assert!(lab.text("weir node list").contains("172.18.0.3"));
        assert!(lab.text("weir identity list").contains("k8s:app=client"));
        assert!(lab.text("weir map list").contains("flows"));
        for map in ["endpoints", "ipcache", "nodes", "flows"] {
            lab.text(&format!("weir map get {map}"));
        }
        assert!(lab.text("weir metrics list -p drop").contains("Metric"));
        assert!(lab.text("weir bpf metrics list").contains("INGRESS"));
        assert_eq!(lab.text("weir config get routing-mode"), "tunnel\n");
        assert!(lab.text("weir version").contains("Daemon: "));
        for words in [
            "status",
            "endpoint list",
            "bpf ct list global",
            "bpf nat list",
            "bpf ipcache list",
            "bpf endpoint list",
            "bpf metrics list",
            "identity list",
            "ip list",
            "node list",
            "map list",
            "metrics list",
            "config",
            "version",
        ] {
            lab.json(&format!("weir {words} -o json"));
            lab.text(&format!("weir {words} -o yaml"));
        }
    }

    #[test]
    fn a_drop_is_explained_also_after_a_restart() {
        let Some(lab) = Lab::up("test-cli-drop") else {
            return;
        };
        let id = lab.endpoint_id("client");
        let mut monitor = Monitor::start(&lab, &format!("--type drop --from-endpoint {id}"));
        let check = |monitor: &mut Monitor| {
            assert!(!lab.probe("10.244.1.250", "80"));
            // The probe's packet may be sent again: every drop is two lines.
            let line = monitor.next();
            assert!(
                line.starts_with("xx drop (Stale or unroutable IP/STALE_OR_UNROUTABLE_IP)"),
                "{line}"
            );
            assert!(line.contains("(shop/client) -> 10.244.1.250:80"), "{line}");
            let hint = monitor.next();
            assert!(
                hint.starts_with("   hint: no pod has 10.244.1.250"),
                "{hint}"
            );
        };
        check(&mut monitor);
        assert!(
            lab.command(&["restart-agent", "n1", "--kill"])
                .output()
                .unwrap()
                .status
                .success()
        );
        monitor.wait_for("the agent is back");
        check(&mut monitor);
        let drops = lab.text("weir bpf metrics list | grep STALE_OR_UNROUTABLE_IP");
        assert!(drops.contains("EGRESS"), "{drops}");
    }
}
