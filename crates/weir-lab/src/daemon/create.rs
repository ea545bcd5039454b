// SPDX-License-Identifier: Apache-2.0
//! Bringing one pod up and taking it down: sandbox, files, network.

use std::{fs, net::IpAddr, path::Path, sync::Arc, thread};

use anyhow::{Context, Result};
use weir_api::{
    endpoint::{EndpointCreated, EndpointRequest},
    path::ENDPOINTS,
};

use super::{
    containers::{run_inits, start_containers},
    events,
    handle::Sandbox,
    kernel,
    lab::Lab,
    names,
    node::Node,
    pod::{Pod, RestartPolicy, containers_of},
    store::{new_uid, now},
};
use crate::{
    config::Dataplane,
    locked,
    object::{Key, Object},
    sandbox::{Kind, Specification},
};

const POD_INTERFACE: &str = "eth0";

/// Starts a pod that has a node. When it returns, the pod has its addresses and its containers are starting.
pub(crate) fn start_pod(lab: &Arc<Lab>, object: &Object) -> Result<()> {
    let key = object.key();
    let node = lab.node(object.text("/spec/nodeName").unwrap_or_default())?;
    let host_network = object.flag("/spec/hostNetwork");
    let folder = lab.place.pod(&key.namespace, &key.name);
    fs::create_dir_all(&folder)?;
    let specification = specify(lab, &key, node, &folder, host_network)?;
    let events = locked(&lab.events).clone();
    let sandbox = Sandbox::start(&specification, &events)?;
    let container_id = (new_uid() + &new_uid()).replace('-', "");
    let addresses = if host_network {
        Ok(node.own.addresses.clone())
    } else {
        connect(lab, node, &sandbox, object, &container_id)
    };
    let addresses = match addresses {
        Ok(addresses) => addresses,
        Err(error) => {
            // Asked before it is ended: an agent can only say that the namespace is not there.
            let trouble = sandbox.trouble();
            // The agent may have made the endpoint all the same; taking away what is not there is no error.
            let disconnected = disconnect(lab, node, &key, &container_id, host_network);
            if let Err(end) = disconnected.and(sandbox.end()) {
                tracing::warn!(pod = %key, error = format!("{end:#}"), "something is left behind");
            }
            return Err(match trouble {
                Some(trouble) => error.context(format!("its sandbox is gone: {trouble}")),
                None => error,
            });
        }
    };
    write_hosts(&folder, &key.name, &addresses)?;
    let pod = Pod {
        node: node.own.name.clone(),
        sandbox,
        container_id,
        host_network,
        addresses,
        started: now(),
        containers: containers_of(object),
        restart_policy: RestartPolicy::of(object),
    };
    locked(&lab.state).pods.insert(key.clone(), pod.clone());
    let inits: Vec<_> = object.list("/spec/initContainers").to_vec();
    if inits.is_empty() {
        return start_containers(lab, &key, &pod);
    }
    // Init containers may take their time; other pods do not wait for them.
    let lab = Arc::clone(lab);
    thread::Builder::new()
        .name(format!("init {key}"))
        .spawn(move || {
            let started = run_inits(&lab, &key, &pod, &inits)
                .and_then(|()| start_containers(&lab, &key, &pod));
            if let Err(error) = started {
                events::container_failed(&lab, &key, &format!("{error:#}"));
            }
        })?;
    Ok(())
}

/// Takes a pod down. Does all it can before it complains.
pub(crate) fn stop_pod(lab: &Lab, key: &Key, pod: &Pod) -> Result<()> {
    let node = lab.node(&pod.node)?;
    let disconnected = disconnect(lab, node, key, &pod.container_id, pod.host_network);
    let ended = pod.sandbox.end();
    fs::remove_dir_all(lab.place.pod(&key.namespace, &key.name)).ok();
    disconnected.and(ended)
}

/// Takes a pod's link and addresses away, if it has any.
fn disconnect(
    lab: &Lab,
    node: &Node,
    key: &Key,
    container_id: &str,
    host_network: bool,
) -> Result<()> {
    match (host_network, lab.topology.dataplane) {
        (true, _) => Ok(()),
        (false, Dataplane::Weir) => node
            .client()
            .delete(&format!("{ENDPOINTS}/{container_id}"))
            .with_context(|| format!("cannot remove the endpoint of {key}")),
        (false, Dataplane::KernelRouting | Dataplane::KernelVxlan) => {
            locked(&node.pool).give_back(&key.to_string());
            Ok(())
        }
    }
}

fn specify(
    lab: &Lab,
    key: &Key,
    node: &Node,
    folder: &Path,
    host_network: bool,
) -> Result<Specification> {
    let files = ["hosts", "hostname", "resolv.conf"];
    let cgroup = lab.place.cgroup()?.join(&node.own.name).join("pods");
    let mut specification = Specification {
        name: format!("{}/{}", key.namespace, key.name),
        hostname: key.name.chars().take(63).collect(),
        kind: Kind::HostPod(node.sandbox.pid()),
        cgroup: cgroup.join(folder.file_name().unwrap_or_default()),
        binds: Vec::new(),
        scratch: folder.join("scratch"),
    };
    if host_network {
        return Ok(specification);
    }
    specification.kind = Kind::Pod;
    write_hosts(folder, &key.name, &[])?;
    fs::write(
        folder.join("hostname"),
        format!("{}\n", specification.hostname),
    )?;
    fs::write(folder.join("resolv.conf"), resolver(lab, &key.namespace))?;
    specification.binds = files
        .map(|file| (folder.join(file), Path::new("/etc").join(file)))
        .to_vec();
    Ok(specification)
}

/// Names are asked for at the cluster's DNS service.
fn resolver(lab: &Lab, namespace: &str) -> String {
    let domain = &lab.topology.cluster_domain;
    let mut text = format!("search {namespace}.svc.{domain} svc.{domain} {domain}\n");
    let servers = names::nameservers(&locked(&lab.state).store, &lab.topology);
    for server in servers {
        text.extend(["nameserver ", &server.to_string(), "\n"]);
    }
    text + "options ndots:5\n"
}

/// Written in place: the pod sees this very file.
fn write_hosts(folder: &Path, name: &str, addresses: &[IpAddr]) -> Result<()> {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    for address in addresses {
        text.extend([&address.to_string(), " ", name, "\n"]);
    }
    Ok(fs::write(folder.join("hosts"), text)?)
}

/// Gives a pod its link and its addresses.
fn connect(
    lab: &Lab,
    node: &Node,
    sandbox: &Sandbox,
    object: &Object,
    container_id: &str,
) -> Result<Vec<IpAddr>> {
    let key = object.key();
    let requested = requested_addresses(object, node);
    if lab.topology.dataplane == Dataplane::Weir {
        let request = EndpointRequest {
            container_id: container_id.to_owned(),
            netns: format!("/proc/{}/ns/net", sandbox.pid()),
            interface: POD_INTERFACE.to_owned(),
            namespace: key.namespace,
            pod: key.name,
            uid: None,
            requested_addresses: requested,
        };
        let created: EndpointCreated = node.client().put(ENDPOINTS, &request)?;
        return Ok(created.addresses);
    }
    let addresses = locked(&node.pool).take(&node.own.pod_cidrs, &key.to_string(), &requested)?;
    let interface = format!("weir{}", container_id.get(..8).unwrap_or_default());
    let (host, pod) = (node.sandbox.network()?, sandbox.network()?);
    let mtu = kernel::pod_mtu(&lab.topology, &node.own);
    kernel::connect_pod(&host, &pod, &interface, &addresses, &node.own, mtu)
        .inspect_err(|_| locked(&node.pool).give_back(&key.to_string()))?;
    Ok(addresses)
}

/// The addresses that a pod brings along in its status, as far as they are its node's to give.
fn requested_addresses(object: &Object, node: &Node) -> Vec<IpAddr> {
    let listed = object
        .list("/status/podIPs")
        .iter()
        .filter_map(|entry| entry["ip"].as_str());
    let mut texts: Vec<&str> = listed.collect();
    if texts.is_empty() {
        texts.extend(object.text("/status/podIP"));
    }
    texts
        .into_iter()
        .filter_map(|text| text.parse().ok())
        .filter(|address| node.own.pod_cidrs.iter().any(|cidr| cidr.contains(address)))
        .collect()
}
