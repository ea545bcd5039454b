// SPDX-License-Identifier: Apache-2.0
//! From arguments to a running agent, and its orderly end.

mod helpers;
mod serve;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use weir_cluster::ApiAccess;
use weir_datapath::{Loader, PinRoot};
use weir_model::NodeName;
use weir_net::{NetNamespace, Netlink, Watch};

use crate::api::Api;
use crate::args::Args;
use crate::core::{Constants, Core, Input, Parts, Remover};
use crate::error::AgentError;
use crate::installed::Installed;
use crate::policy_log::PolicyLog;
use crate::shared::Shared;
use crate::source::Source;
use crate::stale::Sweeper;
use crate::store::Store;
use crate::telemetry;
use helpers::Helpers;
use serve::serve;

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
