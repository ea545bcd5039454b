// SPDX-License-Identifier: Apache-2.0
//! Who is meant where an end is described instead of named: by an identity, labels or a manifest. Where
//! nobody is like that, a pod is supposed.

use std::sync::Arc;

use weir_abi::Identity;
use weir_model::{Change, LabelSet, Labels, Namespace, Pod, PodRef};

use super::{Party, Role, TraceError, missing, node, of_pod, world};
use crate::trace::scene::Scene;

/// The label by which the peers say a pod's namespace.
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";

pub(super) fn identity(
    scene: &mut Scene<'_>,
    number: Identity,
    role: Role,
) -> Result<Party, TraceError> {
    let own = scene.shared.node.clone();
    if number == Identity::HOST {
        return node(scene, own.as_str());
    }
    if number.is_world() {
        return Ok(world());
    }
    if number == Identity::REMOTE_NODE {
        let other = scene.world.nodes().find(|node| node.name != own);
        let other = other.map(|node| node.name.clone());
        let other = other.ok_or_else(|| missing("there is no other node".to_owned()))?;
        return node(scene, other.as_str());
    }
    let Some(set) = scene.snapshot.identities.set(number).cloned() else {
        return Err(missing(format!(
            "there is no identity {number} on this node"
        )));
    };
    let pods = scene.world.pods().filter(|pod| LabelSet::of(pod) == set);
    let pods: Vec<_> = pods.cloned().collect();
    choose(scene, &pods, role, &format!("identity {number}"))
        .ok_or_else(|| missing(format!("no running pod has identity {number}")))
}

/// One of several that are alike: of this node, if there is one.
fn choose(scene: &mut Scene<'_>, pods: &[Arc<Pod>], role: Role, what: &str) -> Option<Party> {
    let own = &scene.shared.node;
    let ready = |pod: &&Arc<Pod>| !pod.addresses.is_empty();
    let here = |pod: &&Arc<Pod>| pod.node.as_ref() == Some(own);
    let mut good = pods.iter().filter(ready);
    let chosen = good.clone().find(here).or_else(|| good.next())?;
    let (name, role) = (&chosen.reference, role.name());
    let note = match pods.len() {
        1 => format!("{name}, with {what}, is the {role}"),
        count => format!("{count} pods have {what}; {name} is the {role}"),
    };
    scene.notes.push(note);
    Some(of_pod(scene, Arc::clone(chosen)))
}

pub(super) fn labelled(
    scene: &mut Scene<'_>,
    labels: &[String],
    role: Role,
) -> Result<Party, TraceError> {
    let mut wanted = Vec::new();
    let mut namespace = None;
    for label in labels.iter().flat_map(|text| text.split(',')) {
        let label = label.trim();
        if let Some(reserved) = label.strip_prefix("reserved:") {
            let own = scene.shared.node.clone();
            return match reserved {
                "host" => node(scene, own.as_str()),
                "world" | "world-ipv4" | "world-ipv6" => Ok(world()),
                "remote-node" => identity(scene, Identity::REMOTE_NODE, role),
                other => Err(TraceError::Invalid {
                    message: format!("reserved:{other} is nobody that sends packets here"),
                }),
            };
        }
        let plain = ["k8s:", "any:", "unspec:"]
            .iter()
            .find_map(|prefix| label.strip_prefix(prefix))
            .unwrap_or(label);
        let (key, value) = plain.split_once('=').unwrap_or((plain, ""));
        if key == NAMESPACE_LABEL {
            namespace = Some(value.to_owned());
        } else if !key.is_empty() {
            wanted.push((key.to_owned(), value.to_owned()));
        }
    }
    let invalid = |message: String| TraceError::Invalid { message };
    let meant = |pod: &&Arc<Pod>| {
        !pod.host_network
            && namespace
                .as_ref()
                .is_none_or(|name| pod.reference.namespace.as_str() == name)
            && wanted
                .iter()
                .all(|(key, value)| pod.labels.get(key) == Some(value.as_str()))
    };
    let pods: Vec<_> = scene.world.pods().filter(meant).cloned().collect();
    let what = format!("labels {}", labels.join(","));
    if let Some(party) = choose(scene, &pods, role, &what) {
        return Ok(party);
    }
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let namespace = Namespace::new(&namespace).map_err(|error| invalid(error.to_string()))?;
    let name = format!("trace-{}", role.name());
    let reference =
        PodRef::new(namespace.as_str(), &name).map_err(|error| invalid(error.to_string()))?;
    let pod = Pod {
        reference,
        labels: Labels::new(wanted).map_err(|error| invalid(error.to_string()))?,
        node: None,
        addresses: Vec::new(),
        host_network: false,
        container_ports: Vec::new(),
        created: 0,
        workload: None,
        uid: None,
        announced: false,
    };
    suppose(scene, pod, &format!("no running pod has {what}"))
}

pub(super) fn manifest(scene: &mut Scene<'_>, text: &str, role: Role) -> Result<Party, TraceError> {
    let pod = weir_cluster::text::pod(text).map_err(|message| TraceError::Invalid {
        message: format!("the manifest of the {} is refused: {message}", role.name()),
    })?;
    let known = scene.world.pod(&pod.reference).cloned();
    if let Some(known) = known
        .filter(|known| LabelSet::of(known) == LabelSet::of(&pod) && !known.addresses.is_empty())
    {
        return Ok(of_pod(scene, known));
    }
    suppose(scene, pod, "it is in a manifest")
}

/// Puts a pod on this node that is not there.
fn suppose(scene: &mut Scene<'_>, mut pod: Pod, why: &str) -> Result<Party, TraceError> {
    let own = scene.shared.node.clone();
    pod.node = Some(own.clone());
    pod.host_network = false;
    pod.addresses = scene.free_addresses();
    if pod.addresses.is_empty() {
        return Err(missing(format!(
            "node {own} has no address for a pod that is only supposed"
        )));
    }
    let pod = Arc::new(pod);
    scene.suppose(
        Change::Pod(Arc::clone(&pod)),
        format!("pod {} on node {own} ({why})", pod.reference),
    );
    Ok(of_pod(scene, pod))
}
