// SPDX-License-Identifier: Apache-2.0
//! The whole source against a server that does what API servers do: it answers, hangs up, forgets old
//! versions and is away for a while.

mod server;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_model::{Change, Given, NodePods, PolicyRef, Uid, World};

use self::server::Server;
use super::*;

/// Longer than every pause between attempts taken together.
const PATIENCE: Duration = Duration::from_mins(1);

fn pod(name: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "managedFields": [{"manager": "x"}]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        "status": {"podIP": address},
    })
}

fn node() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn announcement(address: &str) -> Announcement {
    let given = Given {
        uid: Uid::new("u").unwrap(),
        addresses: vec![address.parse().unwrap()],
    };
    Announcement {
        pods: NodePods {
            node: node(),
            pods: [("shop/new".parse().unwrap(), given)].into(),
        },
        node_uid: Uid::new("of-node").ok(),
    }
}

/// What a reader of the source knows.
struct Reader {
    told: Receiver<Told>,
    world: World,
    health: ApiHealth,
    announcing: Option<Announcing>,
    batches: usize,
    watcher: ApiWatcher,
}

impl Reader {
    fn new(access: &ApiAccess) -> Self {
        let (sender, told) = channel();
        let watcher = ApiWatcher::start(access, node(), move |one| {
            let _ = sender.send(one);
        })
        .unwrap();
        Self {
            told,
            world: World::default(),
            health: ApiHealth::default(),
            announcing: None,
            batches: 0,
            watcher,
        }
    }

    fn wait(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.told.recv_timeout(left) {
                Ok(Told::Objects(Ok(batch))) => {
                    self.batches += 1;
                    for change in batch.changes {
                        self.world.apply(change);
                    }
                }
                Ok(Told::Objects(Err(error))) => assert_eq!(self.batches, 0, "{error}"),
                Ok(Told::Health(health)) => self.health = health,
                Ok(Told::Announcing(how)) => self.announcing = Some(how),
                Err(error) => panic!("{what}: {error}: {:?}, {:?}", self.pods(), self.health),
            }
        }
    }

    fn pods(&self) -> Vec<String> {
        let pods = self.world.pods();
        pods.map(|pod| format!("{} {:?}", pod.reference.name, pod.addresses))
            .collect()
    }
}

#[test]
fn a_server_may_go_and_come_and_forget() {
    let server = Server::start();
    server.put("pods", pod("a", "10.0.0.1"));
    server.put("pods", pod("b", "10.0.0.2"));
    let access = server.access();
    let mut reader = Reader::new(&access);
    reader.wait("the first list", |reader| reader.batches > 0);
    assert_eq!(reader.pods(), ["a [10.0.0.1]", "b [10.0.0.2]"]);
    reader.wait("health", |reader| reader.health.message.starts_with("v9 "));
    assert!(reader.health.healthy);
    let message = &reader.health.message;
    assert!(
        message.ends_with("7 kinds watched, no NetworkLogging there"),
        "{message}"
    );

    server.put("pods", pod("a", "10.0.0.11"));
    reader.wait("an event", |reader| reader.pods()[0] == "a [10.0.0.11]");

    // The connections break, and no event is missed.
    server.hang_up();
    server.put("pods", pod("c", "10.0.0.3"));
    reader.wait("an event after a new connection", |reader| {
        reader.pods().len() == 3
    });

    server.set_away(true);
    reader.wait("the health line", |reader| !reader.health.healthy);
    let message = &reader.health.message;
    assert!(
        message.starts_with("no contact with http://127.0.0.1:"),
        "{message}"
    );
    assert!(message.contains("forwarding goes on"), "{message}");
    assert_eq!(reader.pods().len(), 3, "what is known stays");
    // Somebody takes over an address, and the server forgets how that came about.
    server.remove("pods", "b");
    server.put("pods", pod("d", "10.0.0.2"));
    server.forget();
    let batches = reader.batches;
    server.set_away(false);
    reader.wait("the new list", |reader| reader.batches > batches);
    assert_eq!(
        reader.pods(),
        ["a [10.0.0.11]", "c [10.0.0.3]", "d [10.0.0.2]"]
    );
    reader.wait("health", |reader| reader.health.healthy);
}

#[test]
fn without_a_server_it_is_said_why_and_nothing_is_told() {
    let server = Server::start();
    let access = server.access();
    server.set_away(true);
    let (sender, told) = channel();
    let _watcher = ApiWatcher::start(&access, node(), move |one| {
        let _ = sender.send(one);
    })
    .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match told.recv_timeout(left).unwrap() {
            Told::Objects(Err(error)) => {
                assert!(
                    error.to_string().contains("has not told its objects yet"),
                    "{error}"
                );
                return;
            }
            Told::Objects(Ok(batch)) => panic!("{batch:?}"),
            Told::Health(health) => assert!(!health.synced, "{health:?}"),
            Told::Announcing(how) => panic!("{how:?}"),
        }
    }
}

#[test]
fn what_is_left_out_of_a_list_is_told_as_gone() {
    let server = Server::start();
    server.put("pods", pod("a", "10.0.0.1"));
    let mut reader = Reader::new(&server.access());
    reader.wait("the first list", |reader| reader.batches > 0);
    server.put("namespaces", json!({"metadata": {"name": "shop"}}));
    reader.wait("another kind", |reader| {
        reader
            .world
            .clone()
            .apply(Change::NamespaceGone("shop".parse().unwrap()))
    });
    server.remove("pods", "a");
    reader.wait("an event", |reader| reader.pods().is_empty());
}

#[test]
fn what_is_announced_is_known_to_every_reader_until_the_server_goes() {
    let server = Server::start();
    let mut new = pod("new", "");
    new["metadata"]["uid"] = json!("u");
    server.put("pods", new);
    let (mut reader, writer) = {
        let of_node = Reader::new(&server.access());
        let writer = of_node.watcher.writer();
        let reader = Reader::new(&server.access());
        (reader, (of_node, writer))
    };
    let (mut of_node, writer) = writer;
    reader.wait("the first list", |reader| reader.batches > 0);
    assert_eq!(reader.pods(), ["new []"]);
    let accepting = writer.announce(announcement("10.0.0.1"));
    assert!(accepted(accepting, PATIENCE));
    reader.wait("its address", |reader| reader.pods() == ["new [10.0.0.1]"]);
    let written = server.objects("nodepods").remove(0);
    let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "of-node"});
    assert_eq!(written["metadata"]["ownerReferences"], json!([owner]));
    of_node.wait("health", |one| {
        one.announcing.as_ref().is_some_and(|how| how.healthy)
    });

    // What was announced last is written when the server is back, however often it was tried before.
    server.set_away(true);
    for last in 2..9 {
        writer.announce(announcement(&format!("10.0.0.{last}")));
    }
    of_node.wait("bad health", |one| {
        one.announcing.as_ref().is_some_and(|how| !how.healthy)
    });
    let message = of_node.announcing.clone().unwrap().message;
    assert!(
        message.starts_with("addresses of 1 new pods wait ("),
        "{message}"
    );
    server.set_away(false);
    of_node.wait("health again", |one| {
        one.announcing.as_ref().is_some_and(|how| how.healthy)
    });
    reader.wait("the last address", |reader| {
        reader.pods() == ["new [10.0.0.8]"]
    });
}

/// Whether the server has it within a time.
fn accepted(accepting: Accepting, within: Duration) -> bool {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(accepting.wait(within))
}

#[test]
fn who_announces_can_wait_until_the_server_has_it() {
    let server = Server::start();
    let reader = Reader::new(&server.access());
    let writer = reader.watcher.writer();
    server.set_slow(true);
    let first = writer.announce(announcement("10.0.0.1"));
    let second = writer.announce(announcement("10.0.0.2"));
    assert!(!accepted(first.clone(), Duration::from_millis(50)));
    assert_eq!(server.objects("nodepods"), [Value::Null; 0]);
    server.set_slow(false);
    for one in [second, first] {
        assert!(accepted(one, PATIENCE));
        let written = server.objects("nodepods").remove(0).to_string();
        assert!(written.contains("10.0.0.2"), "{written}");
    }
}

#[test]
fn nobody_waits_for_a_server_that_is_away_or_knows_no_announcements() {
    let server = Server::start();
    let reader = Reader::new(&server.access());
    let writer = reader.watcher.writer();
    let waits = |address: &str| {
        let since = Instant::now();
        let accepting = writer.announce(announcement(address));
        (accepted(accepting, PATIENCE), since.elapsed())
    };
    assert!(waits("10.0.0.1").0);
    server.set_away(true);
    // It may be a matter of a moment.
    let (is_accepted, took) = waits("10.0.0.2");
    assert!(!is_accepted && took >= Duration::from_secs(1) && took < PATIENCE);
    let (is_accepted, took) = waits("10.0.0.3");
    assert!(!is_accepted && took < Duration::from_secs(1), "{took:?}");
    server.set_away(false);
    let deadline = Instant::now() + PATIENCE;
    while !waits("10.0.0.4").0 {
        assert!(Instant::now() < deadline);
        thread::park_timeout(Duration::from_millis(20));
    }

    server.set_unknown(&["networkloggings", "nodepods"]);
    let (is_accepted, took) = waits("10.0.0.5");
    assert!(!is_accepted && took < PATIENCE, "{took:?}");
}

#[test]
fn a_server_without_the_definition_is_no_failure() {
    let server = Server::start();
    server.set_unknown(&["networkloggings", "nodepods"]);
    let mut reader = Reader::new(&server.access());
    reader.wait("the first list", |reader| reader.batches > 0);
    reader.watcher.writer().announce(announcement("10.0.0.1"));
    reader.wait("health", |reader| reader.announcing.is_some());
    let how = reader.announcing.clone().unwrap();
    assert!(
        how.healthy && how.message.starts_with("no nodepods.weir.dev there"),
        "{how:?}"
    );
    assert_eq!(server.objects("nodepods"), [Value::Null; 0]);
}

#[test]
fn a_definition_may_be_deleted_while_it_is_watched() {
    let server = Server::start();
    server.set_unknown(&[]);
    let mut reader = Reader::new(&server.access());
    reader.wait("all kinds", |reader| {
        reader.health.message.ends_with("8 kinds watched")
    });
    server.set_unknown(&["networkloggings"]);
    reader.wait("health without the kind", |reader| {
        reader.health.healthy && reader.health.message.contains("no NetworkLogging there")
    });
}

#[test]
fn a_remark_becomes_one_event_of_the_object() {
    let server = Server::start();
    let policy =
        json!({"metadata": {"name": "p", "namespace": "shop", "uid": "up", "generation": 3}});
    server.put("networkpolicies", policy);
    let nodes = [Reader::new(&server.access()), Reader::new(&server.access())];
    let remark = |name: &str, note: &str| Remark {
        about: About::NetworkPolicy(PolicyRef::new("shop", name).unwrap()),
        reason: Reason::PolicyNotEnforced,
        note: note.to_owned(),
    };
    for node in &nodes {
        let writer = node.watcher.writer();
        writer.remark(remark("p", "wrong"));
        writer.remark(remark("gone", "wrong"));
        writer.remark(remark("p", "wrong"));
        writer.remark(remark("p", "last"));
    }
    let deadline = Instant::now() + PATIENCE;
    let events = loop {
        let events = server.objects("events");
        if events.iter().any(|event| event["note"] == "last") {
            break events;
        }
        assert!(Instant::now() < deadline, "{events:?}");
        thread::park_timeout(Duration::from_millis(20));
    };
    let notes: Vec<_> = events
        .iter()
        .map(|event| event["note"].as_str().unwrap())
        .collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    let first = events
        .iter()
        .find(|event| event["note"] == "wrong")
        .unwrap();
    assert_eq!(first["regarding"]["uid"], "up");
    assert_eq!(first["regarding"]["kind"], "NetworkPolicy");
    assert_eq!(first["reportingInstance"], "n1");
    assert_eq!(first["reason"], "PolicyNotEnforced");
    drop(nodes);
}
