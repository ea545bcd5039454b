// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, always with the object and the errno.

use std::io;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the host's network could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a request; the source holds the errno.
    #[error("cannot {action} {object}")]
    Kernel {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// Interface, address, route, file or namespace that it was tried on.
        object: String,
        /// The errno with its text.
        #[source]
        source: io::Error,
    },
    /// An object that the request is about is not there.
    #[error("{what} {object} does not exist")]
    NotFound {
        /// The kind of object.
        what: &'static str,
        /// Its name.
        object: String,
    },
    /// The kernel answered something that cannot be understood.
    #[error("unexpected netlink answer while trying to {action} {object}")]
    Protocol {
        /// What was tried.
        action: &'static str,
        /// The object that it was tried on.
        object: String,
        /// The decoder's complaint.
        #[source]
        source: netlink_packet_core::DecodeError,
    },
    /// A text is not a hardware address.
    #[error("`{0}` is not a hardware address")]
    InvalidMacAddress(String),
    /// A name cannot be the name of a network interface.
    #[error("`{0}` is not an interface name (1 to 15 bytes, no slash, no space)")]
    InvalidInterfaceName(String),
}

impl Error {
    pub(crate) fn kernel(
        action: &'static str,
        object: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Kernel {
            action,
            object: object.into(),
            source: source.into(),
        }
    }

    /// The kernel's error number, where it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error(),
            Self::NotFound { .. } => Some(libc::ENODEV),
            Self::Protocol { .. } | Self::InvalidMacAddress(_) | Self::InvalidInterfaceName(_) => {
                None
            }
        }
    }

    /// Whether the kernel refused because the object is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether the object (or the interface that it belongs to) is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.errno(),
            Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::ENXIO | libc::EADDRNOTAVAIL)
        )
    }
}
