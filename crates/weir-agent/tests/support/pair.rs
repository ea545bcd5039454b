// SPDX-License-Identifier: Apache-2.0
//! Two nodes with an agent each, on one cable, and the API server of their cluster on the first.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::{env, fs, thread};

use serde_json::{Value, json};
use weir_api::Client;
use weir_api::endpoint::{EndpointCreated, EndpointRequest};
use weir_api::path;
use weir_api::status::Status;
use weir_datapath::{Maps, PinRoot};
use weir_net::netns::{Namespace, enter_new};
use weir_net::{LinkChange, NetNamespace, Netlink, Veth, mount};

use super::control_plane::ControlPlane;
use super::node::{Pod, cgroup, wait};

/// Has this test's executable be an agent; the words of its command line, one in each line.
pub(crate) const AGENT_WORDS: &str = "WEIR_AGENT_TEST_WORDS";

const DEFINITION: &str = include_str!("../../../../deploy/crds/nodepods.yaml");
const SERVER: &str = "172.18.0.2";
/// Name, addresses and pod ranges, wide enough for a thousand pods that come and go.
const NODES: [(&str, [&str; 2], [&str; 2]); 2] = [
    (
        "n1",
        ["172.18.0.2", "fd00:18::2"],
        ["10.244.0.0/20", "fd00:244:1::/64"],
    ),
    (
        "n2",
        ["172.18.0.3", "fd00:18::3"],
        ["10.244.64.0/18", "fd00:244:2::/64"],
    ),
];

type Job = Box<dyn FnOnce() + Send>;

/// A node: a thread in namespaces of its own, its folder, and its agent once that runs.
pub(crate) struct Machine {
    name: &'static str,
    home: tempfile::TempDir,
    cgroup: PathBuf,
    jobs: Sender<Job>,
    pub(crate) client: Client,
    agent: Option<Child>,
}

pub(crate) struct Pair {
    pub(crate) nodes: [Machine; 2],
    pub(crate) plane: ControlPlane,
}

impl Machine {
    fn new(name: &'static str) -> Self {
        let (jobs, given) = channel::<Job>();
        thread::spawn(move || {
            for job in given {
                job();
            }
        });
        let home = tempfile::tempdir().unwrap();
        Self {
            name,
            client: Client::new(home.path().join("weir.sock")),
            home,
            cgroup: cgroup(),
            jobs,
            agent: None,
        }
    }

    /// Does something on the node.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let job = Box::new(move || drop(tell.send(work())));
        self.jobs.send(job).unwrap();
        told.recv().expect("the work on the node ends well")
    }

    fn namespace(&self) -> NetNamespace {
        self.run(|| NetNamespace::current().unwrap())
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Bytes of memory that its agent holds.
    pub(crate) fn resident(&self) -> u64 {
        let agent = self.agent.as_ref().unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kilobytes = line.split_whitespace().nth(1).unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    /// Starts it and waits until it has realized the cluster's objects.
    pub(crate) fn start_agent(&mut self, plane: &ControlPlane) {
        let at = |name: &str| self.home.path().join(name).display().to_string();
        let mut words = vec![
            "agent".to_owned(),
            format!("--node-name={}", self.name),
            format!("--kubeconfig={}", plane.kubeconfig().display()),
            format!("--socket={}", at("weir.sock")),
            format!("--state={}", at("state")),
            format!("--policy-log={}", at("policy_action.log")),
            format!("--cgroup-root={}", self.cgroup.display()),
            "--metrics-address=none".to_owned(),
        ];
        if let Some(object) = env::var_os("WEIR_BPF_OBJECT") {
            words.push(format!("--bpf-object={}", object.display()));
        }
        let logs = env::var_os("WEIR_TEST_LOGS").map(PathBuf::from);
        let logs = logs.unwrap_or_else(|| self.home.path().to_owned());
        let log = fs::File::create(logs.join(format!("{}.log", self.name))).unwrap();
        let program = env::var_os("WEIR_TEST_PROGRAM").map(PathBuf::from);
        self.agent = Some(self.run(move || {
            let mut command = match program {
                Some(program) => {
                    let mut command = start(&program);
                    command.args(words);
                    command
                }
                None => {
                    let mut command = start(&env::current_exe().unwrap());
                    command.args(["--exact", "kernel::agent_process", "--nocapture"]);
                    command.env(AGENT_WORDS, words.join("\n"));
                    command
                }
            };
            command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
        }));
        wait("the agent", || {
            let status = self.client.get::<Status>(path::STATUS);
            status.is_ok_and(|status| status.revision > 0)
        });
    }

    pub(crate) fn maps(&self) -> Maps {
        self.run(|| Maps::open(&PinRoot::new("/sys/fs/bpf/weir")).unwrap())
    }

    pub(crate) fn add(&self, name: &str, uid: &str, pod: &Pod) -> EndpointCreated {
        let request = EndpointRequest {
            container_id: name.to_owned(),
            netns: pod.netns.clone(),
            interface: "eth0".to_owned(),
            namespace: "default".to_owned(),
            pod: name.to_owned(),
            uid: Some(uid.to_owned()),
            requested_addresses: Vec::new(),
        };
        self.client.put(path::ENDPOINTS, &request).unwrap()
    }

    pub(crate) fn delete(&self, name: &str) {
        let path = format!("{}/{name}?interface=eth0", path::ENDPOINTS);
        self.client.delete(&path).unwrap();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_agent();
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// Runs a test on the first node, where the API server is, or says why it cannot.
pub(crate) fn with_pair(test: impl FnOnce(Pair) + Send + 'static) {
    if env::var_os("KUBEBUILDER_ASSETS").is_none() {
        eprintln!("nothing done: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver");
        return;
    }
    // Threads take the namespaces of the thread that starts them.
    let done = thread::spawn(|| {
        if let Err(error) = new_node() {
            assert!(
                env::var_os("WEIR_REQUIRE_KERNEL").is_none(),
                "root is needed: {error}"
            );
            return;
        }
        test(Pair::start());
    });
    if let Err(panic) = done.join() {
        std::panic::resume_unwind(panic);
    }
}

fn new_node() -> weir_net::Result<()> {
    enter_new(&[Namespace::Network, Namespace::Mount])?;
    mount::bpffs(std::path::Path::new("/sys/fs/bpf"))
}

impl Pair {
    fn start() -> Self {
        let mut nodes = NODES.map(|(name, ..)| Machine::new(name));
        nodes[1].run(|| new_node().unwrap());
        connect(&nodes);
        let plane = ControlPlane::start_at(SERVER).expect("its programs are named");
        plane.define(DEFINITION, "/apis/weir.dev/v1alpha1/nodepods");
        plane.post(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        );
        for (name, addresses, ranges) in NODES {
            plane.post(
                "/api/v1/nodes",
                &json!({
                    "metadata": {"name": name}, "spec": {"podCIDRs": ranges, "podCIDR": ranges[0]},
                }),
            );
            let addresses = addresses.map(|one| json!({"type": "InternalIP", "address": one}));
            let status = json!({"status": {"addresses": addresses}});
            plane.patch(&format!("/api/v1/nodes/{name}/status"), &status);
        }
        for node in &mut nodes {
            node.start_agent(&plane);
        }
        Self { nodes, plane }
    }

    /// Makes a pod object on a node; its UID.
    pub(crate) fn object(&self, name: &str, app: &str, node: usize) -> String {
        let object = self.plane.post(
            PODS,
            &json!({
                "metadata": {"name": name, "labels": {"app": app}},
                "spec": {"nodeName": NODES[node].0, "containers": [{"name": "c", "image": "none"}],
                         "automountServiceAccountToken": false},
            }),
        );
        object["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// The pods that a node announces.
    pub(crate) fn announced(&self, node: usize) -> Vec<Value> {
        let name = NODES[node].0;
        let all = self.plane.get("/apis/weir.dev/v1alpha1/nodepods");
        let items = all["items"].as_array().unwrap();
        let own = items.iter().find(|one| one["metadata"]["name"] == name);
        own.map_or_else(Vec::new, |own| own["pods"].as_array().unwrap().clone())
    }
}

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";

/// A cable between the nodes, their addresses, and default routes, by which agents find the underlay.
fn connect(nodes: &[Machine; 2]) {
    let second = nodes[1].namespace();
    nodes[0].run(move || {
        let mut netlink = Netlink::open().unwrap();
        let cable = Veth {
            name: "eth0",
            mac: None,
            peer_name: "eth0",
            peer_mac: None,
            peer_namespace: Some(&second),
            mtu: Some(1500),
        };
        netlink.create_veth(&cable).unwrap();
    });
    for ((_, addresses, _), (node, (_, gateways, _))) in NODES
        .into_iter()
        .zip(nodes.iter().zip(NODES.into_iter().rev()))
    {
        node.run(move || {
            let mut netlink = Netlink::open().unwrap();
            for name in ["lo", "eth0"] {
                let index = netlink.require_link(name).unwrap().index;
                netlink.change_link(index, &LinkChange::up()).unwrap();
            }
            let link = netlink.require_link("eth0").unwrap().index;
            for (address, gateway) in addresses.into_iter().zip(gateways) {
                let (length, all) = if address.contains(':') {
                    (64, "::/0")
                } else {
                    (24, "0.0.0.0/0")
                };
                let address = format!("{address}/{length}").parse().unwrap();
                netlink.ensure_address(link, address).unwrap();
                let route =
                    weir_net::Route::via(all.parse().unwrap(), gateway.parse().unwrap(), link);
                netlink.ensure_route(&route).unwrap();
            }
        });
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "agents of two nodes are processes of their own"
)]
fn start(program: &std::path::Path) -> Command {
    Command::new(program)
}
