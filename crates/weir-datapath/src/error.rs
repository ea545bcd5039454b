// SPDX-License-Identifier: Apache-2.0
//! What can go wrong between the agent and the kernel, always with the object and the errno.

use std::io;
use std::path::PathBuf;

use weir_abi::IfIndex;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the kernel's state could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The crate was built without the eBPF object.
    #[error(
        "this binary was built without the eBPF programs: run `cargo xtask build-bpf` and build again"
    )]
    NoObject,
    /// The object cannot be parsed, its type information or its maps are refused.
    #[error("BPF program compilation failed: the eBPF object cannot be loaded")]
    Object(#[source] Box<aya::EbpfError>),
    /// The object is not one of Weir's, or not of this version.
    #[error("BPF program compilation failed: the eBPF object has no {what} `{name}`")]
    Incomplete {
        /// Map, program or constant.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// The kernel's verifier refuses a program.
    #[error("BPF program compilation failed: the verifier refuses `{program}`{}", log_tail(.log))]
    Verification {
        /// The program's name.
        program: &'static str,
        /// The verifier's whole log.
        log: String,
        /// The errno of the load.
        #[source]
        source: io::Error,
    },
    /// The kernel is older than tcx.
    #[error(
        "this kernel ({kernel}) has no tcx links for BPF programs: Linux 6.6 or newer is needed"
    )]
    NoTcx {
        /// The release, as `uname -r` prints it.
        kernel: String,
    },
    /// Pins are wanted where none can be.
    #[error("{} is not on a BPF file system: mount one there (`mount -t bpf bpf /sys/fs/bpf`)", .path.display())]
    NotBpfFileSystem {
        /// The root of the pins.
        path: PathBuf,
    },
    /// A file, directory or pin is refused.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was tried, as a verb phrase.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// A map does not have the form that this version expects.
    #[error("map `{map}` has {found}, but this version expects {expected}")]
    Layout {
        /// The map's name.
        map: &'static str,
        /// As it is.
        found: String,
        /// As it must be.
        expected: String,
    },
    /// A row of a map could not be read or written.
    #[error("cannot {action} {map}[{key}]")]
    Row {
        /// What was tried, as a verb.
        action: &'static str,
        /// The map's name.
        map: &'static str,
        /// The key, readable; `*` for all of them.
        key: String,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// A program could not be attached, replaced or taken away.
    #[error("cannot {action} {hook} at interface {interface}")]
    Link {
        /// What was tried, as a verb.
        action: &'static str,
        /// The name of the program.
        hook: &'static str,
        /// The interface.
        interface: IfIndex,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// A program could not be attached to the sockets of a cgroup, replaced or taken away.
    #[error("cannot {action} {hook} at cgroup {}", .cgroup.display())]
    Socket {
        /// What was tried, as a verb.
        action: &'static str,
        /// The name of the program.
        hook: &'static str,
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// A program ran over a packet and left no word about it.
    #[error("`{program}` ran over a packet and does not say what it found")]
    NoAnswer {
        /// The name of the program.
        program: &'static str,
    },
    /// The kernel does not run a program over a test packet.
    #[error("cannot run `{program}` over a packet of {length} bytes")]
    Run {
        /// The name of the program.
        program: &'static str,
        /// The length of the packet.
        length: usize,
        /// The errno.
        #[source]
        source: io::Error,
    },
    /// `mapSizes` names something that is no map.
    #[error("mapSizes: there is no map `{0}`, only {names}", names = resizable_names())]
    UnknownMap(String),
    /// `mapSizes` names a map whose size means something.
    #[error("mapSizes: the size of `{0}` is fixed")]
    FixedMap(&'static str),
    /// `mapSizes` asks for a size out of range.
    #[error("mapSizes: {size} is no size for `{map}`: {minimum} to {maximum} is possible")]
    MapSize {
        /// The map's name.
        map: &'static str,
        /// What was asked for.
        size: u32,
        /// The smallest size that works.
        minimum: u32,
        /// The largest.
        maximum: u32,
    },
}

impl Error {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::File {
            action,
            path: path.into(),
            source,
        }
    }

    /// The kernel's error number, where it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Verification { source, .. }
            | Self::File { source, .. }
            | Self::Row { source, .. }
            | Self::Link { source, .. }
            | Self::Socket { source, .. }
            | Self::Run { source, .. } => source.raw_os_error(),
            Self::NoObject
            | Self::Object(_)
            | Self::Incomplete { .. }
            | Self::NoTcx { .. }
            | Self::NotBpfFileSystem { .. }
            | Self::Layout { .. }
            | Self::UnknownMap(_)
            | Self::FixedMap(_)
            | Self::NoAnswer { .. }
            | Self::MapSize { .. } => None,
        }
    }
}

/// The end of the log says what the verifier did not like; the whole of it can be megabytes.
fn log_tail(log: &str) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines
        .get(lines.len().saturating_sub(LINES)..)
        .unwrap_or_default();
    if tail.is_empty() {
        String::new()
    } else {
        format!(":\n{}", tail.join("\n"))
    }
}

fn resizable_names() -> String {
    let names: Vec<_> = weir_abi::map::ALL
        .iter()
        .filter(|map| map.resizable)
        .map(|map| map.name)
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_ends_with_the_end_of_the_verifiers_log() {
        let lines: Vec<_> = (0..100).map(|line| format!("line {line}")).collect();
        let log = lines.join("\n\n");
        let error = Error::Verification {
            program: "from_host",
            log,
            source: io::Error::from_raw_os_error(libc::EACCES),
        };
        let text = error.to_string();
        assert!(
            text.starts_with("BPF program compilation failed: the verifier refuses `from_host`:")
        );
        assert!(text.contains("\nline 88\n") && text.ends_with("\nline 99"));
        assert!(!text.contains("line 87"));
        assert_eq!(error.errno(), Some(libc::EACCES));
    }

    #[test]
    fn unknown_map_sizes_are_told_the_known_names() {
        let text = Error::UnknownMap("flow".to_owned()).to_string();
        assert!(text.contains("flows") && !text.contains("nodes"), "{text}");
    }
}
