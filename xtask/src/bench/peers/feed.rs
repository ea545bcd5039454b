// SPDX-License-Identifier: Apache-2.0
//! What feeds the sides: a real API server, which kube-proxies and an agent watch, or this program, which writes the rules
//! and the folder that the agent reads.

use anyhow::Result;
use serde_json::{Value, json};

use super::api::{self, Api};
use super::folder::Folder;
use super::objects::{self, Half, PODS, SERVICES, SLICES, answers};
use super::side::{Kind, Side, Still};
use super::{kube_proxy, rules, weir};
use crate::bench::Family;
use crate::cluster::place::Place;

/// What feeds the sides, with services of one family.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) family: Family,
    pub(super) source: Source,
}

/// Where the objects come from.
#[derive(Debug)]
pub(super) enum Source {
    Server(Api),
    Folder(Folder),
}

impl Feed {
    /// An API server that is up.
    pub(super) fn server(place: &Place, family: Family) -> Result<Self> {
        let api = Api::open(place)?;
        api.post(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        )?;
        weir::define(place, &api)?;
        let source = Source::Server(api);
        Ok(Self { family, source })
    }

    /// No server: what it would do is done here.
    pub(super) fn folder(place: &Place, family: Family) -> Result<Self> {
        let folder = Folder::make(place.state().join("objects"), family)?;
        let source = Source::Folder(folder);
        Ok(Self { family, source })
    }

    /// What is measured beside, for the output.
    pub(super) fn versions(&self) -> Result<String> {
        Ok(match &self.source {
            Source::Server(_) => format!("{}, {}", kube_proxy::version()?, rules::versions()?),
            Source::Folder(_) => format!(
                "rules of the form of kube-proxy's, written by this program, not by kube-proxy; {}",
                rules::versions()?
            ),
        })
    }

    pub(super) fn add_node(&self, node: &Value) -> Result<()> {
        match &self.source {
            Source::Server(api) => api.post("/api/v1/nodes", node).map(drop),
            Source::Folder(folder) => folder.write("node", node),
        }
    }

    /// Makes a pod; its uid, where a server has given it one.
    pub(super) fn add_pod(&self, pod: &Value) -> Result<Option<String>> {
        let Source::Server(api) = &self.source else {
            return Ok(None);
        };
        let made = api.post(PODS, pod)?;
        Ok(made["metadata"]["uid"].as_str().map(str::to_owned))
    }

    /// The pod runs, as its status says.
    pub(super) fn pod_runs(&self, pod: &Value) -> Result<()> {
        match &self.source {
            Source::Server(api) => api.put_status(PODS, pod),
            Source::Folder(folder) => folder.write("pod", pod),
        }
    }

    /// Adds services after the first `from` up to the number `last`, which alone is sure to be the last to be known.
    pub(super) fn grow(&self, from: u32, last: u32, sides: &[Side]) -> Result<()> {
        match &self.source {
            Source::Server(api) => {
                let make = |number: u32| -> Result<()> {
                    api.post(SERVICES, &objects::service(self.family, number))?;
                    let slice = objects::slice(self.family, number, answers(number, last), None);
                    api.post(SLICES, &slice).map(drop)
                };
                // The API server takes them in faster when not everybody writes rules for each few of them meanwhile; those
                // of iptables take so long that they are begun with at once.
                let still = Still::but(Kind::Iptables, sides)?;
                api::many(last - from, |offset| make(from + offset))?;
                drop(still);
                make(last)
            }
            Source::Folder(folder) => {
                folder.write_services(last)?;
                sides.iter().try_for_each(|side| {
                    side.write_rules(|kind| rules::all(kind, self.family, from == 0, last))
                })
            }
        }
    }

    /// Gives a service, the last one, that half of the backends, in the way that the side hears of it.
    pub(super) fn change(&self, side: &Side, service: u32, half: Half) -> Result<()> {
        match &self.source {
            Source::Server(api) => api.put(
                SLICES,
                &objects::slice(self.family, service, true, Some(half)),
            ),
            Source::Folder(folder) if side.kind == Kind::Weir => folder.change(service, half),
            Source::Folder(_) => {
                side.write_rules(|kind| rules::change(kind, self.family, service, half))
            }
        }
    }

    /// Tells the sides that [`change`](Self::change) has not told.
    pub(super) fn follow(
        &self,
        told: Kind,
        sides: &[Side],
        service: u32,
        half: Half,
    ) -> Result<()> {
        match &self.source {
            // Everybody watches.
            Source::Server(_) => Ok(()),
            Source::Folder(_) => sides
                .iter()
                .filter(|side| side.kind != told)
                .try_for_each(|side| self.change(side, service, half)),
        }
    }
}
