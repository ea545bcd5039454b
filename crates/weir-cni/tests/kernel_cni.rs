// SPDX-License-Identifier: Apache-2.0
//! The plugin as a runtime starts it, against a real agent and real network namespaces.

#[cfg(test)]
#[path = "../../weir-agent/tests/support/node.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod node;
#[cfg(test)]
#[path = "support/runtime.rs"]
mod runtime;

#[cfg(test)]
mod kernel {
    use std::collections::BTreeSet;
    use std::fs;
    use std::net::{IpAddr, TcpListener, TcpStream};
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use serde_json::json;
    use weir_abi::Address;
    use weir_api::endpoint::{Endpoint, EndpointState};
    use weir_api::path;
    use weir_net::{NetNamespace, Netlink};

    use super::node::{Node, OBJECTS, Pod, pinned_maps, pod, run_agent, wait, with_node};
    use super::runtime::{AGENT_WORDS, Agent, Ran, Runtime};

    const FLAGS: &[&str] = &["--map-sizes=endpoints=1024"];

    /// A node with room for as many pods as Kubernetes puts on one.
    fn with_wide_node(test: impl FnOnce(&Node) + Send + 'static) {
        with_node(|node| {
            let objects = OBJECTS.replace("10.244.1.0/29", "10.244.1.0/24");
            fs::write(node.home.path().join("objects/all.yaml"), objects).unwrap();
            test(node);
        });
    }

    /// No test of its own: the agent as a process that the tests below start and kill.
    #[test]
    fn agent_process() {
        if let Ok(words) = std::env::var(AGENT_WORDS) {
            let words = words.split('\n').map(str::to_owned).collect();
            run_agent(words).expect("the agent runs");
        }
    }

    fn web(node: &Node, container: &str, pod: &Pod) -> Runtime {
        Runtime::new(&node.socket(), container, "web", &pod.netns)
    }

    fn addresses(ran: &Ran) -> Vec<IpAddr> {
        let ips = ran.json["ips"].as_array().expect("a result has addresses");
        let address = |ip: &serde_json::Value| {
            let text = ip["address"].as_str().unwrap();
            text.split_once('/').unwrap().0.parse().unwrap()
        };
        ips.iter().map(address).collect()
    }

    fn endpoints(node: &Node) -> Vec<Endpoint> {
        node.client.get(path::ENDPOINTS).unwrap()
    }

    fn pod_links() -> Vec<String> {
        let links = Netlink::open().unwrap().links().unwrap();
        let names = links.into_iter().map(|link| link.name);
        names
            .filter(|name| name.starts_with("weir") && !name.starts_with("weir_"))
            .collect()
    }

    /// Nothing of any pod is left: no link, no row, no address, no file.
    fn nothing_is_left(node: &Node) {
        wait("the links to go", || pod_links().is_empty());
        assert_eq!(endpoints(node), []);
        assert_eq!(pinned_maps().read_back().unwrap().endpoints.len(), 0);
        assert!(node.status().ipam.iter().all(|pool| pool.used == 0));
        let state = node.home.path().join("state/endpoints");
        assert_eq!(fs::read_dir(state).unwrap().count(), 0);
    }

    /// The pod speaks with its node, in both families.
    fn reaches_the_node(pod: &Pod) {
        for address in ["172.18.0.2:0", "[fd00:18::2]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let to = listener.local_addr().unwrap();
            let inside = NetNamespace::open(&pod.netns).unwrap();
            let connected =
                inside.run_in(|| TcpStream::connect_timeout(&to, Duration::from_secs(5)).map(drop));
            connected
                .unwrap()
                .unwrap_or_else(|error| panic!("{to}: {error}"));
        }
    }

    #[test]
    fn a_pod_comes_is_checked_and_goes() {
        with_wide_node(|node| {
            let _agent = Agent::start(node, FLAGS);
            let pod = pod();
            let runtime = web(node, "c1", &pod);
            assert_eq!(runtime.run("STATUS").code(), None);
            let added = runtime.run("ADD").fine();
            assert_eq!(added.json["cniVersion"], "1.1.0");
            assert_eq!(added.json["interfaces"][1]["name"], "eth0");
            assert_eq!(added.json["interfaces"][1]["sandbox"], json!(pod.netns));
            assert_eq!(
                added.json["routes"][0],
                json!({"dst": "0.0.0.0/0", "gw": "169.254.1.1"})
            );
            let ips = addresses(&added);
            assert_eq!(ips.len(), 2, "{:?}", added.json);
            for ip in &ips {
                let row = pinned_maps().endpoints.get(&Address::from(*ip)).unwrap();
                assert!(row.is_some(), "no row for {ip}");
            }
            let state = node.endpoint("shop/web").status.state;
            assert_eq!(state, EndpointState::Ready);
            reaches_the_node(&pod);

            let again = runtime.run("ADD").fine();
            assert_eq!(again.json, added.json);

            let with_result = runtime.clone().with("prevResult", added.json.clone());
            with_result.run("CHECK").fine();
            let mut other = added.json.clone();
            other["ips"][0]["address"] = json!("10.244.1.77/32");
            let ran = runtime.clone().with("prevResult", other).run("CHECK");
            assert_eq!(ran.code(), Some(102));
            assert!(ran.message().contains("10.244.1.77"), "{:?}", ran.json);
            let mut inside = Netlink::open_in(&NetNamespace::open(&pod.netns).unwrap()).unwrap();
            let eth0 = inside.require_link("eth0").unwrap();
            let prefix = format!("{}/32", ips[0]).parse().unwrap();
            assert!(inside.delete_address(eth0.index, prefix).unwrap());
            let ran = with_result.run("CHECK");
            assert_eq!(ran.code(), Some(102));
            assert!(ran.message().contains("is missing"), "{:?}", ran.json);

            let other_interface = runtime.clone().interface("net1");
            other_interface.run("DEL").fine();
            assert_eq!(
                endpoints(node).len(),
                1,
                "another interface of the container"
            );
            for _ in 0..2 {
                runtime.run("DEL").fine();
                nothing_is_left(node);
            }
            assert_eq!(with_result.run("CHECK").code(), Some(3));
            Runtime::new(&node.socket(), "c1", "web", "")
                .run("DEL")
                .fine();
        });
    }

    #[test]
    fn the_agent_installs_the_plugin_that_then_runs() {
        with_wide_node(|node| {
            let (bin, conf) = (node.home.path().join("bin"), node.home.path().join("net.d"));
            let at = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
            let flags = [
                at("cni-bin-dir", &bin),
                at("cni-conf-dir", &conf),
                at("cni-plugin", Path::new(env!("CARGO_BIN_EXE_weir-cni"))),
            ];
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            let agent = Agent::start(node, &flags);
            let list = conf.join("05-weir.conflist");
            wait("the configuration", || list.exists());
            let status = node.status();
            let part = status.subsystems.iter().find(|one| one.name == "cni");
            assert!(part.is_some_and(|part| part.healthy), "{part:?}");
            let list: serde_json::Value =
                serde_json::from_str(&fs::read_to_string(&list).unwrap()).unwrap();
            let installed = &list["plugins"][0];
            let plugin = bin.join(installed["type"].as_str().unwrap());

            let pod = pod();
            let runtime = web(node, "c1", &pod)
                .program(&plugin)
                .with("socket", installed["socket"].clone());
            let version = runtime.run("VERSION").fine();
            assert_eq!(version.json["supportedVersions"][3], "1.1.0");
            runtime.run("ADD").fine();
            agent.kill();
            let words = node.words(&[flags[1], "--remove-cni"]);
            run_agent(words).unwrap();
            assert_eq!(fs::read_dir(&conf).unwrap().count(), 0);
            let _agent = Agent::start(node, FLAGS);
            runtime.run("DEL").fine();
            nothing_is_left(node);
        });
    }

    #[test]
    fn a_killed_agent_is_waited_for_and_nothing_is_forgotten() {
        with_wide_node(|node| {
            let agent = Agent::start(node, FLAGS);
            let (first, second) = (pod(), pod());
            let before = web(node, "c1", &first).run("ADD").fine();
            web(node, "gone", &second).run("ADD").fine();
            web(node, "gone", &second).run("DEL").fine();
            let rested = 2;
            agent.kill();

            // Nobody is there: a clear answer in the time that was given.
            let since = Instant::now();
            let impatient = web(node, "c2", &second).with("timeoutSeconds", json!(1));
            let ran = impatient.run("ADD");
            assert_eq!(ran.code(), Some(11), "{:?}", ran.json);
            assert!(
                ran.json["details"]
                    .as_str()
                    .unwrap()
                    .contains("is the agent running")
            );
            assert_eq!(impatient.run("STATUS").code(), Some(50));
            assert_eq!(impatient.run("DEL").code(), Some(11));
            assert!(
                since.elapsed() < Duration::from_secs(15),
                "{:?}",
                since.elapsed()
            );

            // An ADD that comes before the agent does.
            let waiting = web(node, "c2", &second);
            let adding = thread::spawn(move || waiting.run("ADD"));
            wait("the plugin to wait", || {
                since.elapsed() > Duration::from_secs(1)
            });
            let agent = Agent::start(node, FLAGS);
            let added = adding.join().unwrap().fine();
            let (old, new) = (addresses(&before), addresses(&added));
            assert!(
                old.iter().all(|address| !new.contains(address)),
                "{old:?} {new:?}"
            );
            let third: IpAddr = format!("10.244.1.{}", rested + 1).parse().unwrap();
            assert_eq!(new[0], third, "an address that rests was given again");
            assert_eq!(web(node, "c1", &first).run("ADD").fine().json, before.json);
            reaches_the_node(&first);
            reaches_the_node(&second);

            // Killed in the midst of many: each is made once, or made by the one who asks again.
            let more: Vec<_> = (0..12).map(|_| pod()).collect();
            let runtimes: Vec<_> = more
                .iter()
                .enumerate()
                .map(|(number, pod)| web(node, &format!("m{number}"), pod))
                .collect();
            let started: Vec<_> = runtimes
                .iter()
                .cloned()
                .map(|runtime| thread::spawn(move || runtime.run("ADD")))
                .collect();
            wait("the first of them", || pod_links().len() > 5);
            agent.kill();
            let _agent = Agent::start(node, FLAGS);
            let mut given: BTreeSet<_> = old.into_iter().chain(new).collect();
            for one in started {
                for address in addresses(&one.join().unwrap().fine()) {
                    assert!(given.insert(address), "{address} was given twice");
                }
            }
            assert_eq!(pod_links().len(), 14);
            for pod in &more {
                reaches_the_node(pod);
            }

            // GC: only what is listed stays, and one without a list touches nothing.
            let runtime = web(node, "", &first);
            assert_eq!(runtime.run("GC").code(), Some(7));
            let list = json!([{"containerID": "c1", "ifname": "eth0"}]);
            runtime
                .clone()
                .with("cni.dev/valid-attachments", list)
                .run("GC")
                .fine();
            let left = endpoints(node);
            assert_eq!(left.len(), 1);
            assert_eq!(left[0].status.external_identifiers.container_id, "c1");
            reaches_the_node(&first);
            runtime
                .with("cni.dev/valid-attachments", json!(null))
                .run("GC")
                .fine();
            nothing_is_left(node);
        });
    }

    #[test]
    fn a_hundred_and_ten_pods_at_once() {
        with_wide_node(|node| {
            let _agent = Agent::start(node, FLAGS);
            let pods: Vec<_> = (0..110).map(|_| pod()).collect();
            let runtimes: Vec<_> = pods
                .iter()
                .enumerate()
                .map(|(number, pod)| web(node, &format!("c{number}"), pod))
                .collect();
            let all_at_once = |command: &'static str| -> Vec<(Ran, Duration)> {
                let started: Vec<_> = runtimes
                    .iter()
                    .cloned()
                    .map(|runtime| {
                        thread::spawn(move || {
                            let since = Instant::now();
                            (runtime.run(command), since.elapsed())
                        })
                    })
                    .collect();
                started.into_iter().map(|one| one.join().unwrap()).collect()
            };
            let report = |command: &str, ran: &[(Ran, Duration)]| {
                let mut took: Vec<_> = ran.iter().map(|(_, took)| *took).collect();
                took.sort();
                let at = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
                println!(
                    "{command} of {} pods at once: p50 {:?}, p99 {:?}",
                    took.len(),
                    at(50),
                    at(99)
                );
            };
            let added = all_at_once("ADD");
            report("ADD", &added);
            let mut given = BTreeSet::new();
            for (ran, _) in added {
                for address in addresses(&ran.fine()) {
                    assert!(given.insert(address), "{address} was given twice");
                }
            }
            assert_eq!(given.len(), 220);
            assert_eq!(pinned_maps().read_back().unwrap().endpoints.len(), 220);
            assert_eq!(pod_links().len(), 110);
            let since = Instant::now();
            let one = pod();
            let alone = web(node, "alone", &one);
            alone.run("ADD").fine();
            println!("ADD of one more pod: {:?}", since.elapsed());
            alone.run("DEL").fine();
            let removed = all_at_once("DEL");
            report("DEL", &removed);
            for (ran, _) in removed {
                ran.fine();
            }
            nothing_is_left(node);
            assert_eq!(node.status().repairs, 0);
        });
    }
}
