// SPDX-License-Identifier: Apache-2.0
//! Metrics in Prometheus' text form. Names and labels are those of the field, with the prefix
//! `weir_`.
//!
//! Everything is collected when it is asked for: the truth is in the kernel and in the snapshot, and
//! a second set of numbers would only differ from it.

mod control;
mod datapath;
mod page;
mod policy;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::{Api, Refusal};
use crate::shared::Shared;
use crate::snapshot::Snapshot;
use control::control;
use datapath::{collections, datapath};
use page::Page;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) async fn metrics(State(api): State<Api>) -> Result<Response, Refusal> {
    let shared = std::sync::Arc::clone(&api.shared);
    let snapshot = api.snapshot();
    // Reading maps may take a while on a full table.
    let text = tokio::task::spawn_blocking(move || text(&shared, &snapshot)).await;
    let text = text.map_err(|error| Refusal::internal(&error))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn text(shared: &Shared, snapshot: &Snapshot) -> String {
    let mut page = Page(Registry::with_prefix("weir"));
    if let Some(maps) = &snapshot.maps
        && let Err(error) = datapath(&mut page, maps, shared)
    {
        tracing::warn!(
            error = crate::error::chain(&error),
            "metrics of the datapath are missing"
        );
    }
    collections(&mut page, shared);
    control(&mut page, shared, snapshot);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode(&mut text, &page.0);
    text
}
