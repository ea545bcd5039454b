// SPDX-License-Identifier: Apache-2.0
//! What policies allow and deny stands in the policy log of the node that decided, by name.
//!
//! Needs root and the whole `weir` program in `WEIR_BIN`: without them it fails when `WEIR_REQUIRE_KERNEL=1` is set and
//! does nothing otherwise.

#[cfg(test)]
#[path = "lab/harness.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod harness;

#[cfg(test)]
mod lab {
    use std::thread;
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use super::harness::{Lab, can_run_weir};

    const OBJECTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: store, annotations: {policy.network.gke.io/enable-deny-logging: "true"}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: cli, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: cli}}
  template:
    metadata: {labels: {app: cli}}
    spec: {nodeName: n1, containers: [{name: c, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: shop, labels: {app: other}}
spec: {nodeName: n1, containers: [{name: c, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: quiet, namespace: shop, labels: {app: quiet}}
spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: store, labels: {app: db}}
spec: {nodeName: n2, containers: [{name: c, ports: [{containerPort: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop, annotations: {policy.network.gke.io/enable-logging: "true"}}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: cli}}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-port, namespace: shop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: cli}}}], ports: [{port: 80}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: quiet, namespace: shop}
spec: {podSelector: {matchLabels: {app: quiet}}, ingress: [{from: [{podSelector: {}}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: store}
spec: {podSelector: {}, policyTypes: [Ingress]}
"#;

    fn logging(allow: &Value, deny: &Value) -> String {
        let object = json!({
            "apiVersion": "networking.gke.io/v1alpha1", "kind": "NetworkLogging", "metadata": {"name": "default"},
            "spec": {"cluster": {"allow": allow, "deny": deny}},
        });
        object.to_string()
    }

    const LOG: &str = "/var/log/network/policy_action.log";

    fn records(lab: &Lab, node: &str) -> Vec<Value> {
        let output = lab.run(&["node", node, "--", "cat", LOG]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The records of a node from and to two pods, once there are any.
    #[track_caller]
    fn wait_for(lab: &Lab, node: &str, ends: [&str; 2]) -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let mut found = records(lab, node);
            found.retain(|one| [&one["src"]["pod_name"], &one["dest"]["pod_name"]] == ends);
            if !found.is_empty() {
                return found;
            }
            let all = records(lab, node);
            assert!(Instant::now() < deadline, "no {ends:?} in {all:#?}");
            thread::park_timeout(Duration::from_millis(100));
        }
    }

    #[track_caller]
    fn probe(lab: &Lab, to: &str, from: &str, allowed: bool) {
        let arguments = [
            "--from",
            from,
            "--to",
            to,
            "--port",
            "80",
            "--timeout",
            "1500ms",
        ];
        assert_eq!(lab.probe(&arguments)["allowed"], allowed, "{from} {to}");
    }

    fn pod(namespace: &str, name: &str) -> Value {
        json!({"pod_name": name, "pod_namespace": namespace, "namespace": namespace})
    }

    /// Without what differs each time.
    fn comparable(mut record: Value) -> Value {
        for (part, field) in [
            ("connection", "src_port"),
            ("connection", "src_ip"),
            ("connection", "dest_ip"),
        ] {
            assert!(
                record[part]
                    .as_object_mut()
                    .unwrap()
                    .remove(field)
                    .is_some(),
                "{record}"
            );
        }
        let time = record.as_object_mut().unwrap().remove("timestamp");
        assert!(time.is_some_and(|time| time.as_str().unwrap().ends_with('Z')));
        record
    }

    #[test]
    fn decisions_stand_in_the_log_by_name() {
        if !can_run_weir() {
            return;
        }
        let on = json!({"log": true, "delegate": true});
        let lab = Lab::up("policy-log", &["--nodes", "2"], OBJECTS);
        probe(&lab, "shop/quiet", "shop/cli-0", true);
        assert!(
            !lab.run(&["node", "n1", "--", "test", "-e", LOG])
                .status
                .success()
        );

        let warned = || {
            let all = lab.text(&["node", "n1", "--", "weir", "policy", "get"]);
            all.contains("enable-logging has no effect")
        };
        assert!(warned());

        lab.apply(&logging(&on, &on));
        assert!(!warned());
        wait_for_file(&lab, "n1");
        wait_for_file(&lab, "n2");
        // What nobody asks for first: it would stand before the rest.
        probe(&lab, "shop/quiet", "shop/cli-0", true);
        probe(&lab, "shop/web", "shop/other", false);
        probe(&lab, "shop/web", "shop/cli-0", true);
        probe(&lab, "store/db", "shop/cli-0", false);

        let cli = json!({"pod_name": "cli-0", "pod_namespace": "shop", "namespace": "shop",
                         "workload_kind": "Deployment", "workload_name": "cli"});
        let mut allowed = wait_for(&lab, "n1", ["cli-0", "web"]);
        assert_eq!(allowed.len(), 1, "{allowed:#?}");
        // Two policies allow it, of which one asks for the line.
        assert_eq!(
            comparable(allowed.remove(0)),
            json!({
                "connection": {"dest_port": 80, "protocol": "tcp", "direction": "ingress"},
                "disposition": "allow",
                "policies": [{"kind": "NetworkPolicy", "name": "web", "namespace": "shop"}],
                "src": cli, "dest": pod("shop", "web"), "count": 1, "node_name": "n1",
            })
        );
        let mut denied = wait_for(&lab, "n2", ["cli-0", "db"]);
        let count = denied[0]["count"].as_u64().unwrap();
        assert!(count >= 1, "{denied:#?}");
        assert_eq!(
            comparable(denied.remove(0)),
            json!({
                "connection": {"dest_port": 80, "protocol": "tcp", "direction": "ingress"},
                "disposition": "deny",
                "src": cli, "dest": pod("store", "db"), "count": count, "node_name": "n2",
            })
        );
        // The denial came after five seconds, so whatever else was to come has come.
        assert_eq!(records(&lab, "n1").len(), 1);

        // Everything, and an end before its time.
        let all = json!({"log": true, "delegate": false});
        lab.apply(&logging(&all, &all));
        probe(&lab, "shop/quiet", "shop/cli-0", true);
        wait_for(&lab, "n1", ["cli-0", "quiet"]);
        probe(&lab, "shop/web", "shop/other", false);
        let metrics = lab.text(&["node", "n1", "--", "weir", "metrics", "list"]);
        assert!(metrics.contains("policy_logging_log_count"), "{metrics}");
        lab.text(&["restart-agent", "n1"]);
        let denied = wait_for(&lab, "n1", ["other", "web"]);
        assert_eq!(denied[0]["disposition"], "deny");
    }

    #[track_caller]
    fn wait_for_file(lab: &Lab, node: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !lab
            .run(&["node", node, "--", "test", "-e", LOG])
            .status
            .success()
        {
            assert!(Instant::now() < deadline, "no log on {node}");
            thread::park_timeout(Duration::from_millis(50));
        }
    }
}
