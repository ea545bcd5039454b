// SPDX-License-Identifier: Apache-2.0
//! What the lab does in the place of a control plane and of kubelets, whatever forwards the packets.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::{Lab, can_run};

const WEB: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  nodeName: n1
  containers:
  - name: c
    ports: [{name: http, containerPort: 80}]
    lifecycle: {preStop: {sleep: {seconds: 60}}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {nodeName: n2, containers: [{name: c}]}
";

/// The conditions of the only endpoint of a slice; null when there is none.
fn conditions(lab: &Lab) -> Value {
    let slices = lab.objects("endpointslices", "shop");
    slices[0]["endpoints"][0]["conditions"].clone()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

#[test]
fn a_deleted_pod_serves_until_its_grace_period_ends() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("grace", &["--no-agents"], WEB);
    let ready = json!({"ready": true, "serving": true, "terminating": false});
    assert_eq!(conditions(&lab), ready);
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\n";
    lab.run_with_input(&["delete", "-f", "-", "--no-wait"], pod);
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    assert_eq!(conditions(&lab), leaving);
    assert!(lab.text(&["get", "pods"]).contains("Terminating"));
    let probe = ["--from", "shop/client", "--to", "shop/web"];
    assert_eq!(lab.probe(&probe)["peer"], "shop/web");
    let output = lab.run_with_input(&["apply", "-f", "-"], WEB);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(words.contains("Pod shop/web is being deleted"), "{words}");
    // Whoever cannot wait says so.
    lab.delete_with(&["--grace-period", "1"], pod);
    assert_eq!(lab.names("pods", "shop"), ["client"]);
    assert_eq!(conditions(&lab), Value::Null);
}

#[test]
fn processes_are_asked_to_end_before_they_are_killed() {
    if !can_run() {
        return;
    }
    let pod = |name: &str, trap: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{terminationGracePeriodSeconds: 5, containers: [{{name: c, command: [sh, -c, \"trap '{trap}' TERM; while :; do sleep 0.1; done\"]}}]}}\n"
        )
    };
    let lab = Lab::up("ask", &["--no-agents"], &pod("polite", "exit 0"));
    lab.apply(&pod("deaf", ""));
    let time = |pod: &str| {
        let begin = Instant::now();
        lab.delete(pod);
        begin.elapsed()
    };
    let polite = time(&pod("polite", "exit 0"));
    let deaf = time(&pod("deaf", ""));
    assert!(polite < Duration::from_secs(4), "{polite:?}");
    assert!(deaf > Duration::from_secs(4), "{deaf:?}");
    assert_eq!(lab.names("pods", "shop"), Vec::<String>::new());
}

#[test]
fn readiness_can_be_withheld() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("held", &["--no-agents"], WEB);
    let held = WEB.replace(
        "name: web, namespace: shop, labels",
        "name: web, namespace: shop, annotations: {lab.weir.dev/ready: 'false'}, labels",
    );
    lab.apply(&held);
    assert_eq!(conditions(&lab)["ready"], false);
    lab.apply(WEB);
    assert_eq!(conditions(&lab)["ready"], true);
}

#[test]
fn sidecars_run_beside_the_containers_and_after_the_init_containers_before_them() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("sidecar", &["--no-agents"], WEB);
    lab.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: mixed, namespace: shop, labels: {app: web}}\n\
         spec:\n  nodeName: n1\n  initContainers:\n  - {name: first, command: ['true']}\n  \
         - {name: side, restartPolicy: Always, ports: [{name: http, containerPort: 8080}]}\n  \
         - {name: last, command: [sh, -c, 'sleep 0.2']}\n  containers: [{name: main, command: [sleep, '1000']}]\n",
    );
    let status = &lab.pod("shop", "mixed")["status"];
    assert_eq!(status["initContainerStatuses"][0]["name"], "side");
    assert_eq!(status["phase"], "Running", "{status}");
    let answer = lab.probe(&[
        "--from",
        "shop/client",
        "--to",
        "shop/mixed",
        "--port",
        "8080",
    ]);
    assert_eq!(answer["peer"], "shop/mixed", "{answer}");
    let slices = lab.objects("endpointslices", "shop");
    let ports: Vec<&Value> = slices
        .iter()
        .map(|slice| &slice["ports"][0]["port"])
        .collect();
    assert_eq!(ports, [&json!(80), &json!(8080)]);
}

#[test]
fn services_that_cannot_be_are_refused_and_the_others_stay() {
    if !can_run() {
        return;
    }
    let lab = Lab::up("admission", &["--no-agents"], WEB);
    let service = |name: &str, port: u16| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{type: NodePort, ports: [{{port: 80, nodePort: {port}}}]}}\n"
        )
    };
    let all = service("a", 30080) + &service("b", 30080) + &service("c", 80);
    let output = lab.run_with_input(&["apply", "-f", "-"], &all);
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(
        words.contains("provided port is already allocated"),
        "{words}"
    );
    assert!(words.contains("not in the valid range"), "{words}");
    assert_eq!(lab.names("services", "shop"), ["a", "web"]);
    let table = lab.text(&["get", "svc", "-n", "shop"]);
    assert!(table.contains("80:30080/TCP"), "{table}");
    lab.delete(&service("a", 30080));
    lab.apply(&service("b", 30080));
}

#[test]
fn names_are_answered_by_the_clusters_own_server() {
    if !can_run() {
        return;
    }
    // Nothing translates services here, so the service has the address of its pod.
    let dns = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}\n\
        spec: {nodeName: n1, containers: [{name: c, ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53}]}]}\n\
        status: {podIP: 10.244.1.53}\n\
        ---\napiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\n\
        spec: {clusterIP: 10.244.1.53, selector: {k8s-app: kube-dns}, ports: [{port: 53, protocol: UDP}]}\n";
    let headless = WEB.replace(
        "name: web, namespace: shop}\nspec: {",
        "name: all, namespace: shop}\nspec: {clusterIP: None, ",
    );
    let lab = Lab::up("names", &["--no-agents"], &format!("{dns}---\n{WEB}"));
    lab.apply(headless.split("---").next().unwrap());
    for name in ["all", "all.shop", "all.shop.svc.cluster.local"] {
        let name = format!("dns:{name}");
        let answer = lab.probe(&[
            "--from",
            "shop/client",
            "--to",
            &name,
            "--port",
            "80",
            "--timeout",
            "5s",
        ]);
        assert_eq!(answer["peer"], "shop/web", "{name}: {answer}");
    }
    for name in ["nobody.shop", "example.org"] {
        let name = format!("dns:{name}");
        let answer = lab.probe(&["--from", "shop/client", "--to", &name, "--port", "80"]);
        assert!(
            answer["error"].to_string().contains("not known"),
            "{answer}"
        );
    }
}

#[test]
fn everything_of_a_node_lives_below_the_cgroup_of_that_node() {
    if !can_run() {
        return;
    }
    let host = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: host, namespace: shop}\n\
        spec: {nodeName: n2, hostNetwork: true, containers: [{name: c, command: [sleep, '7101']}]}\n\
        ---\napiVersion: v1\nkind: Pod\nmetadata: {name: own, namespace: shop}\n\
        spec: {nodeName: n1, containers: [{name: c, command: [sleep, '7102']}]}\n";
    let lab = Lab::up("cgroups", &["--no-agents"], &(WEB.to_owned() + host));
    let mut commands: Vec<_> = [
        ["exec", "shop/client", "7103"],
        ["node", "n1", "7104"],
        ["exec", "shop/host", "7105"],
        ["exec", "shop/web", "7106"],
    ]
    .map(|[verb, of, time]| lab.spawn(&[verb, of, "--", "sleep", time]))
    .into();
    for (time, node) in [
        ("7101", "n2"),
        ("7102", "n1"),
        ("7103", "n2"),
        ("7104", "n1"),
        ("7105", "n2"),
        ("7106", "n1"),
    ] {
        let mut group = String::new();
        wait_for(time, || {
            group = lab
                .cgroup_of(&format!("sleep\0{time}\0"))
                .unwrap_or_default();
            !group.is_empty()
        });
        assert!(
            group.starts_with(&format!("{node}/")) || group == node,
            "sleep {time} is in {group}"
        );
    }
    for command in &mut commands {
        command.kill().unwrap();
        command.wait().unwrap();
    }
}
