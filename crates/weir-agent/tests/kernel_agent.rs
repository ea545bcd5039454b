// SPDX-License-Identifier: Apache-2.0
//! Endpoints, the node's network and hostile requests, with a whole agent.

#[cfg(test)]
#[path = "support/node.rs"]
mod node;

#[cfg(test)]
mod kernel {
    use std::fs;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use weir_abi::ipcache::PrefixKey;
    use weir_abi::{Address, EndpointRow};
    use weir_api::endpoint::{Endpoint, EndpointRequest, EndpointState, Regenerated};
    use weir_api::kernel::MapEntry;
    use weir_api::{ClientError, path};
    use weir_net::{LinkChange, NetNamespace, Netlink};

    use super::node::{OBJECTS, pinned_maps, pod, wait, with_agent, with_agent_and};

    #[test]
    fn an_endpoint_comes_is_repaired_and_goes() {
        with_agent(|node| {
            let web = pod();
            let made = node.create(&web, |_| {}).unwrap();
            assert_eq!(
                made,
                node.create(&web, |_| {}).unwrap(),
                "creation is idempotent"
            );
            assert_eq!(made.addresses.len(), 2);
            assert_eq!(made.mtu, 1450);
            for reference in [
                "shop/web",
                "shop%2Fweb",
                "pod-name:shop:web",
                "container-id:c1",
                "ipv4:10.244.1.1",
            ] {
                let endpoint = node.endpoint(reference);
                assert_eq!(
                    (endpoint.id, endpoint.status.state),
                    (made.id, EndpointState::Ready)
                );
                assert_eq!(endpoint.status.named_ports.get("http").unwrap(), "80/TCP");
            }
            let mut inside = Netlink::open_in(&NetNamespace::open(&web.netns).unwrap()).unwrap();
            let inside_addresses = inside.addresses().unwrap();
            assert!(
                made.addresses
                    .iter()
                    .all(|ip| inside_addresses.iter().any(|a| a.ip() == *ip))
            );

            // Rows that somebody deletes, changes or adds by hand.
            let maps = pinned_maps();
            let address = Address::from_v4([10, 244, 1, 1]);
            let row = maps.endpoints.get(&address).unwrap().unwrap();
            let behind = PrefixKey::host(Address::from_v4([10, 244, 2, 7]));
            let right = maps.ipcache.get(&behind).unwrap().unwrap();
            assert!(maps.endpoints.delete(&address).unwrap());
            // Not one that would pass for a service's: that would be told twice, as missing and as foreign.
            let flags = weir_abi::ipcache::flags::POD_RANGE;
            let wrong = weir_abi::ipcache::IpcacheRow { flags, ..right };
            maps.ipcache.upsert(&behind, &wrong).unwrap();
            maps.endpoints
                .upsert(&Address::from_v4([9, 9, 9, 9]), &EndpointRow::default())
                .unwrap();
            let damaged: Vec<MapEntry> = node.client.get("/v1/kernel/maps/endpoints").unwrap();
            let state = |key: &str| {
                damaged
                    .iter()
                    .find(|one| one.key == key)
                    .unwrap()
                    .state
                    .clone()
            };
            assert_eq!(
                (state("10.244.1.1"), state("9.9.9.9")),
                ("missing".into(), "foreign".into())
            );
            let since = Instant::now();
            wait("the repair", || {
                maps.endpoints.get(&address).unwrap() == Some(row)
                    && maps.ipcache.get(&behind).unwrap() == Some(right)
                    && maps
                        .endpoints
                        .get(&Address::from_v4([9, 9, 9, 9]))
                        .unwrap()
                        .is_none()
            });
            assert!(since.elapsed() < Duration::from_secs(10));
            assert_eq!(node.status().repairs, 3);

            maps.endpoints.delete(&address).unwrap();
            let again: Regenerated = node
                .client
                .post("/v1/endpoints/shop%2Fweb/regenerate")
                .unwrap();
            assert_eq!(again.repaired.len(), 1, "{again:?}");

            node.client.delete("/v1/endpoints/c1").unwrap();
            let second = |request: &mut EndpointRequest| request.container_id = "c2".to_owned();
            node.create(&web, second)
                .expect("the namespace is free at once");
            node.client.delete("/v1/endpoints/c2").unwrap();
            node.client.delete("/v1/endpoints/c1").unwrap();
            assert!(maps.endpoints.get(&address).unwrap().is_none());
            wait("the link to go", || {
                let link = Netlink::open().unwrap().link(&made.interface);
                link.unwrap().is_none()
            });
            assert_eq!(
                node.client.get::<Vec<Endpoint>>(path::ENDPOINTS).unwrap(),
                []
            );
        });
    }

    #[test]
    fn what_cannot_be_is_refused_and_leaves_nothing_behind() {
        with_agent(|node| {
            type Edit = fn(&mut EndpointRequest);
            let web = pod();
            let cases: [(Edit, &str); 9] = [
                (|r| r.container_id = "a/b".to_owned(), "containerId"),
                (|r| r.container_id = "x".repeat(200), "containerId"),
                (
                    |r| r.interface = "a name that is too long".to_owned(),
                    "interface",
                ),
                (|r| r.interface = "lo".to_owned(), "interface"),
                (|r| r.pod = "x".repeat(254), "at most 253 bytes"),
                (|r| r.netns = "/proc/1/comm".to_owned(), "network namespace"),
                (|r| r.netns = "/nonexistent".to_owned(), "network namespace"),
                (
                    |r| r.requested_addresses = vec!["10.9.9.9".parse().unwrap()],
                    "in none of this node's pod ranges",
                ),
                (
                    |r| r.requested_addresses = vec!["10.244.1.2".parse().unwrap(); 2],
                    "stands there twice",
                ),
            ];
            for (change, words) in cases {
                let error = node.refused(&web, change);
                assert!(error.contains(words), "{words}: {error}");
            }
            node.create(&web, |request| {
                request.requested_addresses = vec!["10.244.1.3".parse().unwrap()];
            })
            .unwrap();
            let other = pod();
            let error = node.refused(&other, |request| {
                request.container_id = "c2".to_owned();
                request.pod = "cli".to_owned();
                request.requested_addresses = vec!["10.244.1.3".parse().unwrap()];
            });
            assert!(error.ends_with("is in use by pod shop/web"), "{error}");
            // A /29 has six addresses; the seventh pod finds none.
            let pods: Vec<_> = (0..6).map(|_| pod()).collect();
            let mut full = String::new();
            for (number, pod) in pods.iter().enumerate() {
                let made = node.create(pod, |request| {
                    request.container_id = format!("many{number}");
                    request.pod = format!("many{number}");
                });
                if let Err(ClientError::Refused { problem, .. }) = made {
                    full = problem.error;
                }
            }
            assert!(
                full.contains("every address of 10.244.1.0/29 is in use"),
                "{full}"
            );
            assert_eq!(node.status().ipam[0].used, 6);
            drop(pods);
            wait("the endpoints of dead namespaces to go", || {
                node.status().endpoints.total == 1
            });
            assert_eq!(pinned_maps().endpoints.count().unwrap(), 1);
        });
    }

    #[test]
    fn the_world_is_followed_and_bad_objects_are_named() {
        with_agent(|node| {
            let web = pod();
            node.create(&web, |_| {}).unwrap();
            let thief = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: thief, namespace: shop}\n\
                         spec: {nodeName: n2, containers: [{name: c}]}\nstatus: {podIP: 10.244.2.7}\n\
                         ---\napiVersion: v1\nkind: Pod\nmetadata: {name: Bad}\nspec: {containers: []}\n---\n{{{\n";
            node.publish(
                2,
                &format!("{}{thief}", OBJECTS.replace("app: web", "app: changed")),
            );
            let status = node.status();
            assert!(!status.healthy);
            let message = |name: &str| {
                status
                    .subsystems
                    .iter()
                    .find(|one| one.name == name)
                    .unwrap()
                    .message
                    .clone()
            };
            assert!(
                message("world").contains("pod shop/thief claims address 10.244.2.7"),
                "{}",
                message("world")
            );
            assert!(
                message("source").contains("Pod Bad: metadata.name"),
                "{}",
                message("source")
            );
            assert!(
                message("source").contains("not YAML"),
                "{}",
                message("source")
            );
            let labels = node.endpoint("shop/web").status.identity.labels;
            assert!(labels.contains(&"k8s:app=changed".to_owned()), "{labels:?}");
            node.publish(3, OBJECTS);
            assert!(node.status().healthy, "{:?}", node.status().subsystems);
        });
    }

    #[test]
    fn native_mode_has_routes_and_the_whole_mtu() {
        with_agent_and(&["--routing-mode=native", "--masquerade=false"], |node| {
            let web = pod();
            assert_eq!(node.create(&web, |_| {}).unwrap().mtu, 1500);
            let mut netlink = Netlink::open().unwrap();
            let routes = netlink.routes(weir_net::Family::V4).unwrap();
            let remote = routes
                .iter()
                .find(|route| route.destination.to_string() == "10.244.2.0/24");
            assert_eq!(remote.unwrap().gateway, Some("172.18.0.3".parse().unwrap()));
            assert_eq!(pinned_maps().read_back().unwrap().nodes.len(), 0);
            assert_eq!(pinned_maps().masquerade_exempt.keys().unwrap().len(), 0);
            // The node leaves; nothing of it stays.
            let (left, _) = OBJECTS
                .split_once("---\napiVersion: v1\nkind: Node\nmetadata: {name: n2}")
                .unwrap();
            node.publish(2, left);
            let routes = netlink.routes(weir_net::Family::V4).unwrap();
            assert!(
                !routes
                    .iter()
                    .any(|route| route.destination.to_string() == "10.244.2.0/24")
            );
            assert_eq!(node.status().repairs, 0);
        });
    }

    #[test]
    fn addresses_and_ranges_of_nodes_are_followed() {
        with_agent(|node| {
            let ends = || {
                let rows = pinned_maps().read_back().unwrap().nodes;
                let ends = rows
                    .values()
                    .map(|row| format!("{} {}", row.local, row.remote));
                ends.collect::<Vec<_>>()
            };
            let routes = || {
                let routes = Netlink::open()
                    .unwrap()
                    .routes(weir_net::Family::V4)
                    .unwrap();
                let routes = routes.iter().filter_map(|route| {
                    let destination = route.destination.to_string();
                    let source = route.source.map(|source| source.to_string());
                    let ours = destination.starts_with("10.244.");
                    ours.then(|| format!("{destination} {}", source.unwrap_or_default()))
                });
                routes.collect::<std::collections::BTreeSet<_>>()
            };
            let expect = |expected: &[&str]| {
                let expected = expected.iter().map(|one| (*one).to_owned()).collect();
                assert_eq!(routes(), expected);
            };
            let (web, new) = (pod(), pod());
            node.create(&web, |_| {}).unwrap();
            assert_eq!(ends(), ["172.18.0.2 172.18.0.3"]);
            expect(&["10.244.1.0/29 172.18.0.2", "10.244.2.0/24 172.18.0.2"]);

            let moved = OBJECTS
                .replace("172.18.0.3", "172.18.0.33")
                .replace("10.244.2.0/24", "10.244.12.0/24");
            node.publish(2, &moved);
            assert_eq!(ends(), ["172.18.0.2 172.18.0.33"]);
            expect(&["10.244.1.0/29 172.18.0.2", "10.244.12.0/24 172.18.0.2"]);

            // The pod that has an address of the old range keeps it, and is still reached.
            node.publish(3, &OBJECTS.replace("10.244.1.0/29", "10.244.11.0/29"));
            expect(&[
                "10.244.1.1/32 172.18.0.2",
                "10.244.11.0/29 172.18.0.2",
                "10.244.2.0/24 172.18.0.2",
            ]);
            let made = node.create(&new, |one| {
                (one.container_id, one.pod) = ("c2".to_owned(), "new".to_owned());
            });
            let addresses = made.unwrap().addresses;
            assert!(
                addresses.contains(&"10.244.11.1".parse().unwrap()),
                "{addresses:?}"
            );
            node.publish(4, OBJECTS);

            // This node's own address: the kernel takes away every route that names it.
            let mut netlink = Netlink::open().unwrap();
            let eth0 = netlink.require_link("eth0").unwrap().index;
            netlink
                .ensure_address(eth0, "172.18.0.22/25".parse().unwrap())
                .unwrap();
            let old = "172.18.0.2/24".parse().unwrap();
            assert!(netlink.delete_address(eth0, old).unwrap());
            node.publish(5, &OBJECTS.replace("172.18.0.2}", "172.18.0.22}"));
            wait("the routes", || {
                routes().len() == 3 && routes().iter().all(|one| one.ends_with(" 172.18.0.22"))
            });
            wait("the tunnel", || ends() == ["172.18.0.22 172.18.0.3"]);
            wait("health", || node.status().healthy);
        });
    }

    #[test]
    fn pods_follow_the_mtu_of_the_underlay_and_of_the_tunnel() {
        with_agent(|node| {
            let web = pod();
            let made = node.create(&web, |_| {}).unwrap();
            assert_eq!(made.mtu, 1450);
            let mut inside = Netlink::open_in(&NetNamespace::open(&web.netns).unwrap()).unwrap();
            let mut mtu_of_pod = || inside.require_link("eth0").unwrap().mtu;
            // A node that only IPv6 leads to has larger outer headers.
            let six = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n6}\n\
                       status: {addresses: [{type: InternalIP, address: 'fd00:18::6'}]}\n";
            node.publish(2, &format!("{OBJECTS}{six}"));
            wait("the tunnel's MTU", || mtu_of_pod() == 1430);
            let mut netlink = Netlink::open().unwrap();
            let underlay = netlink.require_link("eth0").unwrap();
            netlink
                .change_link(
                    underlay.index,
                    &LinkChange {
                        mtu: Some(1400),
                        ..LinkChange::default()
                    },
                )
                .unwrap();
            wait("the underlay's MTU", || mtu_of_pod() == 1330);
            assert_eq!(node.status().repairs, 0);
        });
    }

    #[test]
    fn random_bytes_on_the_socket_do_no_harm() {
        with_agent(|node| {
            let mode = std::os::unix::fs::PermissionsExt::mode(
                &fs::metadata(node.socket()).unwrap().permissions(),
            );
            assert_eq!(mode & 0o777, 0o660);
            let mut state = 0x2545_f491_4f6c_dd1d_u64;
            let mut random = || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            };
            let starts = [
                "",
                "GET ",
                "PUT /v1/endpoints HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
                "GET /v1/endpoints/%ff%fe HTTP/1.1\r\n\r\n",
                "PUT /v1/endpoints HTTP/1.1\r\nHost: x\r\nContent-Length: 64\r\n\r\n",
                "DELETE /v1/endpoints/../../etc HTTP/1.1\r\nHost: x\r\n\r\n",
                "POST /v1/endpoints/1/regenerate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
            ];
            for round in 0..100 {
                let mut stream = UnixStream::connect(node.socket()).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_millis(20)))
                    .unwrap();
                let start = starts[round % starts.len()];
                let noise: Vec<u8> = (0..(round % 9) * 16).flat_map(|_| random()).collect();
                // The agent may hang up in the middle.
                let _ = stream
                    .write_all(start.as_bytes())
                    .and_then(|()| stream.write_all(&noise));
                let _ = stream.read(&mut [0; 512]);
            }
            let status = node.status();
            assert!(status.healthy, "{:?}", status.subsystems);
            assert_eq!(status.endpoints.total, 0);
            let huge = "x".repeat(200_000);
            let web = pod();
            let error = node.refused(&web, |request| request.netns = huge);
            assert!(
                error.contains("413") || error.contains("length limit"),
                "{error}"
            );
        });
    }
}
