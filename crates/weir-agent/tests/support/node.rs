// SPDX-License-Identifier: Apache-2.0
//! A whole agent on a node of its own: a thread in fresh network and mount namespaces with a BPF file system.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use clap::Parser;
use weir_api::endpoint::{Endpoint, EndpointCreated, EndpointRequest};
use weir_api::status::Status;
use weir_api::{Client, ClientError, path};
use weir_datapath::{Maps, PinRoot};
use weir_net::netns::{Namespace, enter_new};
use weir_net::{LinkChange, Netlink, Veth, mount};

pub(crate) const OBJECTS: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/29, 'fd00:244:1::/64']}
status: {addresses: [{type: InternalIP, address: 172.18.0.2}, {type: InternalIP, address: 'fd00:18::2'}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDRs: [10.244.2.0/24, 'fd00:244:2::/64']}
status: {addresses: [{type: InternalIP, address: 172.18.0.3}, {type: InternalIP, address: 'fd00:18::3'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n2, containers: [{name: c}]}
status: {podIP: 10.244.2.7}
";

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    args: weir_agent::Args,
}

/// Namespaces that pods live in: each is held by a thread.
pub(crate) struct Pod {
    pub(crate) netns: String,
    _hold: std::sync::mpsc::Sender<()>,
}

pub(crate) fn pod() -> Pod {
    let (hold, held): (_, Receiver<()>) = channel();
    let (tell, told) = channel();
    thread::spawn(move || {
        enter_new(&[Namespace::Network]).unwrap();
        // The link in /proc names the thread, whose namespace differs from that of its process.
        let own = fs::read_link("/proc/thread-self").unwrap();
        tell.send(format!("/proc/{}/ns/net", own.display()))
            .unwrap();
        let _ = held.recv();
    });
    Pod {
        netns: told.recv().unwrap(),
        _hold: hold,
    }
}

pub(crate) struct Node {
    pub(crate) home: tempfile::TempDir,
    pub(crate) client: Client,
    /// Where its agent translates sockets.
    pub(crate) cgroup: PathBuf,
}

impl Node {
    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("weir.sock")
    }

    /// The command line of this node's agent.
    pub(crate) fn words(&self, flags: &[&str]) -> Vec<String> {
        let at = |name: &str| self.home.path().join(name).display().to_string();
        let mut words = vec![
            "agent".to_owned(),
            format!("--node-name={}", "n1"),
            format!("--objects={}", at("objects")),
            format!("--socket={}", at("weir.sock")),
            format!("--state={}", at("state")),
            format!("--policy-log={}", at("policy_action.log")),
            format!("--cgroup-root={}", self.cgroup.display()),
            "--map-sizes=flows=4096,ipcache=1024,endpoints=64".to_owned(),
            "--metrics-address=none".to_owned(),
        ];
        if let Some(object) = env::var_os("WEIR_BPF_OBJECT") {
            words.push(format!("--bpf-object={}", object.display()));
        }
        words.extend(flags.iter().map(|flag| (*flag).to_owned()));
        words
    }

    pub(crate) fn wait_for_agent(&self) {
        wait("the agent", || {
            let status = self.client.get::<Status>(path::STATUS);
            status.is_ok_and(|status| status.revision == 1)
        });
    }

    pub(crate) fn status(&self) -> Status {
        self.client.get(path::STATUS).unwrap()
    }

    pub(crate) fn create(
        &self,
        pod: &Pod,
        change: impl FnOnce(&mut EndpointRequest),
    ) -> Result<EndpointCreated, ClientError> {
        let mut request = EndpointRequest {
            container_id: "c1".to_owned(),
            netns: pod.netns.clone(),
            interface: "eth0".to_owned(),
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            uid: None,
            requested_addresses: Vec::new(),
        };
        change(&mut request);
        self.client.put(path::ENDPOINTS, &request)
    }

    pub(crate) fn refused(&self, pod: &Pod, change: impl FnOnce(&mut EndpointRequest)) -> String {
        match self.create(pod, change) {
            Err(ClientError::Refused { problem, .. }) => problem.error,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub(crate) fn endpoint(&self, reference: &str) -> Endpoint {
        self.client
            .get(&format!("{}/{reference}", path::ENDPOINTS))
            .unwrap()
    }

    /// Publishes objects and waits until they are realized.
    pub(crate) fn publish(&self, revision: u64, objects: &str) {
        let folder = self.home.path().join("objects");
        fs::write(folder.join("all.new"), objects).unwrap();
        fs::rename(folder.join("all.new"), folder.join("all.yaml")).unwrap();
        fs::write(folder.join("revision.new"), revision.to_string()).unwrap();
        fs::rename(folder.join("revision.new"), folder.join("revision")).unwrap();
        wait("the revision", || self.status().revision == revision);
    }
}

pub(crate) fn pinned_maps() -> Maps {
    Maps::open(&PinRoot::new("/sys/fs/bpf/weir")).unwrap()
}

pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let (_keep, never) = channel::<()>();
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        let _ = never.recv_timeout(Duration::from_millis(50));
    }
}

/// A cgroup of the test's own: programs at the machine's would meet the sockets of everybody.
pub(crate) fn cgroup() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("weir-agent-test-{}-{number}", std::process::id());
    let path = weir_net::cgroup::mount_point().unwrap().join(name);
    fs::create_dir(&path).unwrap();
    path
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// The underlay: a device with the node's addresses and default routes.
fn underlay() {
    let mut netlink = Netlink::open().unwrap();
    let veth = Veth {
        name: "eth0",
        mac: None,
        peer_name: "wire",
        peer_mac: None,
        peer_namespace: None,
        mtu: Some(1500),
    };
    let (link, _) = netlink.ensure_veth(&veth).unwrap();
    for index in [link.index, netlink.require_link("wire").unwrap().index] {
        netlink.change_link(index, &LinkChange::up()).unwrap();
    }
    for (address, gateway) in [
        ("172.18.0.2/24", "172.18.0.1"),
        ("fd00:18::2/64", "fd00:18::1"),
    ] {
        netlink
            .ensure_address(link.index, address.parse().unwrap())
            .unwrap();
        let all = if gateway.contains(':') {
            "::/0"
        } else {
            "0.0.0.0/0"
        };
        let route =
            weir_net::Route::via(all.parse().unwrap(), gateway.parse().unwrap(), link.index);
        netlink.ensure_route(&route).unwrap();
    }
}

/// Runs a test beside an agent, or says why it cannot.
pub(crate) fn with_agent(test: impl FnOnce(&Node) + Send + 'static) {
    with_agent_and(&[], test);
}

/// The same with more flags.
pub(crate) fn with_agent_and(flags: &'static [&str], test: impl FnOnce(&Node) + Send + 'static) {
    with_node(move |node| {
        let words = node.words(flags);
        // Threads take the namespaces of the thread that starts them.
        thread::spawn(move || run_agent(words));
        node.wait_for_agent();
        test(node);
    });
}

/// Runs an agent with these words, in the namespaces of the calling thread.
pub(crate) fn run_agent(words: Vec<String>) -> Result<(), weir_agent::AgentError> {
    weir_agent::run(Program::parse_from(words).args)
}

/// Runs a test on a node that has no agent yet.
pub(crate) fn with_node(test: impl FnOnce(&Node) + Send + 'static) {
    let done = thread::spawn(|| {
        let possible = enter_new(&[Namespace::Network, Namespace::Mount])
            .and_then(|()| mount::bpffs(Path::new("/sys/fs/bpf")));
        if let Err(error) = possible {
            assert!(
                env::var_os("WEIR_REQUIRE_KERNEL").is_none(),
                "root is needed: {error}"
            );
            return;
        }
        if weir_datapath::embedded_object().is_err() && env::var_os("WEIR_BPF_OBJECT").is_none() {
            assert!(
                env::var_os("WEIR_REQUIRE_KERNEL").is_none(),
                "the eBPF object is needed"
            );
            return;
        }
        underlay();
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("objects")).unwrap();
        fs::write(home.path().join("objects/all.yaml"), OBJECTS).unwrap();
        fs::write(home.path().join("objects/revision"), "1").unwrap();
        let client = Client::new(home.path().join("weir.sock"));
        let cgroup = cgroup();
        test(&Node {
            home,
            client,
            cgroup,
        });
    });
    if let Err(panic) = done.join() {
        std::panic::resume_unwind(panic);
    }
}
