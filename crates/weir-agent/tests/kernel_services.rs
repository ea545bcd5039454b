// SPDX-License-Identifier: Apache-2.0
//! Services and policies: from objects to rows in the kernel, and what the agent says about them.

#[cfg(test)]
#[path = "support/node.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod node;

#[cfg(test)]
mod kernel {
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use weir_abi::service::{
        AffinityKey, AffinityRow, BackendRow, FrontendKey, FrontendRow, ServiceBackendRow,
    };
    use weir_abi::{Address, Port, Protocol};
    use weir_api::endpoint::{EndpointState, Regenerated};
    use weir_api::kernel::MapEntry;
    use weir_api::lb::LbFrontend;
    use weir_api::path;
    use weir_api::policy::{EndpointPolicy, Policies, Selector};
    use weir_api::service::{Service, ServicesCompared};
    use weir_net::{LinkChange, Netlink};

    use super::node::{Node, OBJECTS, pinned_maps, pod, wait, with_agent};

    const SERVICES: &str = "\
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, uid: a}
spec: {type: LoadBalancer, clusterIP: 10.96.0.9, clusterIPs: [10.96.0.9], externalTrafficPolicy: Local, healthCheckNodePort: 32000,
       ports: [{name: http, port: 80, targetPort: 8080, nodePort: 31080}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: shop, uid: b}
spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ports: [{port: 80}]}
";

    const SLICE: &str = "\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.244.2.7], nodeName: n2, conditions: {ready: true}}
";

    const LOCAL: &str = "- {addresses: [10.244.1.1], nodeName: n1, conditions: {ready: true}}\n";

    const POLICY: &str = "\
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 8080}]}]
";

    fn frontend(address: [u8; 4], port: u16) -> FrontendKey {
        FrontendKey::new(Address::from_v4(address), Port::new(port), Protocol::TCP)
    }

    const VIP: [u8; 4] = [10, 96, 0, 9];
    const NODE: [u8; 4] = [172, 18, 0, 2];

    /// Backends of a frontend for clients of this node.
    fn backends(row: &FrontendRow) -> Vec<String> {
        let maps = pinned_maps();
        let places = maps
            .backends
            .places(row.internal.first, row.internal.count)
            .unwrap();
        let text = |row: &BackendRow| format!("{}:{}", row.address, row.port);
        places.iter().map(text).collect()
    }

    fn frontends(node: &Node) -> Vec<LbFrontend> {
        let all = node.client.stream(path::LB_FRONTENDS).unwrap();
        all.map(Result::unwrap).collect()
    }

    #[test]
    fn a_service_becomes_rows_and_its_changes_touch_its_own() {
        with_agent(|node| {
            let web = pod();
            node.create(&web, |_| {}).unwrap();
            node.publish(2, &format!("{OBJECTS}{SERVICES}{SLICE}"));
            let maps = pinned_maps();
            let row = |key| maps.frontends.get(&key).unwrap().unwrap();
            let (inside, outside) = (row(frontend(VIP, 80)), row(frontend(NODE, 31080)));
            assert_eq!(backends(&inside), ["10.244.2.7:8080"]);
            assert_eq!(backends(&outside), ["10.244.2.7:8080"]);
            assert_eq!(outside.external.count, 0, "its only backend is elsewhere");
            let empty = row(frontend([10, 96, 0, 10], 80));
            assert_eq!(empty.internal.count, 0);
            let shown = frontends(node);
            let web = shown.iter().find(|one| one.address == "10.96.0.9:80/TCP");
            assert!(web.unwrap().name.starts_with("shop/web"), "{shown:?}");

            let listed: Vec<Service> = node
                .client
                .stream(path::SERVICES)
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(listed.len(), 3, "{listed:?}");
            let of = |name: &str| {
                let mut all = listed.iter();
                all.find(|one| one.spec.flags.name == name).unwrap()
            };
            assert_eq!(of("web").spec.backend_addresses[0].state, "active");
            assert_eq!(of("web").spec.backend_addresses[0].node_name, "n2");
            let why = of("empty").status.no_backend.as_deref().unwrap();
            assert!(why.contains("no selector"), "{why}");

            // One more endpoint: the rows of the other service stay as they are.
            node.publish(3, &format!("{OBJECTS}{SERVICES}{SLICE}{LOCAL}"));
            let found = backends(&row(frontend(VIP, 80)));
            assert_eq!(found, ["10.244.1.1:8080", "10.244.2.7:8080"]);
            assert_eq!(row(frontend([10, 96, 0, 10], 80)), empty);
            assert_eq!(row(frontend(NODE, 31080)).external.count, 1);

            // A client that sticks to a backend that goes.
            let service = inside.service;
            let client = AffinityKey {
                client: Address::from_v4([10, 0, 0, 1]),
                service,
                reserved: 0,
            };
            let stuck = AffinityRow {
                backend: Address::from_v4([10, 244, 2, 7]),
                port: Port::new(8080),
                ..AffinityRow::default()
            };
            maps.affinity.upsert(&client, &stuck).unwrap();
            let only_local = SLICE.replace(
                "- {addresses: [10.244.2.7], nodeName: n2, conditions: {ready: true}}\n",
                LOCAL,
            );
            node.publish(4, &format!("{OBJECTS}{SERVICES}{only_local}"));
            assert_eq!(backends(&row(frontend(VIP, 80))), ["10.244.1.1:8080"]);
            wait("the client to be freed", || {
                maps.affinity.get(&client).unwrap().is_none()
            });

            // Without services nothing is left.
            node.publish(5, OBJECTS);
            for raw in [
                maps.frontends.raw(),
                maps.service_backends.raw(),
                maps.source_ranges.raw(),
            ] {
                assert_eq!(raw.count().unwrap(), 0, "{}", raw.info().map.name);
            }
            let places = maps.backends.places(0, maps.backends.size()).unwrap();
            assert!(places.iter().all(|row| *row == BackendRow::default()));
        });
    }

    #[test]
    fn rows_of_services_that_somebody_changes_are_told_and_put_right() {
        with_agent(|node| {
            node.publish(2, &format!("{OBJECTS}{SERVICES}{SLICE}"));
            let maps = pinned_maps();
            let damage = || {
                assert!(maps.frontends.delete(&frontend(VIP, 80)).unwrap());
                maps.frontends
                    .upsert(&frontend([9, 9, 9, 9], 9), &FrontendRow::default())
                    .unwrap();
                for (key, _) in maps.service_backends.entries().unwrap() {
                    let row = ServiceBackendRow { flags: 0 };
                    maps.service_backends.upsert(&key, &row).unwrap();
                }
                maps.backends.upsert(&0, &BackendRow::default()).unwrap();
            };
            let right = maps.read_back_services(BTreeSet::default()).unwrap();
            damage();
            let rows: Vec<MapEntry> = node.client.get("/v1/kernel/maps/frontends").unwrap();
            let states: Vec<_> = rows.iter().map(|row| row.state.as_str()).collect();
            assert!(states.contains(&"missing") && states.contains(&"foreign"));
            let found: ServicesCompared = node.client.post(path::SERVICES_COMPARE).unwrap();
            assert!(found.repaired.len() >= 4, "{found:?}");
            assert!(found.failed.is_empty(), "{found:?}");
            assert_eq!((found.services, found.frontends), (2, 3), "{found:?}");
            assert_eq!(maps.read_back_services(BTreeSet::default()).unwrap(), right);
            let again: ServicesCompared = node.client.post(path::SERVICES_COMPARE).unwrap();
            assert!(again.repaired.is_empty(), "{again:?}");

            // The same without anybody asking.
            let before = node.status().repairs;
            damage();
            wait("the repair", || {
                maps.read_back_services(BTreeSet::default()).unwrap() == right
            });
            wait("the report", || node.status().repairs > before);
        });
    }

    fn ask(address: &str) -> Option<String> {
        let mut stream = TcpStream::connect(address).ok()?;
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    #[test]
    fn load_balancers_hear_whether_this_node_has_endpoints() {
        with_agent(|node| {
            let mut netlink = Netlink::open().unwrap();
            let lo = netlink.require_link("lo").unwrap();
            netlink.change_link(lo.index, &LinkChange::up()).unwrap();
            node.publish(2, &format!("{OBJECTS}{SERVICES}{SLICE}"));
            let at = "127.0.0.1:32000";
            let status = |wanted: &str| {
                let start = format!("HTTP/1.1 {wanted}");
                wait("the health check", || {
                    ask(at).is_some_and(|answer| answer.starts_with(&start))
                });
            };
            status("503");
            node.publish(3, &format!("{OBJECTS}{SERVICES}{SLICE}{LOCAL}"));
            status("200");
            node.publish(4, OBJECTS);
            wait("the end of the health check", || ask(at).is_none());
        });
    }

    #[test]
    fn a_policy_becomes_rows_that_are_named_counted_and_repaired() {
        with_agent(|node| {
            let web = pod();
            let made = node.create(&web, |_| {}).unwrap();
            node.publish(2, &format!("{OBJECTS}{POLICY}"));
            let endpoint = node.endpoint("shop/web");
            assert_eq!(endpoint.status.state, EndpointState::Ready);
            let policy = &endpoint.status.policy;
            assert!(policy.ingress_enforced && !policy.egress_enforced);
            assert_ne!(policy.set, 0);
            let maps = pinned_maps();
            let shown = || -> EndpointPolicy {
                let request = format!("{}/shop/web", path::KERNEL_POLICY);
                let mut all: Vec<EndpointPolicy> = node.client.get(&request).unwrap();
                all.swap_remove(0)
            };
            let rows = shown().rows;
            let db = rows
                .iter()
                .find(|row| row.labels.contains(&"k8s:app=db".to_owned()))
                .unwrap();
            assert_eq!(
                (db.port.as_str(), db.action.as_str()),
                ("8080/TCP", "Allow")
            );
            assert_eq!(db.rules[0].to_string(), "shop/web rule 0");
            assert!(rows.iter().all(|row| row.state == "sync"), "{rows:?}");
            assert_eq!(policy.realized, rows);

            let names: Vec<_> = policy
                .ingress_policies
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(names, ["shop/web"]);
            let all: Policies = node.client.get(path::POLICIES).unwrap();
            assert!(all.revision > 0 && all.realized == all.revision);
            let [web] = all.policies.as_slice() else {
                panic!("{all:?}")
            };
            assert_eq!(
                (web.selects.as_slice(), web.selected_pods),
                (&["shop/web".to_owned()][..], 1)
            );
            assert_eq!(web.ingress.rules, ["from pods app=db, port 8080/TCP"]);
            let selectors: Vec<Selector> = node.client.get(path::POLICY_SELECTORS).unwrap();
            assert_eq!(selectors.len(), 2, "{selectors:?}");

            // Somebody deletes what allows it.
            for (key, _) in maps.policy.entries().unwrap() {
                assert!(maps.policy.delete(&key).unwrap());
            }
            assert!(shown().rows.iter().any(|row| row.state == "missing"));
            let request = format!("{}/{}/regenerate", path::ENDPOINTS, made.id);
            let done: Regenerated = node.client.post(&request).unwrap();
            assert!(!done.repaired.is_empty());
            assert_eq!(shown().rows, rows);

            // Without the policy the pod is free and nothing is left.
            node.publish(3, OBJECTS);
            assert!(!node.endpoint("shop/web").status.policy.ingress_enforced);
            assert_eq!(maps.policy.count().unwrap(), 0);
        });
    }
}
