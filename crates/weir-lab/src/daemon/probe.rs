// SPDX-License-Identifier: Apache-2.0
//! Probes: finding both ends of a request, and letting the source's sandbox do it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use weir_net::Family;

use super::{
    Say,
    handle::Sandbox,
    lab::{Lab, pod_key},
};
use crate::{
    args::parse_address,
    config::address_of,
    locked,
    object::Key,
    protocol::{
        Flows, Order, Outcome, Path, ProbeAnswer, ProbeRequest, Protocol, Response, Transfer,
    },
};

/// What a sandbox may take beyond the time of the probe itself.
const GRACE: Duration = Duration::from_secs(10);

/// One end of a probe.
#[derive(Debug)]
struct End {
    name: String,
    sandbox: Option<Arc<Sandbox>>,
    addresses: Vec<IpAddr>,
    /// Whether the reference was an address, which then has to be used.
    exact: bool,
    /// The port to take when the request names none.
    port: Option<u16>,
}

/// A probe with both ends found.
struct Prepared {
    source: Arc<Sandbox>,
    destination: Option<Arc<Sandbox>>,
    peer: String,
    path: Path,
}

/// Does all probes in parallel and answers in the order of the requests.
pub(crate) fn probe_all(lab: &Lab, requests: &[ProbeRequest], say: Say<'_>) -> Result<()> {
    let prepared: Vec<Result<Prepared>> = requests
        .iter()
        .map(|request| prepare(lab, request))
        .collect();
    let served = serve(requests.iter().zip(&prepared));
    let running: Vec<_> = prepared
        .into_iter()
        .zip(requests)
        .map(|(prepared, request)| {
            let prepared = prepared?;
            let order = Order::Probe {
                path: prepared.path,
                protocol: request.protocol,
                size: request.size,
            };
            let reply = prepared.source.send(order)?;
            anyhow::Ok((prepared, reply))
        })
        .collect();
    let mut said = Ok(());
    for (running, request) in running.into_iter().zip(requests) {
        let finish = || -> Result<ProbeAnswer> {
            let (prepared, reply) = running?;
            let limit = Duration::from_millis(request.timeout_ms) + GRACE;
            let mut answer: ProbeAnswer =
                serde_json::from_value(prepared.source.wait(&reply, limit)?)?;
            if request.protocol == Protocol::Icmp && answer.allowed {
                answer.peer = Some(prepared.peer);
            }
            Ok(answer)
        };
        let mut answer = finish()
            .unwrap_or_else(|error| ProbeAnswer::failed(Outcome::Error, format!("{error:#}")));
        answer.id = request.id.clone();
        if said.is_ok() {
            said = serde_json::to_value(answer)
                .map_err(Into::into)
                .and_then(|answer| say(Response::Answer(answer)));
        }
    }
    release(served);
    said
}

/// Moves bytes over one connection.
pub(crate) fn transfer(lab: &Lab, request: &ProbeRequest, transfer: Transfer) -> Result<Value> {
    order_one(
        lab,
        request,
        |path| Order::Transfer { path, transfer },
        Duration::ZERO,
    )
}

/// Keeps flows running.
pub(crate) fn traffic(lab: &Lab, request: &ProbeRequest, flows: Flows) -> Result<Value> {
    let duration = Duration::from_millis(flows.duration_ms);
    order_one(
        lab,
        request,
        |path| Order::Traffic { path, flows },
        duration,
    )
}

fn order_one(
    lab: &Lab,
    request: &ProbeRequest,
    order: impl FnOnce(Path) -> Order,
    duration: Duration,
) -> Result<Value> {
    let prepared = prepare(lab, request);
    // Flows of both protocols may want the port.
    let both = [Protocol::Tcp, Protocol::Udp].map(|protocol| ProbeRequest {
        protocol,
        ..request.clone()
    });
    let served = serve(both.iter().map(|request| (request, &prepared)));
    let finish = || {
        let prepared = prepared?;
        let limit = Duration::from_millis(request.timeout_ms) + duration + GRACE * 3;
        prepared.source.call(order(prepared.path), limit)
    };
    let result = finish();
    release(served);
    result
}

type Served = Vec<(Arc<Sandbox>, Protocol, u16)>;

/// Makes destinations answer, where requests ask for it.
fn serve<'a>(requests: impl Iterator<Item = (&'a ProbeRequest, &'a Result<Prepared>)>) -> Served {
    let mut served = Vec::new();
    let mut replies = Vec::new();
    for (request, prepared) in requests {
        let Ok(Prepared {
            destination: Some(sandbox),
            path,
            ..
        }) = prepared
        else {
            continue;
        };
        let (protocol, port) = (request.protocol, path.destination.port());
        if request.serve
            && protocol != Protocol::Icmp
            && let Ok(reply) = sandbox.send(Order::Serve { protocol, port })
        {
            served.push((Arc::clone(sandbox), protocol, port));
            replies.push((Arc::clone(sandbox), reply));
        }
    }
    for (sandbox, reply) in replies {
        // The probe itself will show that nothing answers; the log says why.
        if let Err(error) = sandbox.wait(&reply, GRACE) {
            tracing::warn!(error = format!("{error:#}"), "a destination cannot serve");
        }
    }
    served
}

fn release(served: Served) {
    for (sandbox, protocol, port) in served {
        if let Err(error) = sandbox.send(Order::Release { protocol, port }) {
            tracing::warn!(error = format!("{error:#}"), "a port stays open");
        }
    }
}

fn prepare(lab: &Lab, request: &ProbeRequest) -> Result<Prepared> {
    let source = find(lab, &request.from).context("source")?;
    let destination = find(lab, &request.to).context("destination")?;
    let sandbox = source.sandbox.with_context(|| {
        format!(
            "`{}` is no pod, node or external host of this lab, so nothing can send from it",
            request.from
        )
    })?;
    let families = match request.family {
        None => Family::BOTH.to_vec(),
        Some(4) => vec![Family::V4],
        Some(6) => vec![Family::V6],
        Some(other) => bail!("family {other} is neither 4 nor 6"),
    };
    let both = families.iter().find_map(|family| {
        let own = address_of(&source.addresses, *family)?;
        Some((own, address_of(&destination.addresses, *family)?))
    });
    let Some((own, address)) = both else {
        let words: Vec<String> = families.iter().map(ToString::to_string).collect();
        bail!(
            "{} and {} have no {} in common",
            source.name,
            destination.name,
            words.join(" or ")
        );
    };
    let port = match (request.protocol, request.port.or(destination.port)) {
        (Protocol::Icmp, _) => 0,
        (_, Some(port)) => port,
        (_, None) => bail!("no port is given"),
    };
    ensure!(
        request.timeout_ms <= 3_600_000,
        "a probe may take an hour at most"
    );
    Ok(Prepared {
        source: sandbox,
        destination: destination.sandbox,
        peer: destination.name,
        path: Path {
            destination: SocketAddr::new(address, port),
            source: source.exact.then_some(own),
            source_port: request.source_port,
            timeout_ms: request.timeout_ms,
        },
    })
}

/// Finds what a reference stands for.
fn find(lab: &Lab, reference: &str) -> Result<End> {
    let end = |name: String, sandbox: &Arc<Sandbox>, addresses: &[IpAddr]| End {
        name,
        sandbox: Some(Arc::clone(sandbox)),
        addresses: addresses.to_vec(),
        exact: false,
        port: None,
    };
    if let Some(address) = parse_address(reference) {
        return Ok(find_address(lab, address));
    }
    if let Some(name) = reference.strip_prefix("node:") {
        let node = lab.node(name)?;
        return Ok(end(
            reference.to_owned(),
            &node.sandbox,
            &node.own.addresses,
        ));
    }
    if reference == "world" || reference.starts_with("external:") {
        let host = match reference.strip_prefix("external:") {
            Some(name) => lab.external(name)?,
            None => lab.world()?,
        };
        let name = format!("external:{}", host.own.name);
        return Ok(end(name, &host.sandbox, &host.own.addresses));
    }
    if let Some(service) = reference.strip_prefix("svc:") {
        let (namespace, name) = service
            .split_once('/')
            .context("a service is svc:NAMESPACE/NAME")?;
        return find_service(lab, namespace, name);
    }
    let key = pod_key(reference)?;
    let pod = lab.pod(&key)?;
    let port = pod
        .containers
        .iter()
        .flat_map(super::pod::Container::ports)
        .next();
    Ok(End {
        port: port.map(|(_, port)| port),
        ..end(reference.to_owned(), &pod.sandbox, &pod.addresses)
    })
}

fn find_service(lab: &Lab, namespace: &str, name: &str) -> Result<End> {
    let state = locked(&lab.state);
    let key = Key::new("Service", namespace, name);
    let service = state
        .store
        .get(&key)
        .with_context(|| format!("there is no {key}"))?;
    let mut texts: Vec<&str> = service
        .list("/spec/clusterIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if texts.is_empty() {
        texts.extend(service.text("/spec/clusterIP"));
    }
    let addresses: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    ensure!(!addresses.is_empty(), "{key} has no cluster IP");
    let port = service.get("/spec/ports/0/port").and_then(Value::as_u64);
    Ok(End {
        name: format!("svc:{namespace}/{name}"),
        sandbox: None,
        addresses,
        exact: false,
        port: port.and_then(|port| u16::try_from(port).ok()),
    })
}

/// The owner of an address, if it has one.
fn find_address(lab: &Lab, address: IpAddr) -> End {
    let nodes = lab.nodes.values().map(|node| {
        (
            format!("node:{}", node.own.name),
            Arc::clone(&node.sandbox),
            node.own.addresses.clone(),
        )
    });
    let externals = lab.externals.iter().map(|host| {
        (
            format!("external:{}", host.own.name),
            Arc::clone(&host.sandbox),
            host.own.addresses.clone(),
        )
    });
    // A pod in its node's network has the node's addresses; they stand for the node.
    let pods: Vec<_> = locked(&lab.state)
        .pods
        .iter()
        .filter(|(_, pod)| !pod.host_network)
        .map(|(key, pod)| {
            let name = format!("{}/{}", key.namespace, key.name);
            (name, Arc::clone(&pod.sandbox), pod.addresses.clone())
        })
        .collect();
    let owner = nodes
        .chain(externals)
        .chain(pods)
        .find(|(_, _, own)| own.contains(&address));
    let (name, sandbox) = match owner {
        Some((name, sandbox, _)) => (name, Some(sandbox)),
        None => (address.to_string(), None),
    };
    End {
        name,
        sandbox,
        addresses: vec![address],
        exact: true,
        port: None,
    }
}
