// SPDX-License-Identifier: Apache-2.0
//! The lab that rows share, one for each variant, and a namespace in it for each row.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, Once, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{answer::peers, ask::Ask, objects::list};
use crate::harness::{Lab, can_run_weir};

/// A way to run all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    pub(crate) socket_lb: bool,
    pub(crate) routing: &'static str,
    /// How answers of backends on other nodes come back.
    pub(crate) mode: &'static str,
    pub(crate) algorithm: &'static str,
    /// Whether drivers forward.
    pub(crate) acceleration: &'static str,
}

/// The nodes; the first two are in one zone.
pub(crate) const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// A client on each of them.
pub(crate) const CLIENTS: [&str; 4] = ["base/c1", "base/c2", "base/c3", "base/c4"];
/// Ports that clients take for their connections: as many as the busiest minute of the rows needs, so that a row's
/// connections meet what those of rows before it left in the tables.
const FEW_PORTS: &str = "32768 35767";

/// The lab that is up.
static LAB: Mutex<Option<(Variant, Lab)>> = Mutex::new(None);

static AT_EXIT: Once = Once::new();

/// A row's own ground.
pub(crate) struct Ground<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) variant: Variant,
    namespace: String,
}

/// Runs a row in the lab of a variant, which is built for the first of them.
pub(crate) fn run(variant: Variant, name: &str, row: fn(&Ground<'_>)) {
    if !can_run_weir() {
        return;
    }
    AT_EXIT.call_once(|| {
        // SAFETY: the function is there as long as the program is, and takes no part of it for granted.
        let registered = unsafe { libc::atexit(go_down) };
        assert_eq!(registered, 0);
    });
    let mut slot = LAB.lock().unwrap_or_else(PoisonError::into_inner);
    if slot.as_ref().is_none_or(|(up, _)| *up != variant) {
        *slot = None;
        *slot = Some((variant, build(variant)));
    }
    let (_, lab) = slot.as_ref().unwrap();
    let ground = Ground {
        lab,
        variant,
        namespace: name.split('_').next().unwrap_or(name).to_owned(),
    };
    let begin = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| row(&ground)));
    ground.clear();
    println!("{name}: {} ms", begin.elapsed().as_millis());
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

/// Statics are not dropped, so the last lab would stay.
extern "C" fn go_down() {
    LAB.lock().unwrap_or_else(PoisonError::into_inner).take();
}

fn build(variant: Variant) -> Lab {
    let zones = ["a", "a", "b", "c"];
    let nodes: Vec<Value> = NODES
        .iter()
        .zip(zones)
        .map(|(name, zone)| json!({"name": name, "labels": {"topology.kubernetes.io/zone": zone}}))
        .collect();
    let config = json!({
        "nodes": nodes,
        "externals": [
            {"name": "world", "addresses": ["203.0.113.10", "2001:db8:113::10"]},
            {"name": "other", "addresses": ["203.0.113.11", "2001:db8:113::11"]},
        ],
        "agent": {
            "routingMode": variant.routing,
            "socketLB": variant.socket_lb,
            "loadBalancerMode": variant.mode,
            "loadBalancerAlgorithm": variant.algorithm,
            "loadBalancerAcceleration": variant.acceleration,
        },
    });
    let clients = NODES.iter().zip(CLIENTS).map(|(node, client)| {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": client.trim_start_matches("base/"), "namespace": "base"},
            "spec": {"nodeName": node, "containers": [{"name": "c"}]},
        })
    });
    let name = format!("svc-{}", variant.name.replace('_', "-"));
    let lab = Lab::up_with_config(&name, &config.to_string(), &list(clients));
    let set = format!("echo {FEW_PORTS} >/proc/sys/net/ipv4/ip_local_port_range");
    for client in CLIENTS {
        lab.text(&["exec", client, "--", "sh", "-c", &set]);
    }
    lab
}

impl Ground<'_> {
    /// A name in the row's namespace.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }

    /// The reference of a service of the row.
    pub(crate) fn svc(&self, name: &str) -> String {
        format!("svc:{}", self.own(name))
    }

    pub(crate) fn apply(&self, objects: impl IntoIterator<Item = Value>) {
        self.lab.apply(&self.manifest(objects));
    }

    /// Applies and returns what the lab says against it.
    pub(crate) fn apply_in_vain(&self, objects: impl IntoIterator<Item = Value>) -> String {
        let manifest = self.manifest(objects);
        let output = self.lab.run_with_input(&["apply", "-f", "-"], &manifest);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words}");
        words
    }

    pub(crate) fn delete(&self, kind: &str, name: &str) {
        self.lab.delete(&self.manifest([bare(kind, name)]));
    }

    /// Deletes a pod without waiting for its end.
    pub(crate) fn let_go(&self, pod: &str) {
        let manifest = self.manifest([bare("Pod", pod)]);
        self.lab.delete_with(&["--no-wait"], &manifest);
        self.settle();
    }

    /// Waits until what has been published is realized.
    pub(crate) fn settle(&self) {
        self.lab.apply(&list([]));
    }

    fn manifest(&self, objects: impl IntoIterator<Item = Value>) -> String {
        list(objects.into_iter().map(|mut object| {
            if object["kind"] != "Node" {
                object["metadata"]["namespace"] = json!(self.namespace);
            }
            object
        }))
    }

    fn clear(&self) {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace},
        });
        // A row may have made nothing.
        self.lab
            .run_with_input(&["delete", "-f", "-"], &namespace.to_string());
    }

    pub(crate) fn service(&self, name: &str) -> Value {
        self.lab
            .json(&["get", "service", name, "-n", &self.namespace, "-o", "json"])
    }

    /// The node port of a service's port by its place.
    pub(crate) fn node_port(&self, name: &str, place: usize) -> u64 {
        self.service(name)["spec"]["ports"][place]["nodePort"]
            .as_u64()
            .unwrap()
    }

    /// The cluster IP of a family.
    pub(crate) fn vip(&self, name: &str, family: u8) -> String {
        let service = self.service(name);
        of_family(&service["spec"]["clusterIPs"], family)
    }

    /// The address of a family that the load balancer has given.
    pub(crate) fn ingress(&self, name: &str, family: u8) -> String {
        let service = self.service(name);
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
        let ips: Vec<Value> = ingress.unwrap().iter().map(|i| i["ip"].clone()).collect();
        of_family(&ips.into(), family)
    }

    /// The address of a pod.
    pub(crate) fn pod_ip(&self, namespaced: &str, family: u8) -> String {
        let (namespace, name) = namespaced.split_once('/').unwrap();
        let pod = self.lab.pod(namespace, name);
        let ips = pod["status"]["podIPs"].as_array().unwrap();
        let ips: Vec<Value> = ips.iter().map(|entry| entry["ip"].clone()).collect();
        of_family(&ips.into(), family)
    }

    /// Sends all probes at once.
    pub(crate) fn send(&self, asks: &[Ask]) -> Vec<Value> {
        let requests: Vec<Value> = asks.iter().map(|ask| ask.0.clone()).collect();
        let answers = self.lab.probe_batch(&requests);
        assert_eq!(answers.len(), requests.len());
        answers
    }

    /// All probes are answered; returns the answers.
    pub(crate) fn answered(&self, asks: impl IntoIterator<Item = Ask>) -> Vec<Value> {
        self.each(asks, "an answer", |answer| answer["allowed"] == true)
    }

    /// All probes are answered, and together by exactly these pods of the row.
    pub(crate) fn answered_by(&self, pods: &[&str], asks: impl IntoIterator<Item = Ask>) {
        let answers = self.answered(asks);
        let seen: BTreeSet<String> = answers.iter().flat_map(peers).collect();
        let expected: BTreeSet<String> = pods.iter().map(|pod| self.own(pod)).collect();
        assert_eq!(seen, expected, "who answered");
    }

    /// All probes are refused at once: by a reset, an ICMP message or the socket itself.
    pub(crate) fn refused(&self, asks: impl IntoIterator<Item = Ask>) {
        self.each(asks, "a refusal", |answer| {
            matches!(answer["outcome"].as_str(), Some("refused" | "unreachable"))
        });
    }

    /// Nothing at all comes back.
    pub(crate) fn silent(&self, asks: impl IntoIterator<Item = Ask>) {
        let asks = asks.into_iter().map(|ask| ask.within(700));
        self.each(asks, "silence", |answer| answer["outcome"] == "timeout");
    }

    /// Refused or silent, but not answered.
    pub(crate) fn unanswered(&self, asks: impl IntoIterator<Item = Ask>) {
        let asks = asks.into_iter().map(|ask| ask.within(700));
        self.each(asks, "no answer", |answer| answer["allowed"] == false);
    }

    fn each(
        &self,
        asks: impl IntoIterator<Item = Ask>,
        expected: &str,
        good: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let asks: Vec<Ask> = asks.into_iter().collect();
        let answers = self.send(&asks);
        let wrong: Vec<String> = asks
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| !good(answer))
            .map(|(ask, answer)| format!("{} -> {answer}", ask.0))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} of {} without {expected}:\n{}",
            wrong.len(),
            asks.len(),
            wrong.join("\n")
        );
        answers
    }

    /// Runs a command on a node.
    pub(crate) fn on_node(&self, node: &str, command: &[&str]) -> String {
        self.lab.text(&[&["node", node, "--"], command].concat())
    }
}

fn bare(kind: &str, name: &str) -> Value {
    let version = match kind {
        "EndpointSlice" => "discovery.k8s.io/v1",
        _ => "v1",
    };
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}})
}

fn of_family(addresses: &Value, family: u8) -> String {
    let all = addresses.as_array().unwrap().iter();
    let mut own = all.filter_map(Value::as_str);
    own.find(|address| address.contains(':') == (family == 6))
        .unwrap_or_else(|| panic!("no IPv{family} address in {addresses}"))
        .to_owned()
}

/// Tries again until it holds, and says what does not after that time.
pub(crate) fn eventually(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
