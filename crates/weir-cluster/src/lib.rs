// SPDX-License-Identifier: Apache-2.0
//! How do outside objects become changes of the world?
//!
//! Reads Kubernetes objects (from a folder of YAML or from an API server) and hands out
//! [`weir_model::Change`]s. An object that cannot be true is refused by file, object and field; the
//! others stay. Kubernetes' own types never leave this crate.
//!
//! The crate must not know what is done with the world (`weir-compile`, `weir-agent`). Start reading
//! at [`folder`], then `convert`; [`api`] is the other source.

pub mod api;
mod convert;
mod document;
pub mod folder;
mod object;
mod problem;
pub mod text;
pub mod watch;

pub use api::{
    About, Accepting, Announcement, ApiAccess, ApiHealth, ApiWatcher, ApiWriter, Reason, Remark,
};
pub use folder::{Batch, Folder};
pub use problem::{Cause, ObjectProblem, SourceError};
pub use watch::Watcher;
