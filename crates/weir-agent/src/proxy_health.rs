// SPDX-License-Identifier: Apache-2.0
//! What load balancers in front of a cluster and tools on a node ask kube-proxy, where they expect to find it: are the
//! addresses of services translated here?

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use crate::shared::Shared;
use crate::time;

/// What translates the addresses of services, as kube-proxy would name it.
const MODE: &str = "ebpf";

/// The parts of the agent without which services do not follow the cluster.
const NEEDED: [&str; 3] = ["datapath", "services", "sockets"];

/// Serves one of the addresses. The agent works without it.
pub(crate) async fn serve(address: SocketAddr, shared: Arc<Shared>) {
    let served = match TcpListener::bind(address).await {
        Ok(listener) => axum::serve(listener, router(shared)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::warn!(%address, %error, "nobody listens for health checks of kube-proxy");
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .route("/livez", get(health))
        .route("/proxyMode", get(MODE))
        .with_state(shared)
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let healthy = shared
        .subsystems()
        .iter()
        .all(|one| one.healthy || !NEEDED.contains(&one.name.as_str()));
    let status = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    // Every change is written at once: what is healthy is up to date.
    let updated = healthy.then(time::now);
    let body = json!({"lastUpdated": updated, "currentTime": time::now()});
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_model::NodeName;

    use crate::config::Config;

    async fn ask(shared: &Arc<Shared>) -> (StatusCode, String) {
        let answer = health(State(Arc::clone(shared))).await;
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1000).await;
        (status, String::from_utf8(body.unwrap().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_node_is_healthy_when_its_services_are() {
        let node = NodeName::new("n1").unwrap();
        let shared = Arc::new(Shared::new(node, Config::default()).unwrap());
        let (status, body) = ask(&shared).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(body.contains(r#""lastUpdated":null"#), "{body}");
        for part in NEEDED {
            shared.report(part, true, "fine");
        }
        let (status, body) = ask(&shared).await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains(r#""lastUpdated":"2"#), "{body}");
    }
}
