// SPDX-License-Identifier: Apache-2.0
//! Where the sides have nodes, pods and services from: a real API server, which kube-proxies and an agent watch, or a folder
//! that the agent reads, beside rules that this program writes.

use anyhow::Result;
use serde_json::{Value, json};

use super::api::Api;
use super::folder::Folder;
use super::objects::PODS;
use super::{kube_proxy, rules};
use crate::bench::Family;
use crate::cluster::control_plane::kubectl;
use crate::cluster::place::Place;
use crate::cluster::processes::{run, wait_for};
use crate::workspace;

/// The source, with services of one family.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) family: Family,
    pub(super) objects: Objects,
}

/// Who holds the objects.
#[derive(Debug)]
pub(super) enum Objects {
    Server(Api),
    Folder(Folder),
}

impl Source {
    /// An API server that is up.
    pub(super) fn server(place: &Place, family: Family) -> Result<Self> {
        let api = Api::open(place)?;
        api.post(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({"metadata": {"name": "default"}}),
        )?;
        define(place, &api)?;
        let objects = Objects::Server(api);
        Ok(Self { family, objects })
    }

    /// No server: what it would do is done here.
    pub(super) fn folder(place: &Place, family: Family) -> Result<Self> {
        let folder = Folder::make(place.state().join("objects"), family)?;
        let objects = Objects::Folder(folder);
        Ok(Self { family, objects })
    }

    /// What is measured beside, for the output.
    pub(super) fn versions(&self) -> Result<String> {
        Ok(match &self.objects {
            Objects::Server(_) => format!("{}, {}", kube_proxy::version()?, rules::versions()?),
            Objects::Folder(_) => format!(
                "rules of the form of kube-proxy's, written by this program, not by kube-proxy; {}",
                rules::versions()?
            ),
        })
    }

    pub(super) fn add_node(&self, node: &Value) -> Result<()> {
        match &self.objects {
            Objects::Server(api) => api.post("/api/v1/nodes", node).map(drop),
            Objects::Folder(folder) => folder.write("Node", node),
        }
    }

    /// Makes a pod; its uid, where a server has given it one.
    pub(super) fn add_pod(&self, pod: &Value) -> Result<Option<String>> {
        let Objects::Server(api) = &self.objects else {
            return Ok(None);
        };
        let made = api.post(PODS, pod)?;
        Ok(made["metadata"]["uid"].as_str().map(str::to_owned))
    }

    /// The pod runs, as its status says.
    pub(super) fn pod_runs(&self, pod: &Value) -> Result<()> {
        match &self.objects {
            Objects::Server(api) => api.put_status(PODS, pod),
            Objects::Folder(folder) => folder.write("Pod", pod),
        }
    }
}

/// Has the API server know what the agents tell each other; before the first agent.
fn define(place: &Place, api: &Api) -> Result<()> {
    run(kubectl(place)
        .args(["apply", "--filename"])
        .arg(workspace::root().join("deploy/crds")))?;
    wait_for("the API server to know Weir's objects", 30, || {
        api.get("/apis/weir.dev/v1alpha1/nodepods").is_ok()
    })
}
