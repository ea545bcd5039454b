// SPDX-License-Identifier: Apache-2.0
//! What load balancers ask a node: does a service that keeps to its nodes have an endpoint here?
//!
//! Each service with `healthCheckNodePort` is answered at a port of its own, in the form that people know from
//! kube-proxy.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A service that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) local_endpoints: usize,
}

/// Services by port.
pub(crate) type HealthChecks = Arc<BTreeMap<u16, Asked>>;

/// How long after a port could not be had it is tried again.
const AGAIN: Duration = Duration::from_secs(5);
const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Listens wherever somebody may ask, for as long as the sender is there.
pub(crate) async fn serve(mut checks: watch::Receiver<HealthChecks>) {
    let mut servers: BTreeMap<u16, JoinHandle<()>> = BTreeMap::new();
    loop {
        let wanted = checks.borrow_and_update().clone();
        servers.retain(|port, server| {
            let keep = wanted.contains_key(port) && !server.is_finished();
            if !keep {
                server.abort();
            }
            keep
        });
        for (&port, asked) in wanted.iter() {
            if servers.contains_key(&port) {
                continue;
            }
            match listen(port).await {
                Ok(listener) => {
                    let state = (port, checks.clone());
                    let router = Router::new().fallback(answer).with_state(state);
                    let server = async move {
                        // Ends with the task.
                        let _ = axum::serve(listener, router).await;
                    };
                    servers.insert(port, tokio::spawn(server));
                }
                Err(error) => tracing::warn!(
                    port,
                    %error,
                    "nobody listens for health checks of service {}/{}", asked.namespace, asked.name
                ),
            }
        }
        let all = servers.len() == wanted.len();
        let changed = checks.changed();
        let result = if all {
            changed.await
        } else {
            tokio::time::timeout(AGAIN, changed).await.unwrap_or(Ok(()))
        };
        if result.is_err() {
            break;
        }
    }
    for server in servers.into_values() {
        server.abort();
    }
}

/// At every address of the node; a node without IPv6 has only the others.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await
        }
        result => result,
    }
}

async fn answer(State((port, checks)): State<(u16, watch::Receiver<HealthChecks>)>) -> Response {
    let asked = checks.borrow().get(&port).cloned();
    let Some(asked) = asked else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let status = if asked.local_endpoints > 0 {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "service": {"namespace": asked.namespace, "name": asked.name},
        "localEndpoints": asked.local_endpoints,
        "serviceProxyHealthy": true,
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (WEIGHT, asked.local_endpoints.to_string()),
    ];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// What the port answers; none where nobody listens.
    async fn ask(port: u16) -> Option<String> {
        let mut stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .ok()?;
        let request = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn wait(port: u16, expected: impl Fn(Option<&str>) -> bool) {
        let look = async {
            while !expected(ask(port).await.as_deref()) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), look)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn load_balancers_are_told_how_many_endpoints_there_are() {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let with = |local_endpoints| {
            let asked = Asked {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                local_endpoints,
            };
            Arc::new(BTreeMap::from([(port, asked)]))
        };
        let (sender, receiver) = watch::channel(with(2));
        let server = tokio::spawn(serve(receiver));
        wait(port, |answer| {
            answer.is_some_and(|text| {
                text.starts_with("HTTP/1.1 200")
                    && text.contains(r#""service":{"name":"web","namespace":"shop"}"#)
                    && text.contains(r#""localEndpoints":2"#)
            })
        })
        .await;
        sender.send(with(0)).unwrap();
        wait(port, |answer| {
            answer.is_some_and(|text| text.starts_with("HTTP/1.1 503"))
        })
        .await;
        sender.send(Arc::default()).unwrap();
        wait(port, |answer| answer.is_none()).await;
        drop(sender);
        server.await.unwrap();
    }
}
