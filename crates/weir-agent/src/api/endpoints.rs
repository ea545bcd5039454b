// SPDX-License-Identifier: Apache-2.0
//! Endpoints: listed from the snapshot, changed by the loop.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::oneshot;
use weir_abi::Identity;
use weir_abi::policy::PolicyDirection;
use weir_api::endpoint::{Endpoint, EndpointChecked, EndpointCreated, EndpointRequest};

use super::{Answer, Api, Refusal, ok, policy, reference};
use crate::core::{Attachments, Connected, Input, Reply};
use crate::error::EndpointError;

/// A pod starts at the latest so long after its network is there, even if no other node can know of it yet.
const ACCEPTED_WITHIN: Duration = Duration::from_secs(1);

/// What is asked about an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    Log,
    Health,
    Regenerate,
}

/// `ns/pod/log` is the log of `ns/pod`.
fn split(rest: &str) -> (&str, Part) {
    let parts = [
        ("/log", Part::Log),
        ("/health", Part::Health),
        ("/regenerate", Part::Regenerate),
    ];
    for (suffix, part) in parts {
        if let Some(reference) = rest.strip_suffix(suffix).filter(|text| !text.is_empty()) {
            return (reference, part);
        }
    }
    (rest, Part::All)
}

pub(super) async fn list(State(api): State<Api>) -> Answer<Vec<Endpoint>> {
    ok(api.snapshot().endpoints.as_ref().clone())
}

pub(super) async fn read(
    State(api): State<Api>,
    Path(rest): Path<String>,
) -> Result<Response, Refusal> {
    let (reference, part) = split(&rest);
    let snapshot = api.snapshot();
    let endpoint = reference::find(&snapshot.endpoints, reference)?;
    match part {
        Part::All => Ok(axum::Json(whole(&api, endpoint).await).into_response()),
        Part::Log => Ok(axum::Json(&endpoint.status.log).into_response()),
        Part::Health => Ok(axum::Json(&endpoint.status.health).into_response()),
        Part::Regenerate => Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "regenerate is asked for by POST",
            None,
        )),
    }
}

/// With its policy rows and their counters, as far as they can be read.
async fn whole(api: &Api, endpoint: &Endpoint) -> Endpoint {
    let mut endpoint = endpoint.clone();
    let directory = Arc::clone(&api.shared.directory);
    let one = vec![endpoint.clone()];
    let rows = api
        .with_maps(move |maps, snapshot| policy::read(&one, maps, snapshot, &directory))
        .await;
    let rows = rows.ok().and_then(|mut all| all.pop());
    let status = &mut endpoint.status.policy;
    status.realized = rows.map(|one| one.rows).unwrap_or_default();
    let identity = Identity(endpoint.status.identity.id);
    if let Some(set) = api.snapshot().identities.set(identity) {
        let directory = &api.shared.directory;
        status.ingress_policies = directory.isolating(set, PolicyDirection::Ingress);
        status.egress_policies = directory.isolating(set, PolicyDirection::Egress);
    }
    endpoint
}

pub(super) async fn act(
    State(api): State<Api>,
    Path(rest): Path<String>,
) -> Result<Response, Refusal> {
    let (reference, part) = split(&rest);
    if part != Part::Regenerate {
        return Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "only regenerate is asked for by POST",
            None,
        ));
    }
    let snapshot = api.snapshot();
    let id = reference::find(&snapshot.endpoints, reference)?.id;
    let done = api.ask(|reply| Input::Regenerate(id, reply)).await?;
    Ok(axum::Json(done).into_response())
}

pub(super) async fn create(State(api): State<Api>, body: Bytes) -> Answer<EndpointCreated> {
    let request = understood(&body)?;
    let Connected { created, accepting } = api.ask(|reply| Input::Create(request, reply)).await?;
    if let Some(accepting) = accepting
        && !accepting.wait(ACCEPTED_WITHIN).await
    {
        let (endpoint, addresses) = (created.id, &created.addresses);
        tracing::debug!(endpoint, ?addresses, "other nodes may not know them yet");
    }
    ok(created)
}

pub(super) async fn check(State(api): State<Api>, body: Bytes) -> Answer<EndpointChecked> {
    let request = understood(&body)?;
    ok(api.ask(|reply| Input::Check(request, reply)).await?)
}

fn understood(body: &[u8]) -> Result<EndpointRequest, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("the request is not understood: {error}"),
            None,
        )
    })
}

/// Which of a container's interfaces; all of them unless it is said.
#[derive(Deserialize)]
pub(super) struct Which {
    interface: Option<String>,
}

pub(super) async fn delete(
    State(api): State<Api>,
    Path(container): Path<String>,
    Query(Which { interface }): Query<Which>,
) -> Result<StatusCode, Refusal> {
    let what = Attachments {
        container,
        interface,
    };
    api.ask(|reply| Input::Delete(what, reply)).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl Api {
    /// Hands a request to the loop and waits for its answer.
    pub(super) async fn ask<T>(&self, input: impl FnOnce(Reply<T>) -> Input) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.inputs
            .send(input(reply))
            .map_err(|_| Refusal::from(EndpointError::Stopping))?;
        let answer = answer
            .await
            .map_err(|_| Refusal::from(EndpointError::Stopping))?;
        answer.map_err(Refusal::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_keep_their_slashes() {
        assert_eq!(split("7"), ("7", Part::All));
        assert_eq!(split("shop/web/log"), ("shop/web", Part::Log));
        assert_eq!(split("shop/log"), ("shop", Part::Log));
        assert_eq!(split("pod-name:shop:log"), ("pod-name:shop:log", Part::All));
        assert_eq!(split("7/regenerate"), ("7", Part::Regenerate));
    }
}
