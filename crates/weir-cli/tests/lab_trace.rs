// SPDX-License-Identifier: Apache-2.0
//! What `policy trace` says is what becomes of real packets, and saying it changes nothing.
//!
//! They need root and the kernel programs: without root they fail when `WEIR_REQUIRE_KERNEL=1` is
//! set and do nothing otherwise.

#[cfg(test)]
mod lab {
    use std::io::Write;
    use std::path::PathBuf;
    use std::process::{Command, Output, Stdio};

    use serde_json::{Value, json};
    use tempfile::TempDir;

    const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ops, labels: {team: b}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec: {nodeName: n1, containers: [{name: c, image: c, ports: [{containerPort: 8080}, {containerPort: 9000, protocol: SCTP}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: c, ports: [{containerPort: 80, name: http}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {nodeName: n2, containers: [{name: c, image: c, ports: [{containerPort: 80, name: http}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: tool, namespace: ops, labels: {app: client}}
spec: {nodeName: n2, containers: [{name: c, image: c, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: web}
  ports: [{name: http, port: 8000, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: one, namespace: shop}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: client}, ports: [{port: 9000, protocol: SCTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: two, namespace: shop}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: client}, ports: [{port: 9000, protocol: SCTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody, namespace: shop}
spec: {selector: {app: nothing}, ports: [{port: 8000, targetPort: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: http, protocol: TCP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: tool, namespace: ops}
spec:
  podSelector: {}
  policyTypes: [Egress, Ingress]
  egress:
  - to: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: client}}}]
  ingress:
  - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 81, protocol: TCP}]
";

    const PODS: [&str; 4] = ["shop/client", "shop/web-1", "shop/web-2", "ops/tool"];

    struct Lab {
        folder: TempDir,
        name: String,
    }

    impl Lab {
        /// `None`: this cannot run here, and need not.
        fn up(name: &str, mode: &str) -> Option<Self> {
            if !nix::unistd::geteuid().is_root() {
                assert!(
                    std::env::var_os("WEIR_REQUIRE_KERNEL").is_none(),
                    "WEIR_REQUIRE_KERNEL is set, but this is not root"
                );
                return None;
            }
            let lab = Self {
                folder: tempfile::tempdir().unwrap(),
                name: format!("trace-{name}"),
            };
            let config = lab.file("lab.yaml", &format!("agent: {{routingMode: {mode}}}\n"));
            let objects = lab.file("objects.yaml", OBJECTS);
            let [config, objects] = [&config, &objects].map(|path| path.to_str().unwrap());
            let up = ["up", "--nodes", "2", "--config", config, "-f", objects];
            let output = lab.command(&up).output().unwrap();
            let words = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{words}");
            Some(lab)
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        #[expect(
            clippy::disallowed_methods,
            reason = "the binary is what these tests are about"
        )]
        fn command(&self, words: &[&str]) -> Command {
            let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
            command
                .args(["lab", words[0], "--name", &self.name])
                .args(&words[1..])
                .env("WEIR_LAB_DIR", self.folder.path())
                .env("NO_COLOR", "1");
            command
        }

        /// A command typed on a node, split by a shell.
        fn run(&self, node: &str, line: &str) -> Output {
            let words = ["node", node, "--", "sh", "-c", line];
            self.command(&words).output().unwrap()
        }

        #[track_caller]
        fn text(&self, line: &str) -> String {
            let output = self.run("n1", line);
            assert!(output.status.success(), "{line}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        }

        /// What a trace says; its exit status says the same.
        #[track_caller]
        fn trace(&self, node: &str, line: &str) -> Value {
            let output = self.run(node, &format!("weir {line} -o json"));
            let said: Value = serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{line}: {error}: {output:?}"));
            let code = i32::from(said["verdict"] == "denied");
            assert_eq!(output.status.code(), Some(code), "{line}");
            said
        }

        /// What becomes of real connections, one after the other.
        fn probe(&self, cells: &[Cell]) -> Vec<bool> {
            let requests: Vec<Value> = cells.iter().map(Cell::request).collect();
            self.connect(&requests)
        }

        fn connect(&self, requests: &[Value]) -> Vec<bool> {
            let mut child = self
                .command(&["probe", "--batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            for (id, request) in requests.iter().enumerate() {
                let mut request = request.clone();
                request["id"] = json!(id.to_string());
                writeln!(input, "{request}").unwrap();
            }
            drop(input);
            let output = child.wait_with_output().unwrap();
            let mut allowed = vec![false; requests.len()];
            for line in String::from_utf8(output.stdout).unwrap().lines() {
                let answer: Value = serde_json::from_str(line).unwrap();
                let id: usize = answer["id"].as_str().unwrap().parse().unwrap();
                allowed[id] = answer["allowed"] == true;
            }
            allowed
        }
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            let _ = self.command(&["down"]).output();
        }
    }

    #[derive(Debug)]
    struct Cell {
        from: &'static str,
        to: &'static str,
        port: u16,
        family: u8,
    }

    impl Cell {
        fn request(&self) -> Value {
            json!({
                "from": self.from, "to": self.to, "port": self.port, "family": self.family,
                "timeout_ms": 1500, "serve": !self.to.starts_with("svc:"),
            })
        }
    }

    fn cells() -> Vec<Cell> {
        let mut all = Vec::new();
        for family in [4, 6] {
            for from in PODS {
                for to in PODS.into_iter().filter(|to| *to != from) {
                    all.extend([80, 81].map(|port| Cell {
                        from,
                        to,
                        port,
                        family,
                    }));
                }
                let to = "svc:shop/web";
                // A client that is a backend itself may or may not be sent to itself.
                if !from.starts_with("shop/web") {
                    all.push(Cell {
                        from,
                        to,
                        port: 8000,
                        family,
                    });
                }
            }
        }
        all
    }

    fn check_everything(mode: &str) {
        let Some(lab) = Lab::up(mode, mode) else {
            return;
        };
        let cells = cells();
        let real = lab.probe(&cells);
        let count = real.iter().filter(|allowed| **allowed).count();
        assert!(
            count >= 10 && count <= cells.len() - 10,
            "{count} of {}",
            cells.len()
        );
        let counted = || lab.text("weir bpf policy get --all -o json");
        let before = counted();
        for (cell, real) in cells.iter().zip(real) {
            let Cell {
                from,
                to,
                port,
                family,
            } = cell;
            // Whichever node is asked, its own part comes from its kernel.
            for node in ["n1", "n2"] {
                let said = lab.trace(node, &format!("trace {from} {to}:{port} --family {family}"));
                assert_eq!(
                    said["verdict"] == "allowed",
                    real,
                    "{cell:?} at {node}: {said:#}"
                );
                let steps = said["steps"].as_array().unwrap();
                for step in steps {
                    let here = step["node"] == node;
                    let by = if here { "kernel" } else { "compiled" };
                    assert_eq!(step["evaluated"], by, "{cell:?}");
                }
                assert!(!said.to_string().contains("this is a bug"), "{said:#}");
            }
        }
        assert_eq!(
            counted(),
            before,
            "hits of rules are counted for packets alone"
        );
        let flows = lab.text("weir bpf ct list global");
        assert!(!flows.contains(":613"), "{flows}");
    }

    #[test]
    fn every_verdict_is_that_of_a_packet_by_the_tunnel() {
        check_everything("tunnel");
    }

    #[test]
    fn every_verdict_is_that_of_a_packet_by_routing() {
        check_everything("native");
    }

    /// Of SCTP no port can be translated, so a connection through one service may have what one through another to the
    /// same backend would need. A question about new connections is not about that port.
    #[test]
    fn a_port_that_is_taken_is_not_what_is_asked_about() {
        let Some(lab) = Lab::up("taken", "tunnel") else {
            return;
        };
        for family in [4, 6] {
            let connection = json!({
                "from": "shop/web-1", "to": "svc:shop/one", "port": 9000, "protocol": "sctp",
                "family": family, "source_port": 61_321, "timeout_ms": 5000,
            });
            assert_eq!(lab.connect(&[connection]), [true], "IPv{family}");
            let question = "trace shop/web-1 svc:shop/two:9000/SCTP";
            let said = lab.trace("n1", &format!("{question} --family {family}"));
            assert_eq!(said["verdict"], "allowed", "{said:#}");
            let packet = said["steps"][0]["packet"].as_str().unwrap();
            assert!(packet.contains(":61322 -> "), "{packet}");
        }
    }

    #[test]
    fn a_denial_says_what_to_change_and_a_policy_can_be_tried() {
        let Some(lab) = Lab::up("try", "tunnel") else {
            return;
        };
        let ends = "--src-k8s-pod ops:tool --dst-k8s-pod shop:web-1";
        let said = lab.trace("n1", &format!("policy trace {ends} --dport 80"));
        // The source's side denies; what the other would say is told all the same.
        assert_eq!(said["egress"]["verdict"], "denied");
        assert_eq!(said["egress"]["policies"][0]["name"], "tool");
        assert_eq!(said["ingress"]["verdict"], "denied");
        let miss = said["ingress"]["nearestMiss"].as_str().unwrap();
        assert!(miss.contains("namespaceSelector"), "{miss}");
        assert_eq!(said["reasonCode"], 133);

        let ends = "--src-k8s-pod shop:client --dst-k8s-pod shop:web-2";
        let said = lab.trace("n1", &format!("policy trace {ends} --dport 81"));
        assert_eq!(said["ingress"]["evaluated"], "compiled");
        let without = format!("policy trace {ends} --dport 81 --without shop/web");
        let said = lab.trace("n1", &without);
        assert_eq!(
            (&said["verdict"], said["hypothetical"][0].as_str()),
            (&json!("allowed"), Some("policy shop/web is deleted"))
        );
        let file = lab.file(
            "deny.yaml",
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: shop}\n\
             spec: {podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]}\n",
        );
        let with = format!("policy trace {ends} --dport 80 --with {}", file.display());
        let said = lab.trace("n1", &with);
        assert_eq!(said["verdict"], "denied");
        assert_eq!(said["egress"]["policies"][0]["name"], "deny");
        // It was not applied.
        let said = lab.trace("n1", &format!("policy trace {ends} --dport 80"));
        assert_eq!(said["verdict"], "allowed");
        assert_eq!(
            said["ingress"]["policies"][0],
            json!({
                "kind": "NetworkPolicy", "namespace": "shop", "name": "web", "rule": 0
            })
        );
        let said = lab.trace(
            "n1",
            "policy trace --src-k8s-pod shop:client --dst-service shop/nobody",
        );
        assert_eq!(said["reasonEnum"], "SERVICE_BACKEND_NOT_FOUND");
        assert!(
            said["hint"].as_str().unwrap().contains("app=nothing"),
            "{said:#}"
        );
    }
}
