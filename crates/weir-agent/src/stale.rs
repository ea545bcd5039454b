// SPDX-License-Identifier: Apache-2.0
//! What is left of backends that are gone: clients that would stick to them, and sockets that talk to them.
//!
//! A TCP client learns from the network that its peer is gone; a connected UDP socket would go on sending to an
//! address that nobody has, or worse, that somebody else has. So it is ended, and its program opens another; a moment
//! later, because a backend that leaves its service may be well and about to answer what it was asked before.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use weir_abi::service::{ServiceBackendKey, SocketKey};
use weir_abi::{Address, Port, Protocol, ServiceId};
use weir_datapath::Maps;
use weir_net::{NetNamespace, SocketDiagnosis};

use crate::error::chain;

/// A backend that a service port has no more.
pub(crate) type Gone = (ServiceId, Address, Port);

/// A pod's network namespace: a path, and the inode that it must lead to.
pub(crate) type Namespace = (String, u64);

/// Backends that have gone at one time.
pub(crate) struct Work {
    pub(crate) maps: Arc<Maps>,
    pub(crate) gone: Vec<Gone>,
    pub(crate) namespaces: Vec<Namespace>,
}

/// A thread beside the loop: tables are large, and there are many namespaces.
#[derive(Debug)]
pub(crate) struct Sweeper(Sender<Work>);

impl Sweeper {
    /// Starts the thread, in the node's own network namespace.
    pub(crate) fn start() -> io::Result<Self> {
        let (work, queue) = channel();
        thread::Builder::new()
            .name("sweeper".to_owned())
            .spawn(move || run(&queue))?;
        Ok(Self(work))
    }

    /// Has the traces of backends removed. What is not done when the agent ends is only untidy.
    pub(crate) fn sweep(&self, work: Work) {
        let _ = self.0.send(work);
    }
}

/// Answers that are on their way when a backend leaves get this long to arrive.
const PATIENCE: Duration = Duration::from_millis(500);

fn run(queue: &Receiver<Work>) {
    let mut leaving = Leaving(VecDeque::new());
    loop {
        let next = match leaving.next() {
            Some(due) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(work) => {
                let work = queue.try_iter().fold(work, Work::and);
                warn_of(forget_clients(&work));
                leaving.put(work, Instant::now());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // Also when others go all the time.
        if let Some(work) = leaving.take(Instant::now()).reduce(Work::and) {
            warn_of(end_sockets(&work));
        }
    }
}

fn warn_of(result: weir_datapath::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(
            error = chain(&error),
            "clients may still stick to backends that are gone"
        );
    }
}

/// What is to be done later, in the order in which it came.
struct Leaving<T>(VecDeque<(Instant, T)>);

impl<T> Leaving<T> {
    fn put(&mut self, work: T, now: Instant) {
        self.0.push_back((now + PATIENCE, work));
    }

    /// When the first of it is due.
    fn next(&self) -> Option<Instant> {
        self.0.front().map(|(due, _)| *due)
    }

    /// All that is due.
    fn take(&mut self, now: Instant) -> impl Iterator<Item = T> {
        let count = self.0.iter().take_while(|(due, _)| *due <= now).count();
        self.0.drain(..count).map(|(_, work)| work)
    }
}

impl Work {
    /// Both as one: tables are walked once for them, and the later one knows best what there is.
    fn and(self, later: Self) -> Self {
        let mut gone = self.gone;
        gone.extend(later.gone);
        Self { gone, ..later }
    }
}

/// Those of them that have not come back meanwhile.
fn still_gone(work: &Work) -> weir_datapath::Result<HashSet<Gone>> {
    let mut gone = HashSet::new();
    for one in &work.gone {
        let (service, address, port) = *one;
        let key = ServiceBackendKey {
            address,
            service,
            port,
            reserved: [0; 2],
        };
        if work.maps.service_backends.get(&key)?.is_none() {
            gone.insert(*one);
        }
    }
    Ok(gone)
}

fn forget_clients(work: &Work) -> weir_datapath::Result<()> {
    let gone = still_gone(work)?;
    let mut clients = Vec::new();
    work.maps.affinity.for_each(|key, row| {
        if gone.contains(&(key.service, row.backend, row.port)) {
            clients.push(key);
        }
    })?;
    first_error(work.maps.affinity.delete_all(&clients))
}

fn end_sockets(work: &Work) -> weir_datapath::Result<()> {
    let gone = still_gone(work)?;
    let mut sockets: Vec<SocketKey> = Vec::new();
    work.maps.socket_services.for_each(|key, row| {
        if gone.contains(&(row.service, key.backend, key.port)) {
            sockets.push(key);
        }
    })?;
    let udp: HashSet<u64> = sockets
        .iter()
        .filter(|key| key.protocol == Protocol::UDP)
        .map(|key| key.cookie)
        .collect();
    let ended = if udp.is_empty() {
        0
    } else {
        end_everywhere(&udp, &work.namespaces)
    };
    if ended > 0 {
        tracing::info!(
            sockets = ended,
            "UDP sockets to backends that are gone were ended"
        );
    }
    first_error(work.maps.socket_services.delete_all(&sockets))
}

/// Ends the sockets in the node's own namespace and in those of its pods.
fn end_everywhere(cookies: &HashSet<u64>, namespaces: &[Namespace]) -> usize {
    let pods = namespaces.iter().filter_map(|(path, inode)| {
        let namespace = NetNamespace::open(path).ok()?;
        let is_it = namespace.inode().is_ok_and(|found| found == *inode);
        is_it.then(|| SocketDiagnosis::open_in(&namespace))
    });
    let mut ended = 0;
    for diagnosis in std::iter::once(SocketDiagnosis::open()).chain(pods) {
        match diagnosis.and_then(|mut diagnosis| end(&mut diagnosis, cookies)) {
            Ok(count) => ended += count,
            Err(error) => tracing::debug!(error = chain(&error), "UDP sockets not looked at"),
        }
    }
    ended
}

fn end(diagnosis: &mut SocketDiagnosis, cookies: &HashSet<u64>) -> weir_net::Result<usize> {
    let mut ended = 0;
    for socket in diagnosis.connected_udp()? {
        if cookies.contains(&socket.cookie) && diagnosis.end(&socket)? {
            ended += 1;
        }
    }
    Ok(ended)
}

/// Rows that were not deleted stay until their own end; the first says why.
fn first_error(refused: Vec<(usize, weir_datapath::Error)>) -> weir_datapath::Result<()> {
    refused
        .into_iter()
        .next()
        .map_or(Ok(()), |(_, error)| Err(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_ended_before_its_answers_could_arrive() {
        let start = Instant::now();
        let mut leaving = Leaving(VecDeque::new());
        assert_eq!(leaving.next(), None);
        leaving.put("first", start);
        leaving.put("second", start + PATIENCE / 2);
        let (due, later) = (start + PATIENCE, start + PATIENCE * 2);
        assert_eq!(leaving.next(), Some(due));
        let mut take = |now| leaving.take(now).collect::<Vec<_>>();
        assert!(take(start + PATIENCE / 2).is_empty());
        assert_eq!(take(due), ["first"]);
        assert_eq!(take(later), ["second"]);
        assert!(take(later).is_empty());
    }
}
