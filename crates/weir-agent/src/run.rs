// SPDX-License-Identifier: Apache-2.0
//! From arguments to a running agent, and its orderly end.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use weir_cluster::ApiAccess;
use weir_datapath::{Loader, PinRoot};
use weir_model::NodeName;
use weir_net::{NetNamespace, Netlink, Watch};

use crate::api::{self, Api};
use crate::args::{Args, MetricsAddress};
use crate::core::{Constants, Core, Input, OnLoaded, Parts, Remover};
use crate::error::{AgentError, chain};
use crate::installed::Installed;
use crate::policy_log::PolicyLog;
use crate::shared::Shared;
use crate::source::Source;
use crate::stale::Sweeper;
use crate::store::Store;
use crate::{collect, health_check, proxy_health, ring, telemetry};

/// How long requests that are being answered hold up the end.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Runs the agent until it is told to stop by SIGTERM or SIGINT.
pub fn run(args: Args) -> Result<(), AgentError> {
    if args.cni.remove_cni {
        return args.cni.remove();
    }
    let config = args.effective_config()?;
    telemetry::start(args.log_format, config.log_level);
    let node = node_name(args.node_name.as_deref())?;
    let sizes = config.sizes()?;
    tracing::info!(%node, version = env!("CARGO_PKG_VERSION"), "agent starts");

    let _lock = claim(&args.socket)?;
    let store = Store::open(&args.state)?;
    let constants = Constants {
        seed: store.seed()?,
        namespace: NetNamespace::current()?.cookie()?,
    };
    let netlink = Netlink::open()?;
    let remover = Remover::start(Netlink::open()?).map_err(|source| AgentError::Start {
        what: "the remover of links",
        source,
    })?;
    let sweeper = Sweeper::start().map_err(|source| AgentError::Start {
        what: "the sweeper of stale sockets",
        source,
    })?;
    let watch = Watch::open()?;
    let mut loader = Loader::new(PinRoot::new(&args.pins)).with_sizes(sizes);
    if let Some(path) = &args.bpf_object {
        let object = fs::read(path).map_err(|source| AgentError::Io {
            action: "read",
            path: path.clone(),
            source,
        })?;
        loader = loader.with_object(object);
    }
    let shared = Shared::new(node, config).map_err(|errno| AgentError::Start {
        what: "the reader of events",
        source: errno.into(),
    })?;
    let shared = Arc::new(shared);
    let (inputs, received) = channel();
    let mut helpers = Helpers::new(&shared, PolicyLog::new(args.policy_log));

    let installed = Installed {
        access: ApiAccess {
            kubeconfig: args.kubeconfig,
            server: shared.config.api_server.clone(),
        },
        set: args.daemon_set,
        cni: args.cni,
        socket: args.socket.clone(),
    };
    let objects = args.objects.as_deref();
    let source = Source::start(objects, &installed.access, &shared, &inputs)?;
    let parts = Parts {
        shared: Arc::clone(&shared),
        writer: source.writer(),
        store,
        constants,
        netlink,
        remover,
        sweeper,
        loader,
        on_loaded: installed.then_arrive(&shared, helpers.on_loaded()),
    };
    let mut core = Core::restore(parts);
    helpers.watch_network(watch, inputs.clone())?;
    let (alive, ended) = oneshot::channel::<()>();
    let reconcile = spawn("reconcile", move || {
        // Dropped with the thread, also by a panic: an agent without its loop must not stay.
        let _alive = alive;
        core.start(&received);
        core.run(&received);
    })?;

    let api = Api {
        shared: Arc::clone(&shared),
        inputs: inputs.clone(),
    };
    let served = serve(
        &args.socket,
        args.metrics_address,
        args.proxy_health,
        api,
        ended,
    );

    tracing::info!("agent stops; links and maps stay in place");
    installed.leave();
    let _ = inputs.send(Input::Stop);
    let _ = reconcile.join();
    drop(source);
    helpers.stop();
    let _ = fs::remove_file(&args.socket);
    served
}

fn node_name(given: Option<&str>) -> Result<NodeName, AgentError> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => fs::read_to_string("/proc/sys/kernel/hostname").map_err(AgentError::Hostname)?,
    };
    NodeName::new(name.trim()).map_err(AgentError::NodeName)
}

fn spawn(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, AgentError> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder
        .spawn(work)
        .map_err(|source| AgentError::Start { what: name, source })
}

/// Two agents over one set of pins would undo each other's work. The lock goes with the process.
fn claim(socket: &Path) -> Result<File, AgentError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| AgentError::Io {
            action,
            path,
            source,
        }
    };
    if let Some(directory) = socket.parent() {
        fs::create_dir_all(directory).map_err(failed("make", directory))?;
    }
    let path = socket.with_extension("lock");
    let lock = File::options().create(true).append(true).open(&path);
    let lock = lock.map_err(failed("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(AgentError::Running {
            path: socket.to_owned(),
        }),
        Err(fs::TryLockError::Error(source)) => Err(AgentError::Io {
            action: "lock",
            path,
            source,
        }),
    }
}

/// Threads beside the loop.
struct Helpers {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    collect: Sender<collect::Wake>,
    /// Handed to the threads that start when the maps are there.
    woken: Option<Receiver<collect::Wake>>,
    log: Option<(PolicyLog, Sender<()>)>,
    /// Hangs up when the log is written.
    logged: Receiver<()>,
}

impl Helpers {
    fn new(shared: &Arc<Shared>, log: PolicyLog) -> Self {
        let (collect, woken) = channel();
        let (writing, logged) = channel();
        Self {
            shared: Arc::clone(shared),
            stop: Arc::new(AtomicBool::new(false)),
            collect,
            woken: Some(woken),
            log: Some((log, writing)),
            logged,
        }
    }

    /// Reading events and collecting flows start with the maps.
    fn on_loaded(&mut self) -> OnLoaded {
        let (shared, stop) = (Arc::clone(&self.shared), Arc::clone(&self.stop));
        let (collect, woken) = (self.collect.clone(), self.woken.take());
        let log = self.log.take();
        Box::new(move |maps| {
            let (maps_of_collector, shared_of_collector) = (Arc::clone(maps), Arc::clone(&shared));
            let collector = spawn("collect", move || {
                if let Some(woken) = woken {
                    collect::run(&maps_of_collector, &shared_of_collector, &woken);
                }
            });
            let (maps, shared_of_reader) = (Arc::clone(maps), Arc::clone(&shared));
            let reader = spawn("events", move || {
                let shared = shared_of_reader;
                // The other half hangs up when the thread ends.
                let Some((mut log, _writing)) = log else {
                    return;
                };
                let read = ring::run(&maps, &shared, &stop, &collect, &mut log);
                if let Err(error) = read {
                    shared.report("events", false, chain(&error));
                }
                log.end(&shared);
            });
            for error in [collector.err(), reader.err()].into_iter().flatten() {
                shared.report("events", false, chain(&error));
            }
        })
    }

    fn watch_network(&self, watch: Watch, inputs: Sender<Input>) -> Result<(), AgentError> {
        let (shared, stop) = (Arc::clone(&self.shared), Arc::clone(&self.stop));
        spawn("network", move || {
            if let Err(error) = crate::core::watch(watch, &inputs, &stop) {
                // The tick finds the same, only later.
                shared.report("links", false, chain(&error));
            }
        })
        .map(drop)
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.collect.send(collect::Wake::Stop);
        // What was gathered is written, unless that takes too long.
        self.shared.events.wake();
        drop(self.log.take());
        let _ = self.logged.recv_timeout(LAST_ANSWERS);
    }
}

/// Serves until a signal comes.
fn serve(
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
