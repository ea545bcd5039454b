// SPDX-License-Identifier: Apache-2.0
//! Accepted objects, by what makes each of them one and the same.

use std::sync::Arc;

use weir_model::{Change, Labels, Namespace, Node, NodeName, Pod, PodRef};

/// Kind and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Node(NodeName),
    Namespace(Namespace),
    Pod(PodRef),
}

impl Key {
    /// What is told when the object is gone.
    pub(crate) fn gone(&self) -> Change {
        match self {
            Self::Node(name) => Change::NodeGone(name.clone()),
            Self::Namespace(name) => Change::NamespaceGone(name.clone()),
            Self::Pod(reference) => Change::PodGone(reference.clone()),
        }
    }

    /// `Pod shop/web`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Node(name) => format!("Node {name}"),
            Self::Namespace(name) => format!("Namespace {name}"),
            Self::Pod(reference) => format!("Pod {reference}"),
        }
    }
}

/// An object that the world takes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Object {
    Node(Arc<Node>),
    Namespace(Namespace, Labels),
    Pod(Arc<Pod>),
}

impl Object {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Node(node) => Key::Node(node.name.clone()),
            Self::Namespace(name, _) => Key::Namespace(name.clone()),
            Self::Pod(pod) => Key::Pod(pod.reference.clone()),
        }
    }

    pub(crate) fn change(&self) -> Change {
        match self {
            Self::Node(node) => Change::Node(Arc::clone(node)),
            Self::Namespace(name, labels) => Change::Namespace(name.clone(), labels.clone()),
            Self::Pod(pod) => Change::Pod(Arc::clone(pod)),
        }
    }
}
