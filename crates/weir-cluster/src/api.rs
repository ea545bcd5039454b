// SPDX-License-Identifier: Apache-2.0
//! An API server as the source of the world.
//!
//! Each kind of objects is watched by a task and a connection of its own; what they tell comes
//! together in one place (`mirror`), is proven as objects from files are, and goes on as the same
//! [`Batch`]es. A server that is away changes nothing: what was told stays, the tasks try again, and
//! the health line says since when.

mod access;
mod announce;
mod announcing;
mod health;
mod kind;
mod mirror;
mod owner;
mod raw;
mod remark;
mod taint;
mod watch;

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use kube::client::{Client, ClientBuilder, DynBody};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{oneshot, watch as latest};
use tokio::time::MissedTickBehavior;
use tower::util::MapResponseLayer;
use weir_model::NodeName;

pub use self::access::ApiAccess;
pub use self::announce::{Accepting, Announcement};
use self::announce::{Progress, Wanted};
pub use self::announcing::Announcing;
pub use self::health::ApiHealth;
use self::health::Notes;
use self::kind::Kind;
use self::mirror::{Mirror, Step};
pub use self::owner::{DaemonSetRef, Fate};
pub use self::remark::{About, Reason, Remark};
use self::watch::reason_of;
use crate::{Batch, SourceError};

/// How often the health line is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Steps that wait to be taken in. They hold raw objects; a list of ten thousand pods waits at the
/// server, not here.
const WAITING: usize = 256;
/// Remarks that wait to be written; others are dropped meanwhile.
const REMARKS: usize = 64;

/// What an API server, or its absence, has to say.
#[derive(Debug)]
pub enum Told {
    /// Objects; or, before there were any, why there are none.
    Objects(Result<Batch, SourceError>),
    /// The watches are not as they were.
    Health(ApiHealth),
    /// The same of what is announced.
    Announcing(Announcing),
}

/// What an agent writes. Its loop never waits for it.
#[derive(Clone, Debug)]
pub struct ApiWriter {
    announcement: latest::Sender<Wanted>,
    progress: latest::Receiver<Progress>,
    remarks: Sender<Remark>,
}

impl ApiWriter {
    /// Has this written in the place of what was announced before, as soon as that can be.
    pub fn announce(&self, announcement: Announcement) -> Accepting {
        let mut number = 0;
        self.announcement
            .send_modify(|wanted| number = wanted.replace(announcement));
        let progress = self.progress.clone();
        Accepting { number, progress }
    }

    /// Has an event made, if nothing stands against it.
    pub fn remark(&self, remark: Remark) {
        if let Err(error) = self.remarks.try_send(remark) {
            tracing::debug!(%error, "event not written");
        }
    }
}

/// Running watches; they end when dropped.
#[derive(Debug)]
pub struct ApiWatcher {
    writer: ApiWriter,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ApiWatcher {
    /// Calls `tell` with everything that is news, on a thread of its own. A server that does not
    /// answer is no error here; not to know where it is or who asks is one.
    pub fn start(
        access: &ApiAccess,
        node: NodeName,
        mut tell: impl FnMut(Told) + Send + 'static,
    ) -> Result<Self, SourceError> {
        let failed = |source: io::Error| SourceError::Watches { source };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .thread_name("source-names")
            .build()
            .map_err(failed)?;
        let (clients, writing, notes) = runtime.block_on(clients(access))?;
        let (stop, stopped) = oneshot::channel();
        let (announcement, announcements) = latest::channel(Wanted::default());
        let (accepted, progress) = latest::channel(Progress::default());
        let (remark, remarks) = channel(REMARKS);
        let writing = Writing {
            client: writing,
            node,
            announcements,
            accepted,
            remarks,
        };
        let thread = thread::Builder::new()
            .name("source".to_owned())
            .spawn(move || run(runtime, clients, &notes, writing, stopped, &mut tell))
            .map_err(failed)?;
        let writer = ApiWriter {
            announcement,
            progress,
            remarks: remark,
        };
        Ok(Self {
            writer,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// A way to write.
    pub fn writer(&self) -> ApiWriter {
        self.writer.clone()
    }
}

impl Drop for ApiWatcher {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What there is to be written.
struct Writing {
    client: Client,
    node: NodeName,
    announcements: latest::Receiver<Wanted>,
    accepted: latest::Sender<Progress>,
    remarks: Receiver<Remark>,
}

type Clients = Vec<(Kind, Client)>;

/// A client for each kind: every watch holds a connection anyway, and so it is known which of them
/// was answered. And one for what is written, of which no watch learns anything.
async fn clients(access: &ApiAccess) -> Result<(Clients, Client, Arc<Notes>), SourceError> {
    let config = access.config().await?;
    let server = config.cluster_url.to_string();
    let notes = Arc::new(Notes::new(server.trim_end_matches('/').to_owned()));
    let builder = || {
        ClientBuilder::try_from(config.clone()).map_err(|source| {
            let source = Box::new(source);
            SourceError::Client { source }
        })
    };
    let client = |kind: Kind| {
        let notes = Arc::clone(&notes);
        let noted = MapResponseLayer::new(move |response: http::Response<Box<DynBody>>| {
            if response.status().is_success() {
                notes.answered(kind, SystemTime::now());
            }
            response
        });
        Ok((kind, builder()?.with_layer(&noted).build()))
    };
    let clients: Result<Clients, SourceError> = Kind::ALL.into_iter().map(client).collect();
    Ok((clients?, builder()?.build(), notes))
}

fn run(
    runtime: Runtime,
    clients: Clients,
    notes: &Arc<Notes>,
    writing: Writing,
    stopped: oneshot::Receiver<()>,
    tell: &mut impl FnMut(Told),
) {
    runtime.block_on(async {
        let (sender, steps) = channel(WAITING);
        let any = clients.first().map(|(_, client)| client.clone());
        for (kind, client) in clients {
            let (notes, sender) = (Arc::clone(notes), sender.clone());
            tokio::spawn(watch::follow(kind, client, notes, sender));
        }
        drop(sender);
        let (announced, announcing) = latest::channel(None);
        let Writing {
            client,
            node,
            announcements,
            accepted,
            remarks,
        } = writing;
        tokio::spawn(announce::announce(
            client.clone(),
            announcements,
            accepted,
            announced,
        ));
        tokio::spawn(remark::tell(client, node, remarks));
        tokio::select! {
            () = gather(steps, notes, any, announcing, tell) => {}
            _ = stopped => {}
        }
    });
    // Tasks hold nothing that needs an orderly end.
    runtime.shutdown_background();
}

async fn gather(
    mut steps: Receiver<(Kind, Step)>,
    notes: &Arc<Notes>,
    client: Option<Client>,
    mut announcing: latest::Receiver<Option<Announcing>>,
    tell: &mut impl FnMut(Told),
) {
    let mut mirror = Mirror::default();
    let mut arrived = Vec::with_capacity(WAITING);
    let mut health = ApiHealth::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Everything that has arrived makes one batch.
            count = steps.recv_many(&mut arrived, WAITING) => {
                if count == 0 {
                    return;
                }
                for (kind, step) in arrived.drain(..) {
                    mirror.take(kind, step);
                }
                if let Some(batch) = mirror.batch() {
                    tell(Told::Objects(Ok(batch)));
                }
            }
            Ok(()) = announcing.changed() => {
                if let Some(now) = announcing.borrow_and_update().clone() {
                    tell(Told::Announcing(now));
                }
            }
            _ = look.tick() => {}
        }
        let now = notes.health(SystemTime::now());
        if now == health {
            continue;
        }
        if now.healthy && !health.healthy {
            // The server may be another one than before.
            if let Some(client) = client.clone() {
                tokio::spawn(ask_version(client, Arc::clone(notes)));
            }
        }
        if !now.synced && now.broken {
            let message = now.message.clone();
            tell(Told::Objects(Err(SourceError::NotListed { message })));
        }
        health = now.clone();
        tell(Told::Health(now));
    }
}

/// For people only.
async fn ask_version(client: Client, notes: Arc<Notes>) {
    if let Ok(version) = client.apiserver_version().await {
        notes.set_version(version.git_version);
    }
}

#[cfg(test)]
mod tests;
