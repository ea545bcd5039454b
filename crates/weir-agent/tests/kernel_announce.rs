// SPDX-License-Identifier: Apache-2.0
//! The first packet of a new pod: its node announces the address, and the other node knows it before the
//! pod's status says anything.
//!
//! Two of them measure and are run by name with `--ignored`. `WEIR_ANNOUNCED_PODS` says how many pods connect as soon
//! as a container could run, whatever the other node knows by then (1000), and `WEIR_ANNOUNCED_WAVE` how many of them come
//! at once (40); `WEIR_TEST_PROGRAM` names the `weir` that is measured, rather than this executable, and `WEIR_TEST_LOGS` a
//! folder in which the agents' logs stay (`WEIR_LOG=weir_agent=debug,weir_cluster=debug` says how long every turn took).

#[cfg(test)]
#[path = "../../weir-cluster/tests/support/control_plane.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod control_plane;
#[cfg(test)]
#[path = "support/node.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod node;
#[cfg(test)]
#[path = "support/pair.rs"]
mod pair;

#[cfg(test)]
mod kernel {
    use std::env;
    use std::io;
    use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
    use std::thread;
    use std::time::{Duration, Instant};

    use serde_json::json;
    use weir_abi::ipcache::PrefixKey;
    use weir_abi::{Address, Identity};
    use weir_datapath::Maps;
    use weir_net::NetNamespace;

    use super::node::{Pod, pod, run_agent, wait};
    use super::pair::{AGENT_WORDS, PODS, Pair, with_pair};

    const PORT: u16 = 8080;
    /// From the answer to ADD to the first instruction of a container: no runtime is faster.
    const RUNTIME: Duration = Duration::from_millis(100);
    /// A first packet that is lost is sent again after a second.
    const NO_PACKET_LOST: Duration = Duration::from_millis(950);

    /// No test of its own: the agent as a process.
    #[test]
    fn agent_process() {
        if let Ok(words) = env::var(AGENT_WORDS) {
            let words = words.split('\n').map(str::to_owned).collect();
            run_agent(words).expect("the agent runs");
        }
    }

    fn knows(maps: &Maps, address: IpAddr) -> bool {
        let row = maps.ipcache.get(&PrefixKey::host(Address::from(address)));
        row.unwrap()
            .is_some_and(|row| row.identity >= Identity::FIRST_POD)
    }

    fn connect(from: &Pod, to: SocketAddr) -> io::Result<()> {
        let inside = NetNamespace::open(&from.netns).unwrap();
        let connecting = inside.run_in(|| TcpStream::connect_timeout(&to, NO_PACKET_LOST));
        connecting.unwrap().map(drop)
    }

    /// A pod on the second node that only clients may reach, and that answers.
    fn server(pair: &Pair) -> (Pod, Vec<SocketAddr>) {
        pair.plane.post(
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            &json!({"metadata": {"name": "clients"}, "spec": {
                "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}],
            }}),
        );
        let uid = pair.object("server", "server", 1);
        let server = pod();
        let made = pair.nodes[1].add("server", &uid, &server);
        let inside = NetNamespace::open(&server.netns).unwrap();
        for address in &made.addresses {
            let at = SocketAddr::new(*address, PORT);
            let bound = || {
                let deadline = Instant::now() + Duration::from_secs(10);
                loop {
                    // An IPv6 address is tentative for a moment.
                    match TcpListener::bind(at) {
                        Ok(listener) => return listener,
                        Err(error) => assert!(Instant::now() < deadline, "{at}: {error}"),
                    }
                    thread::park_timeout(Duration::from_millis(20));
                }
            };
            let listener = inside.run_in(bound).unwrap();
            thread::spawn(move || for _ in listener.incoming() {});
        }
        let maps = pair.nodes[0].maps();
        wait("the server's address", || {
            made.addresses.iter().all(|address| knows(&maps, *address))
        });
        let at = |address: &IpAddr| SocketAddr::new(*address, PORT);
        (server, made.addresses.iter().map(at).collect())
    }

    #[test]
    fn a_new_pod_is_known_before_its_status_says_anything() {
        with_pair(|pair| {
            let (_server, places) = server(&pair);
            let maps = pair.nodes[1].maps();

            let client = pod();
            let uid = pair.object("client", "client", 0);
            let made = pair.nodes[0].add("client", &uid, &client);
            // Whoever is answered is announced.
            assert_eq!(pair.announced(0).len(), 1, "{:?}", pair.announced(0));
            wait("the client's addresses", || {
                made.addresses.iter().all(|address| knows(&maps, *address))
            });
            for place in &places {
                connect(&client, *place).unwrap_or_else(|error| panic!("{place}: {error}"));
            }

            // Known, but not meant by the policy.
            let other = pod();
            let uid = pair.object("other", "other", 0);
            let made = pair.nodes[0].add("other", &uid, &other);
            wait("its addresses", || {
                made.addresses.iter().all(|address| knows(&maps, *address))
            });
            assert!(connect(&other, places[0]).is_err());

            // Words of a node about a pod that does not exist (any more) open nothing.
            let forged = pod();
            pair.object("forged", "client", 0);
            let made = pair.nodes[0].add("forged", "of-a-pod-before", &forged);
            wait("the announcement", || pair.announced(0).len() == 3);
            // What was announced after it has been taken in.
            let last = pod();
            let uid = pair.object("last", "client", 0);
            let of_last = pair.nodes[0].add("last", &uid, &last);
            wait("a later announcement", || {
                of_last
                    .addresses
                    .iter()
                    .all(|address| knows(&maps, *address))
            });
            assert!(!knows(&maps, made.addresses[0]));
            assert!(connect(&forged, places[0]).is_err());

            for name in ["client", "other", "forged", "last"] {
                pair.nodes[0].delete(name);
            }
            wait("the announcement to be withdrawn", || {
                pair.announced(0).is_empty()
            });
            wait("the addresses to be forgotten", || {
                !of_last
                    .addresses
                    .iter()
                    .any(|address| knows(&maps, *address))
            });
            // Somebody else's hands: the node says it again.
            let uid = pair.object("again", "client", 0);
            let again = pod();
            pair.nodes[0].add("again", &uid, &again);
            wait("an announcement", || pair.announced(0).len() == 1);
            pair.plane.delete("/apis/weir.dev/v1alpha1/nodepods/n1");
            wait("it to be repeated", || pair.announced(0).len() == 1);
        });
    }

    #[test]
    fn who_asks_why_finds_an_event() {
        with_pair(|pair| {
            pair.object("broken", "client", 0);
            let refused = pair.nodes[0].client.put::<_, serde_json::Value>(
                weir_api::path::ENDPOINTS,
                &json!({"containerId": "c", "netns": "/nowhere", "interface": "eth0",
                    "namespace": "default", "pod": "broken"}),
            );
            assert!(refused.is_err());
            // The server takes it, the kernel's rows do not.
            let ports: Vec<_> = (1..5000).map(|half| json!({"port": 2 * half})).collect();
            pair.plane.post(
                "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
                &json!({"metadata": {"name": "wide"}, "spec": {
                    "podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}],
                }}),
            );
            // A pod on each node, so that both have something to say.
            let pods = [pod(), pod()];
            for (node, pod) in pods.iter().enumerate() {
                let name = format!("on{node}");
                let uid = pair.object(&name, "client", node);
                pair.nodes[node].add(&name, &uid, pod);
            }
            let events = || {
                let all = pair
                    .plane
                    .get("/apis/events.k8s.io/v1/namespaces/default/events");
                all["items"].as_array().unwrap().clone()
            };
            let about = |kind: &str, name: &str| {
                let mut events = events();
                events.retain(|one| {
                    one["regarding"]["kind"] == kind && one["regarding"]["name"] == name
                });
                events
            };
            wait("the pod's event", || !about("Pod", "broken").is_empty());
            wait("the policy's event", || {
                !about("NetworkPolicy", "wide").is_empty()
            });
            let of_pod = about("Pod", "broken").remove(0);
            assert_eq!(of_pod["reason"], "NetworkNotReady");
            assert_eq!(of_pod["reportingInstance"], "n1");
            assert!(
                of_pod["note"].as_str().unwrap().contains("/nowhere"),
                "{of_pod}"
            );
            wait("that of the other node", || {
                about("NetworkPolicy", "wide").len() == 2
            });
            for event in about("NetworkPolicy", "wide") {
                assert_eq!(event["reason"], "PolicyNotEnforced");
                let note = event["note"].as_str().unwrap();
                assert!(note.contains("at most 128 fit: pods default/on"), "{note}");
            }
        });
    }

    /// What happened to one pod.
    struct Measured {
        add: Duration,
        /// From the answer to ADD until the other node knew every address.
        known: Option<Duration>,
        connected: io::Result<()>,
    }

    /// Looks at the other node's map for pods that were just added.
    fn look(maps: &Maps, asked: &Receiver<(Vec<IpAddr>, Instant, Sender<Duration>)>) {
        let mut waiting = Vec::new();
        loop {
            match asked.try_recv() {
                Ok(one) => waiting.push(one),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => thread::park_timeout(Duration::from_micros(500)),
            }
            waiting.retain(|(addresses, since, tell)| {
                let known = addresses.iter().all(|address| knows(maps, *address));
                if known {
                    let _ = tell.send(since.elapsed());
                }
                !known
            });
        }
    }

    /// Objects alone, no kubelets: what an agent makes of a large cluster.
    #[test]
    #[ignore = "measures, and takes minutes"]
    fn how_much_a_large_cluster_costs() {
        with_pair(|mut pair| {
            let (pods, services) = (10_000, 5_000);
            let address =
                |number: usize| format!("10.244.{}.{}", 64 + number / 250, number % 250 + 1);
            let pod = |number: usize| {
                (
                    PODS.to_owned(),
                    json!({
                        "metadata": {"name": format!("p{number}"), "labels": {"app": format!("a{}", number / 10)}},
                        "spec": {"nodeName": "n2", "automountServiceAccountToken": false, "containers": [
                            {"name": "c", "image": "none", "ports": [{"name": "http", "containerPort": 8080}]}]},
                    }),
                )
            };
            let status = |number: usize| {
                let ip = address(number);
                let path = format!("{PODS}/p{number}/status");
                (
                    path,
                    json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"}}),
                )
            };
            let service = |number: usize| {
                let path = "/api/v1/namespaces/default/services".to_owned();
                let ports = json!([{"port": 80, "targetPort": 8080}]);
                (
                    path,
                    json!({"metadata": {"name": format!("s{number}")}, "spec": {"ports": ports}}),
                )
            };
            let slice = |number: usize| {
                let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices".to_owned();
                let name = format!("s{number}");
                let backends = [address(2 * number), address(2 * number + 1)]
                    .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}));
                (
                    path,
                    json!({
                        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
                        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}], "endpoints": backends,
                    }),
                )
            };
            pair.nodes[0].kill_agent();
            pair.plane
                .send_all("POST", &(0..pods).map(pod).collect::<Vec<_>>());
            pair.plane
                .send_all("PATCH", &(0..pods).map(status).collect::<Vec<_>>());
            pair.plane
                .send_all("POST", &(0..services).map(service).collect::<Vec<_>>());
            pair.plane
                .send_all("POST", &(0..services).map(slice).collect::<Vec<_>>());
            println!(
                "the agent that saw all of it come: {} MB",
                pair.nodes[1].resident() >> 20
            );
            for what in ["cold", "again"] {
                let since = Instant::now();
                pair.nodes[0].start_agent(&pair.plane);
                let maps = pair.nodes[0].maps();
                let last: IpAddr = address(pods - 1).parse().unwrap();
                wait("the last pod", || knows(&maps, last));
                println!(
                    "{what}: ready after {:?}, {} MB",
                    since.elapsed(),
                    pair.nodes[0].resident() >> 20
                );
                if what == "cold" {
                    pair.nodes[0].kill_agent();
                }
            }
            // A new pod in the midst of all that.
            let (_server, places) = server(&pair);
            let uid = pair.object("client", "client", 0);
            let client = super::node::pod();
            let made = pair.nodes[0].add("client", &uid, &client);
            let (since, maps) = (Instant::now(), pair.nodes[1].maps());
            wait("the client's address", || knows(&maps, made.addresses[0]));
            println!("a new pod is known after {:?} at most", since.elapsed());
            connect(&client, places[0]).unwrap();
            println!(
                "at last: {} MB, {} MB",
                pair.nodes[0].resident() >> 20,
                pair.nodes[1].resident() >> 20
            );
        });
    }

    #[test]
    #[ignore = "measures, and takes minutes"]
    fn how_long_it_takes() {
        let number = |name: &str| env::var(name).ok().map(|text| text.parse().unwrap());
        let count: usize = number("WEIR_ANNOUNCED_PODS").unwrap_or(1000);
        let at_once: usize = number("WEIR_ANNOUNCED_WAVE").unwrap_or(40);
        with_pair(move |pair| {
            let (_server, places) = server(&pair);
            let maps = pair.nodes[1].maps();
            let (ask, asked) = channel();
            thread::spawn(move || look(&maps, &asked));
            let mut all = Vec::new();
            for first in (0..count).step_by(at_once) {
                let names: Vec<_> = (first..count.min(first + at_once))
                    .map(|number| format!("p{number}"))
                    .collect();
                let wave: Vec<_> = names
                    .iter()
                    .map(|name| (name, pair.object(name, "client", 0), pod()))
                    .collect();
                let measured: Vec<Measured> = thread::scope(|scope| {
                    let place = &places[0];
                    let started: Vec<_> = wave
                        .iter()
                        .map(|(name, uid, pod)| {
                            let (node, ask) = (&pair.nodes[0], ask.clone());
                            scope.spawn(move || {
                                let begun = Instant::now();
                                let made = node.add(name, uid, pod);
                                let (add, answered) = (begun.elapsed(), Instant::now());
                                let (tell, told) = channel();
                                ask.send((made.addresses, answered, tell)).unwrap();
                                while answered.elapsed() < RUNTIME {
                                    thread::park_timeout(
                                        RUNTIME.saturating_sub(answered.elapsed()),
                                    );
                                }
                                let connected = connect(pod, *place);
                                let known = told.recv_timeout(Duration::from_secs(10)).ok();
                                Measured {
                                    add,
                                    known,
                                    connected,
                                }
                            })
                        })
                        .collect();
                    started.into_iter().map(|one| one.join().unwrap()).collect()
                });
                all.extend(measured);
                for name in &names {
                    pair.nodes[0].delete(name);
                    pair.plane.delete(&format!("{PODS}/{name}"));
                }
            }
            let show = |what: &str, mut took: Vec<Duration>| {
                took.sort();
                let at = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
                println!(
                    "{what}: p50 {:?}, p99 {:?}, most {:?}",
                    at(50),
                    at(99),
                    at(100)
                );
            };
            show("ADD", all.iter().map(|one| one.add).collect());
            show(
                "from the answer to known",
                all.iter().filter_map(|one| one.known).collect(),
            );
            let lost = all.iter().filter(|one| one.connected.is_err()).count();
            let unknown = all.iter().filter(|one| one.known.is_none()).count();
            println!(
                "{} pods, first packets lost: {lost}, never known: {unknown}",
                all.len()
            );
            for (number, one) in all.iter().enumerate() {
                if one.connected.is_ok() {
                    continue;
                }
                println!(
                    "lost: pod {number}, known after {:?}, {:?}",
                    one.known, one.connected
                );
            }
            for node in &pair.nodes {
                let metrics = node.client.text(weir_api::path::METRICS).unwrap();
                let dropped = metrics
                    .lines()
                    .filter(|line| line.contains("drop_count") && !line.starts_with('#'));
                println!("{}", dropped.collect::<Vec<_>>().join("\n"));
            }
            assert_eq!((lost, unknown), (0, 0));
            wait("the announcements to be withdrawn", || {
                pair.announced(0).is_empty()
            });
        });
    }
}
