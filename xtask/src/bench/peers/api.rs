// SPDX-License-Identifier: Apache-2.0
//! The API server, spoken to through a `kubectl proxy` on a unix socket: many requests at a time, and no keys.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use weir_api::Client;

use crate::cluster::control_plane::kubectl;
use crate::cluster::place::Place;
use crate::cluster::processes::{start, wait_for};

/// How many requests are under way at a time.
const AT_ONCE: usize = 16;

/// A way to the API server.
#[derive(Debug)]
pub(super) struct Api {
    client: Client,
}

impl Api {
    pub(super) fn open(place: &Place) -> Result<Self> {
        let socket = place.state().join("api.sock");
        let mut proxy = kubectl(place);
        // The host that is asked for is not the one it expects; who may open the socket may ask.
        proxy
            .args(["proxy", "--accept-hosts=.*", "--unix-socket"])
            .arg(&socket);
        start(place, "kubectl-proxy", &mut proxy)?;
        let api = Self {
            client: Client::new(socket),
        };
        wait_for("the proxy of kubectl to answer", 30, || {
            api.client.text("/readyz").is_ok()
        })?;
        // Nobody else makes it, and no pod is taken without one.
        wait_for("the namespace `default`", 30, || {
            api.client
                .get::<Value>("/api/v1/namespaces/default")
                .is_ok()
        })?;
        Ok(api)
    }

    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.client
            .get(path)
            .with_context(|| format!("the API server refuses GET {path}"))
    }

    /// Makes an object; as it was made.
    pub(super) fn post(&self, path: &str, object: &Value) -> Result<Value> {
        self.client
            .ask(path, object)
            .with_context(|| format!("the API server refuses POST {path} of {}", name(object)))
    }

    /// Replaces an object.
    pub(super) fn put(&self, path: &str, object: &Value) -> Result<()> {
        self.replace(&format!("{path}/{}", name(object)), object)
    }

    /// Replaces the status of an object.
    pub(super) fn put_status(&self, path: &str, object: &Value) -> Result<()> {
        self.replace(&format!("{path}/{}/status", name(object)), object)
    }

    fn replace(&self, path: &str, object: &Value) -> Result<()> {
        self.client
            .put::<_, Value>(path, object)
            .map(drop)
            .with_context(|| format!("the API server refuses PUT {path}"))
    }
}

/// Sends for each number, several at a time; the order is not kept.
pub(super) fn many(count: u32, send: impl Fn(u32) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicU32::new(0);
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            send(number)?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .map_err(|_| anyhow!("a thread that makes objects panicked"))?
        })
    })
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
