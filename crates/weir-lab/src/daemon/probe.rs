// SPDX-License-Identifier: Apache-2.0
//! Probes: finding both ends of a request, and letting the source's sandbox do it.

mod end;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use weir_net::Family;

use super::{Say, handle::Sandbox, lab::Lab};
use crate::{
    config::address_of,
    protocol::{
        Flows, Order, Outcome, Path, ProbeAnswer, ProbeRequest, Protocol, Response, Transfer,
    },
};
use end::{End, Server};

/// What a sandbox may take beyond the time of the probe itself.
const GRACE: Duration = Duration::from_secs(10);

/// A probe with both ends found.
struct Prepared {
    source: Arc<Sandbox>,
    servers: Vec<Server>,
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
                exchange: Box::new(request.exchange()),
            };
            let reply = prepared.source.send(order)?;
            anyhow::Ok((prepared, reply))
        })
        .collect();
    let mut said = Ok(());
    for (running, request) in running.into_iter().zip(requests) {
        let finish = || -> Result<ProbeAnswer> {
            let (prepared, reply) = running?;
            let limit = Duration::from_millis(request.time_limit()) + GRACE;
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
        let (Ok(prepared), true) = (prepared, request.serve) else {
            continue;
        };
        let protocol = request.protocol;
        for server in &prepared.servers {
            let (sandbox, asked) = (&server.sandbox, prepared.path.destination.port());
            let port = server.port.unwrap_or(asked);
            if protocol != Protocol::Icmp
                && let Ok(reply) = sandbox.send(Order::Serve { protocol, port })
            {
                served.push((Arc::clone(sandbox), protocol, port));
                replies.push((Arc::clone(sandbox), reply));
            }
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
    let source = end::find(lab, &request.from).context("source")?;
    let sandbox = source.sandbox().with_context(|| {
        format!(
            "`{}` is no pod, node or external host of this lab, so nothing can send from it",
            request.from
        )
    })?;
    let destination = match request.to.strip_prefix("dns:") {
        Some(name) => resolve(&sandbox, name, request.timeout_ms),
        None => end::find_destination(lab, request),
    };
    let destination = destination.context("destination")?;
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
        request.time_limit() <= 3_600_000,
        "a probe may take an hour at most"
    );
    Ok(Prepared {
        source: sandbox,
        servers: destination.servers,
        peer: destination.name,
        path: Path {
            destination: SocketAddr::new(address, port),
            source: source.exact.then_some(own),
            source_port: request.source_port,
            timeout_ms: request.timeout_ms,
        },
    })
}

/// The source asks its own resolver.
fn resolve(source: &Sandbox, name: &str, timeout_ms: u64) -> Result<End> {
    let order = Order::Resolve {
        name: name.to_owned(),
    };
    let limit = Duration::from_millis(timeout_ms) + GRACE;
    let addresses = serde_json::from_value(source.call(order, limit)?)?;
    Ok(End {
        name: name.to_owned(),
        servers: Vec::new(),
        addresses,
        exact: false,
        port: None,
    })
}
