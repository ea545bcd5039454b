// SPDX-License-Identifier: Apache-2.0
//! What the cluster takes from Debian: container runtime, etcd, and the programs that test images are made of.

use anyhow::{Context as _, Result};

use crate::process::find_in_path;
use crate::setup;

/// A file by which a package is known to be there (a program in PATH, or a path), and the package.
const PACKAGES: [(&str, &str); 24] = [
    ("etcd", "etcd-server"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/loopback", "containernetworking-plugins"),
    ("busybox", "busybox-static"),
    ("bash", "bash"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("sysctl", "procps"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("wget", "wget"),
    ("dig", "bind9-dnsutils"),
    ("host", "bind9-host"),
    ("/usr/bin/nc.openbsd", "netcat-openbsd"),
    ("iperf", "iperf"),
    ("gcc", "gcc"),
    ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
    ("getent", "libc-bin"),
    ("python3", "python3"),
    ("script", "bsdutils"),
];

/// Installs what is missing.
pub(super) fn ensure() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(file, _)| !is_there(file))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    setup::apt_install(&missing).with_context(|| {
        format!(
            "the test cluster needs these packages of Debian: {}",
            missing.join(", ")
        )
    })
}

fn is_there(file: &str) -> bool {
    if file.starts_with('/') {
        return std::path::Path::new(file).exists();
    }
    // Programs of root are not in everybody's PATH.
    find_in_path(file).is_some()
        || ["/usr/sbin", "/sbin"]
            .iter()
            .any(|folder| std::path::Path::new(folder).join(file).is_file())
}
