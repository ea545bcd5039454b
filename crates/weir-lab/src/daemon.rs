// SPDX-License-Identifier: Apache-2.0
//! The process behind a lab: the stand-in for API server, scheduler, controllers and kubelets.
//!
//! One thread for each caller, one for each sandbox that reports, one for what happens by itself. The state sits
//! behind one lock that is never held while waiting for anything; operations that change objects run one at a time.

mod apply;
mod containers;
mod create;
mod events;
mod expand;
mod follow;
mod handle;
mod kernel;
mod lab;
mod leave;
mod names;
mod node;
mod pod;
mod probe;
mod readiness;
mod services;
mod store;
mod underlay;
mod wait;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::ExitCode,
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::{
    locked,
    place::Place,
    protocol::{AgentAction, Request, Response},
};
use lab::Lab;

/// What a caller hears while its request is worked on.
pub(crate) type Say<'a> = &'a (dyn Fn(Response) -> Result<()> + Sync);

/// Is the daemon of a lab until the lab goes down. Writes a line to standard output as soon as it can be reached.
pub(crate) fn run(place: &Place) -> Result<ExitCode> {
    nix::unistd::setsid().ok();
    nix::sys::prctl::set_child_subreaper(true)?;
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(place.daemon_log())?;
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Mutex::new(log))
        .init();
    allow_many_files()?;
    let cgroup = place.cgroup()?.join("daemon");
    fs::create_dir_all(&cgroup)?;
    weir_net::cgroup::join(&cgroup)?;
    let commands = place.commands();
    fs::create_dir_all(&commands)?;
    let own = std::env::current_exe()?;
    for name in ["weir", "cilium", "cilium-dbg"] {
        std::os::unix::fs::symlink(&own, commands.join(name)).ok();
    }
    let listener = UnixListener::bind(place.socket())
        .with_context(|| format!("cannot listen at {}", place.socket().display()))?;
    writeln!(std::io::stdout(), "ready")?;

    let lab: Arc<Mutex<Option<Arc<Lab>>>> = Arc::default();
    let (stop, stopped) = channel::<()>();
    let place = place.clone();
    thread::Builder::new()
        .name("accept".to_owned())
        .spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (lab, place, stop) = (Arc::clone(&lab), place.clone(), stop.clone());
                let name = "caller".to_owned();
                let spawned = thread::Builder::new().name(name).spawn(move || {
                    if let Err(error) = attend(&stream, &lab, &place, &stop) {
                        tracing::info!(%error, "a caller went away");
                    }
                });
                if let Err(error) = spawned {
                    tracing::error!(%error, "no thread for a caller");
                }
            }
        })?;
    // Whoever takes the lab down ends this process with its cgroup.
    stopped.recv().ok();
    Ok(ExitCode::SUCCESS)
}

/// A thousand probes at once need more files than the usual 1024; sandboxes inherit the limit.
fn allow_many_files() -> Result<()> {
    const ENOUGH: u64 = 65536;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(ENOUGH)), hard)?;
    Ok(())
}

/// Works on the one request of a caller.
fn attend(
    stream: &UnixStream,
    slot: &Mutex<Option<Arc<Lab>>>,
    place: &Place,
    stop: &Sender<()>,
) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let writer = Mutex::new(stream.try_clone()?);
    let say = |response: Response| -> Result<()> {
        let mut line = serde_json::to_vec(&response)?;
        line.push(b'\n');
        Ok(locked(&writer).write_all(&line)?)
    };
    let request = serde_json::from_str(&line).context("request not understood");
    match request.and_then(|request| work(request, slot, place, stop, &say)) {
        Ok(()) => say(Response::Done),
        Err(error) => say(Response::Failed(format!("{error:#}"))),
    }
}

fn work(
    request: Request,
    slot: &Mutex<Option<Arc<Lab>>>,
    place: &Place,
    stop: &Sender<()>,
    say: Say<'_>,
) -> Result<()> {
    let answer = |value: Result<Value>| say(Response::Answer(value?));
    if let Request::Up {
        topology,
        objects,
        wait,
    } = request
    {
        let lab = {
            let mut slot = locked(slot);
            if slot.is_some() {
                bail!("the lab is up already");
            }
            let lab = Lab::build(place, *topology, say)?;
            *slot = Some(Arc::clone(&lab));
            lab
        };
        let mut all = names::manifest(&lab.topology, &objects)?;
        all.extend(objects);
        return lab.apply(all, wait, say);
    }
    if let Request::Down = request {
        return stop.send(()).map_err(|_| anyhow!("the daemon is ending"));
    }
    let lab = locked(slot).clone().context("the lab is not built yet")?;
    match request {
        Request::Apply { objects, wait } => lab.apply(objects, wait, say),
        Request::Delete {
            objects,
            wait,
            grace,
        } => lab.delete(&objects, wait, grace, say),
        Request::Get {
            kind,
            namespace,
            name,
        } => lab.get(&kind, namespace.as_deref(), name.as_deref(), say),
        Request::Probe { requests } => probe::probe_all(&lab, &requests, say),
        Request::Transfer { request, transfer } => {
            answer(probe::transfer(&lab, &request, transfer))
        }
        Request::Traffic { request, flows } => answer(probe::traffic(&lab, &request, flows)),
        Request::Locate { reference } => {
            answer(serde_json::to_value(lab.locate(&reference)?).map_err(Into::into))
        }
        Request::Agent { node, action } => lab.agent(&node, action, say),
        Request::Up { .. } | Request::Down => Ok(()),
    }
}

impl AgentAction {
    /// The signal that stops the agent.
    fn signal(self) -> i32 {
        match self {
            Self::Kill => libc::SIGKILL,
            Self::Start | Self::Stop | Self::Restart => libc::SIGTERM,
        }
    }
}

/// The variables of processes in the lab. `commands` comes first in the search path.
fn environment(hostname: &str, commands: &str) -> BTreeMap<String, String> {
    let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let mut environment = BTreeMap::from([
        ("PATH".to_owned(), format!("{commands}:{path}")),
        ("HOSTNAME".to_owned(), hostname.to_owned()),
        ("HOME".to_owned(), "/root".to_owned()),
    ]);
    for name in ["LANG", "TERM", "RUST_LOG", "RUST_BACKTRACE", "NO_COLOR"] {
        environment.extend(std::env::var(name).map(|value| (name.to_owned(), value)));
    }
    environment
}
