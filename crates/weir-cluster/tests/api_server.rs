// SPDX-License-Identifier: Apache-2.0
//! The source against a real API server and its store, which are killed and made to forget.
//!
//! `KUBEBUILDER_ASSETS` names the folder with `etcd` and `kube-apiserver`; without it the tests say that
//! they did nothing.

#[cfg(test)]
#[path = "support/control_plane.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod control_plane;

#[cfg(test)]
mod against_a_server {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};
    use weir_cluster::api::Told;
    use weir_cluster::{ApiAccess, ApiHealth, ApiWatcher};
    use weir_model::{NodeName, ServiceRef, World};

    use super::control_plane::ControlPlane;

    /// A server takes up to a minute to start where the machine is busy, a watch half of one to try again.
    const PATIENCE: Duration = Duration::from_mins(3);

    /// What a reader of the source knows.
    struct Reader {
        told: Receiver<Told>,
        world: World,
        health: ApiHealth,
        batches: usize,
        /// What was refused last.
        problems: Vec<String>,
        _watcher: ApiWatcher,
    }

    impl Reader {
        fn new(access: &ApiAccess) -> Self {
            let (sender, told) = channel();
            let tell = move |one| drop(sender.send(one));
            Self {
                told,
                world: World::default(),
                health: ApiHealth::default(),
                batches: 0,
                problems: Vec::new(),
                _watcher: ApiWatcher::start(access, NodeName::new("n1").unwrap(), tell).unwrap(),
            }
        }

        fn wait(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
            let begun = Instant::now();
            while !is_so(self) {
                let left = PATIENCE.saturating_sub(begun.elapsed());
                match self.told.recv_timeout(left) {
                    Ok(Told::Objects(Ok(batch))) => {
                        self.batches += 1;
                        self.problems = batch.problems.iter().map(ToString::to_string).collect();
                        for change in batch.changes {
                            self.world.apply(change);
                        }
                    }
                    Ok(Told::Objects(Err(error))) => eprintln!("not yet: {error}"),
                    Ok(Told::Health(health)) => {
                        eprintln!("health: {}", health.message);
                        self.health = health;
                    }
                    Ok(Told::Announcing(how)) => panic!("{how:?}"),
                    Err(error) => panic!("{what}: {error}: {:?}, {:?}", self.pods(), self.health),
                }
            }
            eprintln!("{what} after {:?}", begun.elapsed());
        }

        /// Those of the test; the server has objects of its own.
        fn pods(&self) -> Vec<String> {
            let pods = self.world.pods();
            pods.map(|pod| format!("{} {:?}", pod.reference.name, pod.addresses))
                .collect()
        }
    }

    fn pod(name: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}],
                     "automountServiceAccountToken": false},
        })
    }

    #[test]
    fn servers_are_killed_and_versions_expire() {
        let Some(mut plane) = ControlPlane::start() else {
            eprintln!(
                "nothing done: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver"
            );
            return;
        };
        plane.post(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        );
        let pods = "/api/v1/namespaces/default/pods";
        plane.post("/api/v1/nodes", &json!({
            "metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.1.0.0/24"], "podCIDR": "10.1.0.0/24"},
        }));
        plane.post(pods, &pod("a"));
        plane.post(pods, &pod("b"));
        plane.address(&format!("{pods}/a"), "10.1.0.1");
        plane.post(
            "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies",
            &json!({
                "metadata": {"name": "p"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
            }),
        );
        plane.post("/api/v1/namespaces/default/services", &json!({
            "metadata": {"name": "web"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]},
        }));

        plane.post(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
            &json!({
                "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"]}],
                "ports": [{"port": 80, "protocol": "TCP"}],
            }),
        );

        let mut reader = Reader::new(&plane.access());
        reader.wait("first list", |reader| reader.batches > 0);
        assert_eq!(reader.pods(), ["a [10.1.0.1]", "b []"]);
        assert_eq!(reader.problems, [""; 0]);
        let world = &reader.world;
        assert_eq!((world.nodes().count(), world.policies().count()), (1, 1));
        let web = ServiceRef::new("default", "web").unwrap();
        assert!(world.service(&web).is_some());
        assert_eq!(world.slices_of(&web).len(), 1);
        reader.wait("health", |reader| reader.health.message.starts_with("v1."));
        let message = &reader.health.message;
        assert!(
            message.ends_with("6 kinds watched, no NetworkLogging there, no NodePods there"),
            "{message}"
        );

        plane.address(&format!("{pods}/b"), "10.1.0.2");
        reader.wait("an event", |reader| reader.pods()[1] == "b [10.1.0.2]");
        // A pod that ends is gone for those who watch only the others.
        plane.post(pods, &pod("job"));
        reader.wait("a third pod", |reader| reader.pods().len() == 3);
        plane.patch(
            &format!("{pods}/job/status"),
            &json!({"status": {"phase": "Succeeded"}}),
        );
        reader.wait("its end", |reader| reader.pods().len() == 2);

        // A restart: watches go on where they were.
        plane.kill_server();
        reader.wait("the health line", |reader| !reader.health.healthy);
        assert!(
            reader.health.message.contains("forwarding goes on"),
            "{}",
            reader.health.message
        );
        plane.start_server();
        plane.post(pods, &pod("c"));
        reader.wait("a pod after the restart", |reader| reader.pods().len() == 3);
        reader.wait("health after the restart", |reader| reader.health.healthy);

        // Expired versions: objects change behind the reader's back, and the store forgets how.
        plane.hold_up_reader();
        reader.wait("the health line", |reader| !reader.health.healthy);
        plane.delete(&format!("{pods}/a"));
        plane.address(&format!("{pods}/c"), "10.1.0.1");
        plane.kill_server();
        plane.forget_versions();
        plane.start_server();
        assert_eq!(reader.pods(), ["a [10.1.0.1]", "b [10.1.0.2]", "c []"]);
        let batches = reader.batches;
        plane.let_reader_go();
        reader.wait("the new list", |reader| reader.pods().len() == 2);
        assert_eq!(
            reader.batches,
            batches + 1,
            "what is gone and what is new is told at once"
        );
        assert_eq!(reader.pods(), ["b [10.1.0.2]", "c [10.1.0.1]"]);
        reader.wait("health", |reader| reader.health.healthy);
        assert_eq!(reader.problems, [""; 0]);
    }
}
