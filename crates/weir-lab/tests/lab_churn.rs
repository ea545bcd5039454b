// SPDX-License-Identifier: Apache-2.0
//! Services and their endpoints change at random while connections are made: none reaches a pod that was not the
//! service's at that moment, none fails where there was a ready one all the time, and at the end the kernel holds what
//! is desired and nothing else.
//!
//! `WEIR_CHURN=1000` makes so many changes instead of a few, `WEIR_CHURN_SEED` the ones of a run before.

#[cfg(test)]
#[path = "services/answer.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod answer;
#[cfg(test)]
#[path = "lab/harness.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod harness;
#[cfg(test)]
#[path = "services/objects.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod objects;

#[cfg(test)]
mod churn {
    use std::collections::{BTreeMap, BTreeSet};
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};
    use std::{env, thread};

    use serde_json::{Value, json};

    use super::answer::peers;
    use super::harness::{Lab, can_run_weir};
    use super::objects::{With as _, list, server, service};

    const NODES: [&str; 2] = ["n1", "n2"];
    const CLIENTS: [&str; 2] = ["c1", "c2"];
    /// Each has a pod of its own that stays.
    const SERVICES: usize = 3;
    const PODS: usize = 8;
    /// A pod that is deleted goes on serving for a second; nobody hurries on a busy machine.
    const ENDING: Duration = Duration::from_secs(5);

    /// Numbers that come out the same for the same seed (the generator of MMIX).
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).unwrap() % limit
        }
    }

    /// What a pod of the churn is at the moment.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Member {
        service: usize,
        ready: bool,
        node: &'static str,
    }

    /// A pod was a backend of a service from one moment to another, which may not have come yet.
    struct Stay {
        service: usize,
        pod: String,
        from: Instant,
        until: Option<Instant>,
        /// It left by its end, during which it goes on with what it has begun.
        ended: bool,
    }

    /// What was seen of a service in a moment.
    struct Sight {
        service: usize,
        /// No connections but datagrams: two sockets with one port, one after the other, are one flow.
        datagrams: bool,
        begin: Instant,
        end: Instant,
        answer: Value,
    }

    fn of(service: usize, object: Value) -> Value {
        object.with("metadata.namespace", "churn").with_in(
            "metadata.labels",
            "app",
            format!("s{service}"),
        )
    }

    /// A pod by its name alone.
    fn bare(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "churn"}})
    }

    fn pod(name: &str, member: Member) -> Value {
        // A pod serves until its service has left it.
        let pod = of(member.service, server(name, member.node)).lingering(1);
        if member.ready { pod } else { pod.unready() }
    }

    fn ask(client: &str, service: usize, family: u8, protocol: &str, count: u32) -> Value {
        json!({"from": format!("churn/{client}"), "to": format!("svc:churn/s{service}"), "port": 80, "family": family,
               "protocol": protocol, "count": count, "interval_ms": 3, "timeout_ms": 10_000})
    }

    struct Churn<'a> {
        lab: &'a Lab,
        dice: Dice,
        members: BTreeMap<String, Member>,
        stays: Vec<Stay>,
    }

    impl Churn<'_> {
        /// Applies what became of a pod, and notes when it came to its service and when it had left it.
        fn turn_into(&mut self, name: &str, new: Option<Member>) {
            let begin = Instant::now();
            let old = match new {
                Some(member) => self.members.insert(name.to_owned(), member),
                None => self.members.remove(name),
            };
            if let Some(member) = new.filter(|member| member.ready) {
                self.stays.push(Stay {
                    service: member.service,
                    pod: format!("churn/{name}"),
                    from: begin,
                    until: None,
                    ended: false,
                });
            }
            match new {
                Some(member) => self.lab.apply(&list([pod(name, member)])),
                None => {
                    self.lab.delete_with(&["--no-wait"], &list([bare(name)]));
                    self.lab.apply(&list([]));
                }
            }
            let same = |stay: &&mut Stay| {
                stay.pod == format!("churn/{name}") && stay.until.is_none() && stay.from != begin
            };
            if old.is_some() {
                for stay in self.stays.iter_mut().filter(same) {
                    stay.until = Some(Instant::now());
                    stay.ended = new.is_none();
                }
            }
        }

        /// One random change of the pods or services.
        fn change(&mut self) {
            let name = format!("p{}", self.dice.below(PODS));
            let service = self.dice.below(SERVICES);
            let now = self.members.get(&name).copied();
            match (now, self.dice.below(8)) {
                (Some(_), 0..=2) => self.turn_into(&name, None),
                (Some(member), 3 | 4) => self.turn_into(
                    &name,
                    Some(Member {
                        ready: !member.ready,
                        ..member
                    }),
                ),
                (Some(member), 5 | 6) => self.turn_into(&name, Some(Member { service, ..member })),
                (None, 0..=6) => {
                    let node = NODES[self.dice.below(2)];
                    // A pod that is still leaving has its name; most often there is none.
                    self.lab
                        .run_with_input(&["delete", "-f", "-"], &list([bare(&name)]));
                    let ready = self.dice.below(4) > 0;
                    self.turn_into(
                        &name,
                        Some(Member {
                            service,
                            ready,
                            node,
                        }),
                    );
                }
                _ => self.lab.apply(&list([self.changed_service(service)])),
            }
        }

        /// The service with another port beside, another affinity or as it was.
        fn changed_service(&mut self, number: usize) -> Value {
            let object = of_service(number);
            match self.dice.below(3) {
                0 => object,
                1 => object.with("spec.sessionAffinity", "ClientIP"),
                _ => object.with(
                    "spec.ports.3",
                    json!({"name": "x", "port": 8000, "targetPort": "http"}),
                ),
            }
        }

        /// What is realized is what answers: exactly ready pods of the service.
        fn check(&self) {
            let asks = (0..SERVICES).flat_map(|service| {
                [("c1", 4, "tcp"), ("c2", 6, "udp")].map(|(client, family, protocol)| {
                    (service, ask(client, service, family, protocol, 6))
                })
            });
            let (services, asks): (Vec<_>, Vec<_>) = asks.unzip();
            for (service, answer) in services.into_iter().zip(self.lab.probe_batch(&asks)) {
                let members = self
                    .members
                    .iter()
                    .filter(|(_, one)| one.service == service && one.ready);
                let mut right: BTreeSet<String> =
                    members.map(|(name, _)| format!("churn/{name}")).collect();
                right.insert(format!("churn/keep{service}"));
                assert!(answer["allowed"] == true, "s{service}: {answer}");
                assert!(
                    peers(&answer).iter().all(|peer| right.contains(peer)),
                    "s{service} has {right:?}: {answer}"
                );
            }
        }

        /// Every answer came from a pod that was the service's within the time of the question.
        fn judge(&self, sights: &[Sight]) {
            for sight in sights {
                let Sight {
                    service,
                    datagrams,
                    begin,
                    end,
                    answer,
                } = sight;
                assert!(answer["allowed"] == true, "s{service}: {answer}");
                for peer in peers(answer) {
                    let was = |stay: &Stay| {
                        let more = if *datagrams && stay.ended {
                            ENDING
                        } else {
                            Duration::ZERO
                        };
                        stay.service == *service
                            && stay.pod == peer
                            && stay.from <= *end
                            && stay.until.is_none_or(|until| until + more >= *begin)
                    };
                    let kept = peer == format!("churn/keep{service}");
                    assert!(
                        kept || self.stays.iter().any(was),
                        "s{service} never had {peer} then: {answer}"
                    );
                }
            }
        }
    }

    fn of_service(number: usize) -> Value {
        let name = format!("s{number}");
        of(number, service(&name)).with_in("spec.selector", "app", name)
    }

    fn all_objects() -> String {
        let clients = NODES.iter().zip(CLIENTS).map(|(node, client)| {
            server(client, node)
                .with("metadata.namespace", "churn")
                .with_in("metadata.labels", "app", "client")
        });
        let keep = (0..SERVICES).map(|number| {
            let member = Member {
                service: number,
                ready: true,
                node: NODES[number % 2],
            };
            pod(&format!("keep{number}"), member)
        });
        list(clients.chain(keep).chain((0..SERVICES).map(of_service)))
    }

    /// Asks all services from both clients in both families and protocols until told to stop.
    fn watch(lab: &Lab, stop: &AtomicBool) -> Vec<Sight> {
        let mut sights = Vec::new();
        let asks: Vec<(usize, Value)> = (0..SERVICES)
            .flat_map(|service| {
                let ways = [
                    ("c1", 4, "tcp"),
                    ("c1", 6, "udp"),
                    ("c2", 6, "tcp"),
                    ("c2", 4, "udp"),
                ];
                ways.map(|(client, family, protocol)| {
                    (service, ask(client, service, family, protocol, 30))
                })
            })
            .collect();
        let requests: Vec<Value> = asks.iter().map(|(_, ask)| ask.clone()).collect();
        while !stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            let answers = lab.probe_batch(&requests);
            let end = Instant::now();
            sights.extend(
                asks.iter()
                    .zip(answers)
                    .map(|((service, ask), answer)| Sight {
                        service: *service,
                        datagrams: ask["protocol"] == "udp",
                        begin,
                        end,
                        answer,
                    }),
            );
        }
        sights
    }

    fn churn(name: &str, agent: &Value) {
        if !can_run_weir() {
            return;
        }
        let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        let changes = number("WEIR_CHURN").unwrap_or(25);
        let seed = number("WEIR_CHURN_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
        println!("WEIR_CHURN={changes} WEIR_CHURN_SEED={seed}");
        let config = json!({"nodes": NODES.map(|name| json!({"name": name})), "agent": agent});
        let lab = Lab::up_with_config(name, &config.to_string(), &all_objects());
        let mut churn = Churn {
            lab: &lab,
            dice: Dice(seed),
            members: BTreeMap::new(),
            stays: Vec::new(),
        };
        let stop = AtomicBool::new(false);
        let sights = thread::scope(|scope| {
            let load = scope.spawn(|| watch(&lab, &stop));
            let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                for _ in 0..changes {
                    churn.change();
                    churn.check();
                }
            }));
            stop.store(true, Ordering::Relaxed);
            let sights = load.join().unwrap();
            if let Err(panic) = changed {
                std::panic::resume_unwind(panic);
            }
            sights
        });
        churn.judge(&sights);
        let asked: u64 = sights.len() as u64 * 30;
        println!("{changes} changes beside {asked} connections and datagrams");
        for node in NODES {
            let compared = lab.json(&[
                "node", node, "--", "weir", "service", "update", "-o", "json",
            ]);
            let wrong = &compared["repaired"];
            assert_eq!(
                (wrong, &compared["failed"]),
                (&json!([]), &json!([])),
                "{compared}"
            );
        }
    }

    #[test]
    fn sockets_in_the_tunnel() {
        churn("churn-socket", &json!({"routingMode": "tunnel"}));
    }

    #[test]
    fn packets_in_native_routing() {
        churn(
            "churn-packet",
            &json!({"routingMode": "native", "socketLB": false}),
        );
    }
}
