// SPDX-License-Identifier: Apache-2.0
//! The sandbox's conversation with the daemon.

use std::{
    cell::RefCell, collections::BTreeSet, os::unix::net::UnixStream, rc::Rc, time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::LocalSet,
};

use super::{
    Specification, dns,
    echo::{Listeners, Service},
    flows, probe,
    process::Processes,
};
use crate::protocol::{Numbered, Order, Report};

/// Everything that orders work on.
struct Sandbox {
    echo: Service,
    listeners: RefCell<Listeners>,
    names: dns::Table,
    processes: RefCell<Processes>,
}

/// Works on orders until the daemon hangs up.
pub(crate) async fn serve(specification: &Specification, control: UnixStream) -> Result<()> {
    control.set_nonblocking(true)?;
    let (read, write) = tokio::net::UnixStream::from_std(control)?.into_split();
    let (reports, outbox) = unbounded_channel();
    let sandbox = Rc::new(Sandbox {
        echo: Service::Echo(specification.name.clone()),
        listeners: RefCell::default(),
        names: Rc::default(),
        processes: RefCell::new(Processes::default()),
    });
    let tasks = LocalSet::new();
    tasks.spawn_local(send_reports(outbox, write));
    tasks.spawn_local(reap(Rc::clone(&sandbox), reports.clone()));
    tasks
        .run_until(async move {
            let mut lines = BufReader::new(read).lines();
            while let Some(line) = lines.next_line().await? {
                let Numbered { id, order } =
                    serde_json::from_str(&line).context("order not understood")?;
                let (sandbox, reports) = (Rc::clone(&sandbox), reports.clone());
                tokio::task::spawn_local(async move {
                    let result = sandbox
                        .obey(order)
                        .await
                        .map_err(|error| format!("{error:#}"));
                    // The daemon is gone when nobody listens; then so is the sandbox in a moment.
                    let _ = reports.send(Report::Reply { id, result });
                });
            }
            Ok(())
        })
        .await
}

impl Sandbox {
    async fn obey(&self, order: Order) -> Result<Value> {
        Ok(match order {
            Order::Serve { protocol, port } => {
                let mut listeners = self.listeners.borrow_mut();
                listeners.acquire(protocol, port, &self.echo)?;
                Value::Null
            }
            Order::ServeNames { protocol, port } => {
                let names = Service::Names(Rc::clone(&self.names));
                let mut listeners = self.listeners.borrow_mut();
                listeners.acquire(protocol, port, &names)?;
                Value::Null
            }
            Order::Names(update) => {
                self.names.borrow_mut().update(update);
                Value::Null
            }
            Order::Release { protocol, port } => {
                self.listeners.borrow_mut().release(protocol, port);
                Value::Null
            }
            Order::Probe { path, exchange } => {
                serde_json::to_value(probe::probe(path, *exchange).await)?
            }
            Order::Resolve { name } => {
                // The port is only there because the resolver of the library wants one.
                let found = tokio::net::lookup_host((name.as_str(), 0)).await;
                let found = found.with_context(|| format!("{name} is not known"))?;
                let addresses: BTreeSet<_> = found.map(|address| address.ip()).collect();
                json!(addresses)
            }
            Order::Connect { path } => {
                let limit = Duration::from_millis(path.timeout_ms);
                tokio::time::timeout(limit, probe::connect(&path)).await??;
                Value::Null
            }
            Order::Fetch { path, page, host } => {
                let limit = Duration::from_millis(path.timeout_ms);
                let status =
                    tokio::time::timeout(limit, probe::fetch(path, &page, &host)).await??;
                json!({"status": status})
            }
            Order::Transfer { path, transfer } => flows::transfer(path, transfer).await?,
            Order::Traffic { path, flows } => flows::traffic(path, flows).await?,
            Order::Start(process) => {
                json!({"pid": self.processes.borrow_mut().start(&process)?})
            }
            Order::Signal { process, signal } => {
                json!({"sent": self.processes.borrow().signal(&process, signal)?})
            }
        })
    }
}

async fn send_reports(
    mut outbox: UnboundedReceiver<Report>,
    mut write: tokio::net::unix::OwnedWriteHalf,
) {
    while let Some(report) = outbox.recv().await {
        let Ok(mut line) = serde_json::to_vec(&report) else {
            continue;
        };
        line.push(b'\n');
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Collects ended children, those of others too: in a pod this process is init.
async fn reap(sandbox: Rc<Sandbox>, reports: UnboundedSender<Report>) {
    let Ok(mut ended) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())
    else {
        return;
    };
    loop {
        for (process, code) in sandbox.processes.borrow_mut().reap() {
            let _ = reports.send(Report::Exited { process, code });
        }
        if ended.recv().await.is_none() {
            return;
        }
    }
}
