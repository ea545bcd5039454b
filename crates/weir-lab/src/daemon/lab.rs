// SPDX-License-Identifier: Apache-2.0
//! A lab that is up: its hosts, its objects, its pods.

mod build;

use std::{
    collections::BTreeMap,
    sync::{Arc, Condvar, Mutex, mpsc::Sender},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Say,
    handle::{Event, Sandbox},
    leave::Leaving,
    names::Teller,
    node::Node,
    pod::Pod,
    services::{self, Balancer},
    store::{Publisher, Store},
};
use crate::{
    args::parse_address,
    config::{Dataplane, External, Topology},
    locked,
    object::{Key, Object, kind_of_word},
    place::Place,
    protocol::{AgentAction, Location, Response},
};

const AGENT_LIMIT: Duration = Duration::from_mins(1);

/// A host outside the cluster.
#[derive(Debug)]
pub(crate) struct ExternalHost {
    pub(crate) own: External,
    pub(crate) sandbox: Arc<Sandbox>,
}

/// What changes while a lab is up.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) store: Store,
    pub(crate) publisher: Publisher,
    pub(crate) balancer: Balancer,
    pub(crate) names: Teller,
    pub(crate) pods: BTreeMap<Key, Pod>,
    /// Pods that were deleted and are not gone yet.
    pub(crate) leaving: BTreeMap<Key, Arc<Leaving>>,
    /// Pods that could not be started, with the reason.
    pub(crate) failures: BTreeMap<Key, String>,
}

impl State {
    /// Publishes what has changed, with what follows from it; returns the number of the change set.
    pub(crate) fn publish(&mut self, topology: &Topology) -> Result<u64> {
        services::follow(&mut self.store, topology);
        self.balancer.follow(&self.store, topology)?;
        self.names.follow(&self.store);
        self.publisher.publish(&mut self.store)
    }
}

/// A lab.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) place: Place,
    pub(crate) topology: Topology,
    pub(crate) underlay: Arc<Sandbox>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) externals: Vec<ExternalHost>,
    pub(crate) state: Mutex<State>,
    /// Told whenever a pod's readiness may have changed.
    pub(crate) changed: Condvar,
    /// Held by the operation that changes objects.
    pub(crate) operation: Mutex<()>,
    pub(crate) events: Mutex<Sender<Event>>,
    /// Those who wait for the end of a process: (sandbox, process).
    pub(crate) ends: Mutex<BTreeMap<(String, String), Sender<i32>>>,
}

impl Lab {
    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        self.nodes.get(name).with_context(|| {
            let names: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
            format!("there is no node {name} (nodes: {})", names.join(", "))
        })
    }

    pub(crate) fn external(&self, name: &str) -> Result<&ExternalHost> {
        let found = self
            .externals
            .iter()
            .find(|external| external.own.name == name);
        found.with_context(|| format!("there is no external host {name}"))
    }

    /// The host that probes call `world`.
    pub(crate) fn world(&self) -> Result<&ExternalHost> {
        self.externals
            .first()
            .context("this lab has no host outside the cluster")
    }

    /// Starts or stops a node's agent.
    pub(crate) fn agent(&self, name: &str, action: AgentAction, say: Say<'_>) -> Result<()> {
        ensure!(
            self.topology.dataplane == Dataplane::Weir,
            "this lab runs without agents"
        );
        let node = self.node(name)?;
        if action != AgentAction::Start {
            node.stop_agent(action.signal())?;
            say(Response::Progress(format!(
                "the agent of {name} is stopped"
            )))?;
        }
        if action != AgentAction::Stop {
            node.start_agent()?;
            let revision = locked(&self.state).publisher.revision();
            node.wait_realized(revision, Instant::now() + AGENT_LIMIT, say)?;
            say(Response::Progress(format!(
                "the agent of {name} is running"
            )))?;
        }
        Ok(())
    }

    /// Answers with every object of a kind that fits.
    pub(crate) fn get(
        &self,
        word: &str,
        namespace: Option<&str>,
        name: Option<&str>,
        say: Say<'_>,
    ) -> Result<()> {
        let kind = kind_of_word(word);
        let found: Vec<Object> = locked(&self.state)
            .store
            .objects()
            .values()
            .filter(|object| {
                let same_kind = object.kind().eq_ignore_ascii_case(&kind)
                    || format!("{}s", object.kind()).eq_ignore_ascii_case(&kind);
                let own = object.namespace();
                same_kind
                    && name.is_none_or(|name| object.name() == name)
                    && (own.is_empty() || namespace.is_none_or(|namespace| own == namespace))
            })
            .cloned()
            .collect();
        if let (Some(name), true) = (name, found.is_empty()) {
            bail!("{kind} {name} not found");
        }
        for object in found {
            say(Response::Answer(object.value().clone()))?;
        }
        Ok(())
    }

    /// Finds the namespaces behind a reference: `NS/POD`, `node:NAME`, `external:NAME`, `world`.
    pub(crate) fn locate(&self, reference: &str) -> Result<Location> {
        let of = |sandbox: &Sandbox, own_pid_namespace, environment| Location {
            pid: sandbox.pid(),
            cgroup: sandbox.cgroup().to_path_buf(),
            own_pid_namespace,
            environment,
        };
        let commands = self.place.commands().display().to_string();
        if let Some(name) = reference.strip_prefix("node:") {
            let node = self.node(name)?;
            return Ok(of(&node.sandbox, false, node.environment()));
        }
        if reference == "underlay" {
            return Ok(of(
                &self.underlay,
                false,
                super::environment(reference, &commands),
            ));
        }
        if reference == "world" || reference.starts_with("external:") {
            let host = match reference.strip_prefix("external:") {
                Some(name) => self.external(name)?,
                None => self.world()?,
            };
            return Ok(of(
                &host.sandbox,
                false,
                super::environment(&host.own.name, &commands),
            ));
        }
        let key = pod_key(reference)?;
        let pod = self.pod(&key)?;
        let environment = if pod.host_network {
            self.node(&pod.node)?.environment()
        } else {
            super::environment(&key.name, &commands)
        };
        Ok(of(&pod.sandbox, true, environment))
    }

    /// A running pod.
    pub(crate) fn pod(&self, key: &Key) -> Result<Pod> {
        let state = locked(&self.state);
        if let Some(pod) = state.pods.get(key) {
            return Ok(pod.clone());
        }
        match state.failures.get(key) {
            Some(failure) => bail!("{key} does not run: {failure}"),
            None => bail!("there is no {key}"),
        }
    }
}

/// Reads `NAMESPACE/POD`.
pub(crate) fn pod_key(reference: &str) -> Result<Key> {
    match reference.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok(Key::new("Pod", namespace, name))
        }
        _ if parse_address(reference).is_some() => {
            bail!("an address is not enough here; name the pod as NAMESPACE/POD")
        }
        _ => bail!("`{reference}` is not NAMESPACE/POD"),
    }
}
