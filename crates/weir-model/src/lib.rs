// SPDX-License-Identifier: Apache-2.0
//! What is the desired world, in types that cannot be wrong?
//!
//! Nodes, namespaces and pods as proven values: whatever is in a [`World`] has legal names, legal
//! labels and legal ranges. Sources hand in [`Change`]s; identities number the label sets.
//!
//! The crate must not know Kubernetes' own types (`weir-cluster`), map rows (`weir-compile`) or
//! anything that does I/O. Start reading at [`world`].

pub mod cidr;
pub mod identity;
pub mod labels;
pub mod name;
pub mod node;
pub mod pod;
pub mod world;

pub use cidr::{InvalidPodCidr, PodCidr};
pub use identity::{IdentityTable, LabelSet};
pub use labels::{InvalidLabel, Labels};
pub use name::{InvalidName, Namespace, NodeName, PodName};
pub use node::Node;
pub use pod::{ContainerPort, Pod, PodRef};
pub use world::{Change, World};
