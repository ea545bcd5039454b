// SPDX-License-Identifier: Apache-2.0
//! What is left of backends that are gone: clients that would stick to them, and sockets that talk to them.
//!
//! A TCP client learns from the network that its peer is gone; a connected UDP socket would go on sending to an
//! address that nobody has, or worse, that somebody else has. So it is ended, and its program opens another.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

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

fn run(queue: &Receiver<Work>) {
    while let Ok(mut work) = queue.recv() {
        // One walk over the tables for all that have gone meanwhile.
        while let Ok(more) = queue.try_recv() {
            work.gone.extend(more.gone);
            work.maps = more.maps;
            work.namespaces = more.namespaces;
        }
        if let Err(error) = sweep(&work) {
            tracing::warn!(
                error = chain(&error),
                "clients may still stick to backends that are gone"
            );
        }
    }
}

fn sweep(work: &Work) -> weir_datapath::Result<()> {
    let maps = &work.maps;
    let mut gone: HashSet<Gone> = HashSet::new();
    for one in &work.gone {
        // It may have come back meanwhile.
        let (service, address, port) = *one;
        let key = ServiceBackendKey {
            address,
            service,
            port,
            reserved: [0; 2],
        };
        if maps.service_backends.get(&key)?.is_none() {
            gone.insert(*one);
        }
    }
    let mut clients = Vec::new();
    maps.affinity.for_each(|key, row| {
        if gone.contains(&(key.service, row.backend, row.port)) {
            clients.push(key);
        }
    })?;
    let mut sockets: Vec<SocketKey> = Vec::new();
    maps.socket_services.for_each(|key, row| {
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
    let refused = maps.affinity.delete_all(&clients).into_iter();
    let refused = refused.chain(maps.socket_services.delete_all(&sockets));
    refused
        .map(|(_, error)| Err(error))
        .next()
        .unwrap_or(Ok(()))
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
