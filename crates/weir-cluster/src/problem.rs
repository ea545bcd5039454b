// SPDX-License-Identifier: Apache-2.0
//! What a source could not read or will not accept.

use std::fmt;
use std::io;
use std::path::PathBuf;

use weir_model::PolicyRef;

/// An object that is refused: where it stands, what it is called, which of its fields is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectProblem {
    /// Empty where it comes from an API server.
    pub file: PathBuf,
    /// `Pod shop/web`; empty where the text is no object at all.
    pub object: String,
    /// `status.podIPs[0].ip`; empty where no single field is to blame.
    pub field: String,
    pub message: String,
    /// It is this policy of an API server, where an event may be written about it.
    pub policy: Option<PolicyRef>,
}

impl ObjectProblem {
    /// What is wrong, without where.
    pub fn cause(&self) -> String {
        if self.field.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.field, self.message)
        }
    }
}

impl fmt::Display for ObjectProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            object,
            field,
            message,
            policy: _,
        } = self;
        // Only a folder has files.
        if !file.as_os_str().is_empty() {
            write!(f, "{}: ", file.display())?;
        }
        for part in [object, field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(message)
    }
}

/// What a client of Kubernetes says; its types are nobody else's business.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a source as a whole cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    #[error("cannot read the folder of objects {path}")]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} must hold a number, not `{text}`")]
    Revision { path: PathBuf, text: String },
    #[error("cannot watch {path} for changes")]
    Watch {
        path: PathBuf,
        source: notify::Error,
    },
    #[error("cannot start the thread that watches {path}")]
    Thread { path: PathBuf, source: io::Error },
    #[error(
        "no source of objects: give --objects DIR or --kubeconfig FILE, or run in a pod with a service account"
    )]
    NoAccess,
    #[error("`{text}` is no address of an API server, such as https://10.0.0.1:6443")]
    Server { text: String },
    #[error("the kubeconfig cannot be used")]
    Kubeconfig { source: Cause },
    #[error(
        "the service account of this pod cannot be used; apiServer in the configuration says where the API server is"
    )]
    Account { source: Cause },
    #[error("no client of the API server can be made")]
    Client { source: Cause },
    #[error("cannot start the watches of the API server")]
    Watches { source: io::Error },
    #[error("{message}")]
    NotListed { message: String },
}
