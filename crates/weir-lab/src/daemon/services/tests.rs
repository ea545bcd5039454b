// SPDX-License-Identifier: Apache-2.0
//! Services as a control plane completes them, and the slices that follow.

use serde_json::{Value, json};

use super::*;
use crate::config::LabConfig;

const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
    spec: {type: NodePort, selector: {app: web}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: http}]}\n";
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop, labels: {app: web}}\n\
    spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}\n\
    status: {podIPs: [{ip: 10.244.1.5}], conditions: [{type: Ready, status: 'True'}]}\n";

struct Cluster {
    store: Store,
    topology: Topology,
}

impl Cluster {
    fn new(texts: &[&str]) -> Self {
        Self::configured("", texts)
    }

    fn configured(config: &str, texts: &[&str]) -> Self {
        let topology = LabConfig::parse(config).unwrap();
        let mut cluster = Self {
            store: Store::default(),
            topology: topology.resolve(None, &[]).unwrap(),
        };
        cluster.apply(&texts.join("---\n")).unwrap();
        cluster
    }

    fn apply(&mut self, text: &str) -> anyhow::Result<()> {
        let objects = Object::parse_all(text).unwrap();
        let mut admission = Admission::new(&self.store, &self.topology, &objects);
        for mut object in objects {
            if object.kind() == "Service" {
                admission.admit(&self.store, &mut object)?;
            }
            self.store.upsert(object);
        }
        follow(&mut self.store, &self.topology);
        Ok(())
    }

    fn refuses(&mut self, text: &str, expected: &str) {
        let error = format!("{:#}", self.apply(text).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }

    fn service(&self, name: &str, pointer: &str) -> Value {
        let service = self.store.get(&Key::new("Service", "shop", name)).unwrap();
        service.get(pointer).cloned().unwrap_or_default()
    }

    /// The endpoints of a slice in short: address, and the first letters of the conditions that hold.
    fn slice(&self, name: &str) -> Option<String> {
        let slice = self.store.get(&Key::new("EndpointSlice", "shop", name))?;
        let words: Vec<String> = slice
            .list("/endpoints")
            .iter()
            .map(|endpoint| {
                let names = ["ready", "serving", "terminating"];
                let good = names.iter().filter(|name| condition(endpoint, name, false));
                let letters: String = good.map(|name| &name[..1]).collect();
                format!("{} {letters}", endpoint["addresses"][0].as_str().unwrap())
            })
            .collect();
        let ports = slice.list("/ports").iter();
        let ports: Vec<String> = ports.map(|port| port["port"].to_string()).collect();
        Some(format!("{} -> {}", ports.join(","), words.join(", ")))
    }
}

#[test]
fn services_get_addresses_and_ports_once() {
    let mut cluster = Cluster::new(&[WEB, &WEB.replace("name: web", "name: other")]);
    assert_eq!(
        cluster.service("web", "/spec/clusterIPs"),
        json!(["10.96.0.16", "fd00:96::10"])
    );
    assert_eq!(cluster.service("web", "/spec/ports/0/nodePort"), 30000);
    assert_eq!(cluster.service("other", "/spec/clusterIP"), "10.96.0.17");
    assert_eq!(cluster.service("other", "/spec/ports/0/nodePort"), 30001);
    let before = cluster.service("web", "/spec");
    cluster.apply(WEB).unwrap();
    assert_eq!(cluster.service("web", "/spec"), before);
    // What goes is free again.
    cluster.store.remove(&Key::new("Service", "shop", "web"));
    cluster
        .apply(&WEB.replace("name: web", "name: third"))
        .unwrap();
    assert_eq!(cluster.service("third", "/spec/ports/0/nodePort"), 30000);
}

#[test]
fn types_and_families_change() {
    let mut cluster = Cluster::new(&[WEB]);
    let addresses = cluster.service("web", "/spec/clusterIPs");
    cluster
        .apply(&WEB.replace("NodePort", "ClusterIP"))
        .unwrap();
    assert_eq!(cluster.service("web", "/spec/clusterIPs"), addresses);
    assert_eq!(
        cluster.service("web", "/spec/ports/0/nodePort"),
        Value::Null
    );
    cluster
        .apply(&WEB.replace("PreferDualStack", "SingleStack"))
        .unwrap();
    assert_eq!(
        cluster.service("web", "/spec/clusterIPs"),
        json!(["10.96.0.16"])
    );
    assert_eq!(cluster.service("web", "/spec/ipFamilies"), json!(["IPv4"]));
    cluster
        .apply(&WEB.replace(
            "type: NodePort",
            "type: ExternalName, externalName: example.org",
        ))
        .unwrap();
    assert_eq!(cluster.service("web", "/spec/clusterIP"), Value::Null);
    assert_eq!(cluster.slice("web-ipv4-0"), None);
    cluster
        .apply(&WEB.replace("PreferDualStack", "SingleStack, ipFamilies: [IPv6]"))
        .unwrap();
    assert_eq!(
        cluster.service("web", "/spec/clusterIPs"),
        json!(["fd00:96::10"])
    );
    cluster
        .apply(&WEB.replace("spec: {", "spec: {ipFamilies: [IPv6], "))
        .unwrap();
    assert_eq!(
        cluster.service("web", "/spec/ipFamilies"),
        json!(["IPv6", "IPv4"])
    );
    let headless = WEB
        .replace("name: web", "name: other")
        .replace("type: NodePort", "clusterIP: None");
    cluster.apply(&headless).unwrap();
    assert_eq!(
        cluster.service("other", "/spec/clusterIPs"),
        json!(["None"])
    );
}

#[test]
fn what_cannot_be_is_refused_in_the_words_of_the_api() {
    let mut cluster = Cluster::configured("nodePortRange: 30000-30003", &[WEB]);
    let other = |change: &str| {
        WEB.replace("name: web", "name: other")
            .replace("{port: 80", change)
    };
    cluster.refuses(
        &other("{port: 80, nodePort: 30000"),
        "provided port is already allocated",
    );
    cluster.refuses(
        &other("{port: 80, nodePort: 29999"),
        "not in the valid range. The range of valid ports is 30000-30003",
    );
    cluster.refuses(&other("{port: 0"), "must be between 1 and 65535");
    cluster.refuses(
        &other("{port: 80}, {port: 81"),
        "spec.ports[0].name: Required value",
    );
    cluster.refuses(
        &WEB.replace("spec: {", "spec: {clusterIP: 10.96.0.99, "),
        "may not change once set",
    );
    cluster.refuses(
        &other("{port: 80").replace("spec: {", "spec: {clusterIP: 10.96.0.16, "),
        "provided IP is already allocated",
    );
    cluster.refuses(
        &other("{port: 80").replace("spec: {", "spec: {clusterIP: None, "),
        "may not be set to 'None' for NodePort services",
    );
    // A port that one service of an operation asks for goes to no other.
    let asks = other("{port: 80, nodePort: 30001").replace("name: other", "name: z");
    cluster
        .apply(&format!("{}---\n{asks}", other("{port: 80")))
        .unwrap();
    assert_eq!(cluster.service("other", "/spec/ports/0/nodePort"), 30002);
    // Both protocols of a port have one number on the nodes.
    let both = "{name: t, port: 80}, {name: u, protocol: UDP, port: 80";
    cluster
        .apply(
            &WEB.replace("name: web", "name: y")
                .replace("{port: 80", both),
        )
        .unwrap();
    assert_eq!(cluster.service("y", "/spec/ports/0/nodePort"), 30003);
    assert_eq!(cluster.service("y", "/spec/ports/1/nodePort"), 30003);
    cluster.refuses(&WEB.replace("name: web", "name: x"), "range is full");
}

#[test]
fn load_balancers_get_addresses_and_health_check_ports() {
    let lb = WEB.replace("type: NodePort", "type: LoadBalancer");
    let mut cluster = Cluster::new(&[&lb]);
    let ingress = json!([
        {"ip": "203.0.113.129", "ipMode": "VIP"}, {"ip": "2001:db8:113:128::1", "ipMode": "VIP"}
    ]);
    let list = "/status/loadBalancer/ingress";
    assert_eq!(cluster.service("web", list), ingress);
    assert_eq!(
        cluster.service("web", "/spec/healthCheckNodePort"),
        Value::Null
    );
    let local = lb.replace("spec: {", "spec: {externalTrafficPolicy: Local, ");
    cluster.apply(&local).unwrap();
    assert_eq!(cluster.service("web", list), ingress);
    assert_eq!(cluster.service("web", "/spec/healthCheckNodePort"), 30001);
    cluster.apply(&local).unwrap();
    assert_eq!(cluster.service("web", "/spec/healthCheckNodePort"), 30001);
    cluster
        .apply(&WEB.replace("type: NodePort", "type: ClusterIP"))
        .unwrap();
    assert_eq!(cluster.service("web", list), json!([]));
    for (change, expected) in [
        (
            "status: {loadBalancer: {ingress: [{ip: 198.51.100.7}]}}",
            json!([{"ip": "198.51.100.7", "ipMode": "VIP"}]),
        ),
        (
            "status: {loadBalancer: {ingress: [{hostname: lb.example.org}]}}",
            json!([{"hostname": "lb.example.org"}]),
        ),
        (
            "",
            json!([{"ip": "203.0.113.129", "ipMode": "VIP"}, {"ip": "2001:db8:113:128::1", "ipMode": "VIP"}]),
        ),
    ] {
        let mut cluster = Cluster::new(&[&format!("{lb}{change}")]);
        assert_eq!(cluster.service("web", list), expected);
        let annotated = lb.replace(
            "namespace: shop",
            "namespace: shop, annotations: {lab.weir.dev/load-balancer-ips: 198.51.100.9, lab.weir.dev/load-balancer-ip-mode: Proxy}",
        );
        cluster.apply(&annotated).unwrap();
        assert_eq!(
            cluster.service("web", list),
            json!([{"ip": "198.51.100.9", "ipMode": "Proxy"}])
        );
    }
    let without = lb.replace(
        "spec: {",
        "spec: {allocateLoadBalancerNodePorts: false, loadBalancerClass: other, ",
    );
    let cluster = Cluster::new(&[&without]);
    assert_eq!(
        cluster.service("web", "/spec/ports/0/nodePort"),
        Value::Null
    );
    assert_eq!(cluster.service("web", list), Value::Null);
}

#[test]
fn slices_follow_readiness_termination_and_named_ports() {
    let mut cluster = Cluster::new(&[WEB]);
    assert_eq!(cluster.slice("web-ipv4-0").unwrap(), " -> ");
    assert_eq!(cluster.slice("web-ipv6-0").unwrap(), " -> ");
    let mut check = |pod: &str, service: &str, expected: &str| {
        cluster.apply(&format!("{pod}---\n{service}")).unwrap();
        assert_eq!(cluster.slice("web-ipv4-0").unwrap(), expected, "{pod}");
    };
    let published = WEB.replace("spec: {", "spec: {publishNotReadyAddresses: true, ");
    let unready = POD.replace("'True'", "'False'");
    let leaving = POD.replace("namespace: shop", "namespace: shop, deletionTimestamp: now");
    let failed = POD.replace("status: {", "status: {phase: Failed, ");
    check(POD, WEB, "8080 -> 10.244.1.5 rs");
    check(&unready, WEB, "8080 -> 10.244.1.5 ");
    check(&unready, &published, "8080 -> 10.244.1.5 r");
    check(&leaving, WEB, "8080 -> 10.244.1.5 st");
    check(&leaving, &published, "8080 -> 10.244.1.5 rst");
    check(&failed, &published, " -> ");
    let sidecar = POD
        .replace("[{name: http, containerPort: 8080}]}]", "[]}], initContainers: [{name: s, restartPolicy: Always, ports: [{name: http, containerPort: 9}]}]");
    check(&sidecar, WEB, "9 -> 10.244.1.5 rs");
    check(
        &POD.replace("name: http", "name: other"),
        WEB,
        " -> 10.244.1.5 rs",
    );
    cluster.store.remove(&Key::new("Pod", "shop", "a"));
    cluster.apply(WEB).unwrap();
    assert_eq!(cluster.slice("web-ipv4-0").unwrap(), " -> ");
}

#[test]
fn endpoints_stay_in_their_slices() {
    let pod = |number: usize| {
        POD.replace("name: a,", &format!("name: p{number:03},"))
            .replace("10.244.1.5", &format!("10.244.1.{number}"))
    };
    let pods: Vec<String> = (1..=150).map(pod).collect();
    let mut cluster = Cluster::new(&[WEB, &pods.join("---\n")]);
    let count = |cluster: &Cluster, name: &str| {
        let slice = cluster.slice(name).unwrap();
        slice.split(", ").count()
    };
    assert_eq!(count(&cluster, "web-ipv4-0"), 100);
    assert_eq!(count(&cluster, "web-ipv4-1"), 50);
    let second = cluster.slice("web-ipv4-1");
    cluster.store.remove(&Key::new("Pod", "shop", "p001"));
    cluster.apply(&pod(151)).unwrap();
    assert_eq!(cluster.slice("web-ipv4-1"), second);
    assert!(
        cluster
            .slice("web-ipv4-0")
            .unwrap()
            .ends_with("10.244.1.151 rs")
    );
    // Another number behind the port's name is another slice.
    cluster.apply(&pod(2).replace("8080", "9090")).unwrap();
    assert_eq!(
        cluster.slice("web-ipv4-2").unwrap(),
        "9090 -> 10.244.1.2 rs"
    );
    assert_eq!(count(&cluster, "web-ipv4-0"), 99);
}

#[test]
fn slices_that_came_with_the_objects_stay_alone() {
    let dumped = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
        metadata: {name: web-x7, namespace: shop, labels: {kubernetes.io/service-name: web}}\n";
    let cluster = Cluster::new(&[WEB, POD, dumped]);
    assert_eq!(cluster.store.of_kind("EndpointSlice").count(), 1);
    let added = dumped.replace(
        "labels: {",
        "labels: {endpointslice.kubernetes.io/managed-by: me, ",
    );
    let cluster = Cluster::new(&[WEB, POD, &added]);
    assert_eq!(cluster.store.of_kind("EndpointSlice").count(), 3);
}
