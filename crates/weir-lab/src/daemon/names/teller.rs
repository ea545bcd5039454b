// SPDX-License-Identifier: Apache-2.0
//! Telling the servers what there are names for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

use super::records::services;
use crate::{
    daemon::{handle::Sandbox, store::Store},
    names::{Names, Namespace, Update},
    object::Object,
    protocol::Order,
};

const ORDER_LIMIT: Duration = Duration::from_secs(5);

/// Tells the DNS servers what there are names for, in a thread of its own: whoever changes objects does not wait.
#[derive(Clone, Debug)]
pub(crate) struct Teller(Sender<News>);

#[derive(Debug)]
enum News {
    Server(Arc<Sandbox>),
    Names(BTreeMap<String, Option<Namespace>>),
    /// Everything before this has been told.
    Until(Sender<()>),
}

impl Teller {
    pub(crate) fn start(domain: String) -> Result<Self> {
        let (sender, news) = channel();
        thread::Builder::new()
            .name("names".to_owned())
            .spawn(move || tell(&domain, &news))?;
        Ok(Self(sender))
    }

    /// There is one more server.
    pub(crate) fn add(&self, server: &Arc<Sandbox>) {
        self.send(News::Server(Arc::clone(server)));
    }

    /// Takes in what has changed since it was published the last time.
    pub(crate) fn follow(&self, store: &Store) {
        let mut dirty = store.dirty(&["Service", "EndpointSlice"]);
        if !store.dirty(&["Namespace"]).is_empty() {
            let all = store.of_kind("Namespace");
            dirty.extend(all.map(|namespace| namespace.name().to_owned()));
        }
        if dirty.is_empty() {
            return;
        }
        let there: BTreeSet<&str> = store.of_kind("Namespace").map(Object::name).collect();
        let names = dirty.into_iter().map(|namespace| {
            let services = there
                .contains(namespace.as_str())
                .then(|| services(store, &namespace));
            (namespace, services)
        });
        self.send(News::Names(names.collect()));
    }

    /// Waits until every server knows what there is now.
    pub(crate) fn wait(&self) {
        let (sender, told) = channel();
        self.send(News::Until(sender));
        told.recv_timeout(ORDER_LIMIT * 2).ok();
    }

    fn send(&self, news: News) {
        if self.0.send(news).is_err() {
            tracing::error!("nobody tells names any more");
        }
    }
}

fn tell(domain: &str, news: &Receiver<News>) {
    let mut names = Names {
        domain: domain.to_owned(),
        ..Names::default()
    };
    let mut servers: Vec<Arc<Sandbox>> = Vec::new();
    for news in news {
        match news {
            // It serves both protocols.
            News::Server(server) if servers.iter().any(|own| Arc::ptr_eq(own, &server)) => {}
            News::Server(server) => {
                let all = names.namespaces.iter();
                let update = Update {
                    domain: domain.to_owned(),
                    namespaces: all.map(|(n, s)| (n.clone(), Some(s.clone()))).collect(),
                };
                if reaches(&server, &update) {
                    servers.push(server);
                }
            }
            News::Names(mut namespaces) => {
                namespaces.retain(|name, services| names.namespaces.get(name) != services.as_ref());
                if !namespaces.is_empty() {
                    let update = Update {
                        domain: domain.to_owned(),
                        namespaces,
                    };
                    servers.retain(|server| reaches(server, &update));
                    names.update(update);
                }
            }
            // Whoever waited may have given up.
            News::Until(sender) => drop(sender.send(())),
        }
    }
}

/// Tells a server; one that is gone is not told again.
fn reaches(server: &Sandbox, update: &Update) -> bool {
    let told = server.call(Order::Names(update.clone()), ORDER_LIMIT);
    if let Err(error) = &told {
        tracing::info!(
            error = format!("{error:#}"),
            "a DNS server is not told names"
        );
    }
    told.is_ok()
}
