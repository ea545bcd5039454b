// SPDX-License-Identifier: Apache-2.0
//! What the lab's DNS server knows of the cluster, as the daemon tells it.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// The services of a namespace by name.
pub(crate) type Namespace = BTreeMap<String, Service>;

/// Everything there are names for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    /// The cluster's domain.
    pub(crate) domain: String,
    pub(crate) namespaces: BTreeMap<String, Namespace>,
}

/// What has changed: namespaces as they are now, none where one is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Update {
    pub(crate) domain: String,
    pub(crate) namespaces: BTreeMap<String, Option<Namespace>>,
}

impl Names {
    pub(crate) fn update(&mut self, update: Update) {
        self.domain = update.domain;
        for (name, namespace) in update.namespaces {
            match namespace {
                Some(namespace) => self.namespaces.insert(name, namespace),
                None => self.namespaces.remove(&name),
            };
        }
    }
}

/// What the names of a service stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    /// Its cluster IPs, or those of its ready endpoints when it is headless.
    pub(crate) addresses: Vec<IpAddr>,
    /// Another name that it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alias: Option<String>,
    pub(crate) ports: Vec<Port>,
    /// The ready endpoints of a headless service; others have names of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A port with a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// In lower case.
    pub(crate) protocol: String,
    pub(crate) number: u16,
}

/// One endpoint of a headless service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// The label in front of the service's name.
    pub(crate) label: String,
    pub(crate) address: IpAddr,
    pub(crate) ports: Vec<Port>,
}
