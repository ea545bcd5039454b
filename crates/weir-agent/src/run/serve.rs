// SPDX-License-Identifier: Apache-2.0
//! The sockets: who is answered, until a signal comes.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::LAST_ANSWERS;
use crate::api::{self, Api};
use crate::args::MetricsAddress;
use crate::error::AgentError;
use crate::{health_check, proxy_health};

/// Serves until a signal comes.
pub(super) fn serve(
    socket: &Path,
    metrics: MetricsAddress,
    proxy_health: Vec<SocketAddr>,
    api: Api,
    ended: oneshot::Receiver<()>,
) -> Result<(), AgentError> {
    let start = |source| AgentError::Start {
        what: "the API server",
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(start)?;
    let served = runtime.block_on(async {
        let listener = listen(socket)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(start)?;
        let metrics = tokio::spawn(serve_metrics(metrics.0, api.clone()));
        let checks = api.shared.health_checks.subscribe();
        let health_checks = tokio::spawn(health_check::serve(checks));
        for address in proxy_health {
            // Ends with the runtime.
            tokio::spawn(proxy_health::serve(address, Arc::clone(&api.shared)));
        }
        let served = axum::serve(listener, api::router(api)).into_future();
        let result = tokio::select! {
            result = served => result.map_err(start),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = ended => Err(AgentError::LoopEnded),
        };
        metrics.abort();
        health_checks.abort();
        result
    });
    runtime.shutdown_timeout(LAST_ANSWERS);
    served
}

/// The socket of an agent that is gone is in the way; the lock says that it is gone.
fn listen(socket: &Path) -> Result<UnixListener, AgentError> {
    let failed = |action| {
        let path = socket.to_owned();
        move |source| AgentError::Io {
            action,
            path,
            source,
        }
    };
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replace")(error));
        }
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket).map_err(failed("listen at"))?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o660))
        .map_err(failed("set the mode of"))?;
    Ok(listener)
}

/// Metrics and health by TCP. The agent works without them.
async fn serve_metrics(address: Option<SocketAddr>, api: Api) {
    let Some(address) = address else { return };
    let served = match TcpListener::bind(address).await {
        Ok(listener) => axum::serve(listener, api::public_router(api)).await,
        Err(error) => Err(error),
    };
    if let Err(error) = served {
        tracing::warn!(%address, %error, "metrics are not served by TCP");
    }
}
