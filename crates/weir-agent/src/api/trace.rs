// SPDX-License-Identifier: Apache-2.0
//! Questions about packets that nobody has sent.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use weir_api::trace::{Trace, TraceRequest};

use super::{Answer, Api, Refusal, not_loaded, ok};
use crate::trace::{TraceError, answer};

/// Manifests can be part of a question.
pub(super) const LARGEST_QUESTION: usize = 8 << 20;

pub(super) async fn trace(State(api): State<Api>, body: Bytes) -> Answer<Vec<Trace>> {
    let request: TraceRequest = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("the request is not understood: {error}");
        Refusal::new(StatusCode::BAD_REQUEST, message, None)
    })?;
    let shared = Arc::clone(&api.shared);
    // Loading the programs, reading back and compiling take their time.
    let answered = tokio::task::spawn_blocking(move || answer(&shared, &request)).await;
    let traces = answered.map_err(|error| Refusal::internal(&error))?;
    ok(traces.map_err(refuse)?)
}

fn refuse(error: TraceError) -> Refusal {
    let hint = error.hint();
    match error {
        TraceError::NotLoaded => not_loaded(),
        TraceError::Missing { message } => Refusal::new(StatusCode::NOT_FOUND, message, hint),
        TraceError::Invalid { message } => Refusal::new(StatusCode::BAD_REQUEST, message, hint),
        TraceError::Datapath(error) => Refusal::internal(&error),
    }
}
