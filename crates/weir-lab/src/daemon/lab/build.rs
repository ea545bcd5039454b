// SPDX-License-Identifier: Apache-2.0
//! Building a lab: the network between its hosts, the hosts themselves, and the agents that run on nodes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, mpsc::channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{AGENT_LIMIT, ExternalHost, Lab, State};
use crate::{
    config::{Dataplane, Topology},
    daemon::{
        Say, events,
        handle::Sandbox,
        kernel,
        names::Teller,
        node::Node,
        services::Balancer,
        store::{Publisher, Store},
        underlay,
    },
    place::Place,
    protocol::{Order, Protocol, Response},
    sandbox::{Kind, Specification},
};

/// The port that hosts outside the cluster answer on.
const EXTERNAL_PORT: u16 = 80;

impl Lab {
    /// Builds hosts and links and starts agents; returns when they answer.
    pub(crate) fn build(place: &Place, topology: Topology, say: Say<'_>) -> Result<Arc<Self>> {
        let (events, happened) = channel();
        let mut publisher = Publisher::new(place.objects())?;
        let host = |name: &str, hostname: &str| Specification {
            name: name.to_owned(),
            hostname: hostname.to_owned(),
            kind: Kind::Host,
            cgroup: place
                .cgroup()
                .unwrap_or_default()
                .join(name.replace(':', "-")),
            binds: Vec::new(),
            scratch: place.folder().join("scratch"),
        };
        let underlay = Sandbox::start(&host("underlay", "underlay"), &events)?;
        let wires = underlay.network()?;
        underlay::build(&wires, &topology)?;

        let (mut nodes, mut externals) = (BTreeMap::new(), Vec::new());
        thread::scope(|scope| -> Result<()> {
            let starting: Vec<_> = topology
                .nodes
                .iter()
                .enumerate()
                .map(|(number, own)| {
                    let (events, wires, topology) = (events.clone(), &wires, &topology);
                    scope.spawn(move || -> Result<Node> {
                        let node = Node::start(place, own, &events)?;
                        let network = node.sandbox.network()?;
                        underlay::join_node(wires, &network, number, own, topology)?;
                        if topology.dataplane != Dataplane::Weir {
                            kernel::prepare_node(&network, own, topology)?;
                        }
                        Ok(node)
                    })
                })
                .collect();
            for (number, own) in topology.externals.iter().enumerate() {
                let name = format!("external:{}", own.name);
                let sandbox = Sandbox::start(&host(&name, &own.name), &events)?;
                underlay::join_external(&wires, &sandbox.network()?, number, own, &topology)?;
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    let order = Order::Serve {
                        protocol,
                        port: EXTERNAL_PORT,
                    };
                    sandbox.call(order, Duration::from_secs(5))?;
                }
                externals.push(ExternalHost {
                    own: own.clone(),
                    sandbox,
                });
            }
            for thread in starting {
                let node = thread.join().ok().context("starting a node panicked")??;
                nodes.insert(node.own.name.clone(), node);
            }
            Ok(())
        })?;
        say(Response::Progress(format!(
            "{} nodes are built",
            nodes.len()
        )))?;

        let mut store = Store::default();
        for node in nodes.values() {
            store.upsert(node.object()?);
        }
        // An agent can give a pod its link once it knows its own node.
        let nodes_known = publisher.publish(&mut store)?;
        let names = Teller::start(topology.cluster_domain.clone())?;
        let lab = Arc::new(Self {
            place: place.clone(),
            topology,
            underlay,
            nodes,
            externals,
            state: Mutex::new(State {
                store,
                publisher,
                balancer: Balancer::new(wires),
                names,
                pods: BTreeMap::new(),
                leaving: BTreeMap::new(),
                failures: BTreeMap::new(),
            }),
            changed: Condvar::new(),
            operation: Mutex::new(()),
            events: Mutex::new(events),
            ends: Mutex::default(),
        });
        events::watch(&lab, happened)?;
        if lab.topology.dataplane == Dataplane::Weir {
            for node in lab.nodes.values() {
                node.start_agent()?;
            }
            let deadline = Instant::now() + AGENT_LIMIT;
            for node in lab.nodes.values() {
                node.wait_realized(nodes_known, deadline, say)?;
            }
            say(Response::Progress("agents are running".to_owned()))?;
        }
        Ok(lab)
    }
}
