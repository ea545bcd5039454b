// SPDX-License-Identifier: Apache-2.0
//! Making a sandbox's namespaces and mounts.

use std::{
    fs,
    io::Write,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::unistd::{ForkResult, dup2_stdin, fork, sethostname};
use serde::{Deserialize, Serialize};
use weir_net::{
    LinkChange, Netlink, cgroup, mount,
    netns::{Namespace, enter_new, enter_process},
    sysctl,
};

use crate::protocol::Report;

/// What a sandbox is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Specification {
    /// Who it says it is: `NS/POD`, `node:NAME`, `external:NAME`.
    pub(crate) name: String,
    pub(crate) hostname: String,
    pub(crate) kind: Kind,
    /// The cgroup directory that it and all its processes live in.
    pub(crate) cgroup: PathBuf,
    /// What is shown at other places: (source, target).
    pub(crate) binds: Vec<(PathBuf, PathBuf)>,
    /// A folder for what the sandbox has to lay over the machine's own folders.
    pub(crate) scratch: PathBuf,
}

/// The kinds of sandbox by their namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// A pod with a network of its own.
    Pod,
    /// A pod in the network of the node whose sandbox is the given process.
    HostPod(u32),
    /// A node.
    Node,
    /// A host outside the cluster, or the underlay.
    Host,
}

/// Who is running after [`enter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The process that was started, which has made the sandbox and is not needed any more.
    Parent,
    /// The sandbox.
    Sandbox,
}

/// Takes the control socket from standard input and puts the null device there.
pub(crate) fn take_control_socket() -> Result<UnixStream> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    dup2_stdin(fs::File::open("/dev/null")?)?;
    Ok(socket.into())
}

/// Sends one report.
pub(crate) fn report(mut control: &UnixStream, report: &Report) -> Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    Ok(control.write_all(&line)?)
}

/// Moves the process (which has one thread only) into its namespaces.
pub(crate) fn enter(specification: &Specification, control: &UnixStream) -> Result<Side> {
    cgroup::join(&specification.cgroup)?;
    if enter_namespaces(specification.kind)? == Side::Parent {
        return Ok(Side::Parent);
    }
    // Told by the sandbox and by nobody else: where its parent told it, the sandbox was sometimes ready before, and the
    // daemon took the parent, which had ended by then, for the sandbox.
    report(control, &Report::Pid(outer_pid()?))?;
    match specification.kind {
        Kind::Pod => {
            prepare_network()?;
            show_own_sys()?;
            mount::proc(Path::new("/proc"))?;
        }
        Kind::HostPod(_) => mount::proc(Path::new("/proc"))?,
        Kind::Node => {
            prepare_network()?;
            show_own_sys()?;
            mount::bpffs(Path::new("/sys/fs/bpf"))?;
            // Below a cgroup namespace this shows the node's own part only, so that a program attached to its root
            // sees the processes of this node and no others.
            mount::cgroup2(Path::new("/sys/fs/cgroup"))?;
        }
        Kind::Host => {
            prepare_network()?;
            show_own_sys()?;
        }
    }
    if !matches!(specification.kind, Kind::HostPod(_)) {
        sethostname(&specification.hostname).context("cannot set the host name")?;
    }
    for (source, target) in &specification.binds {
        make_place(target, &specification.scratch, source.is_dir())
            .with_context(|| format!("cannot make a place for {}", target.display()))?;
        mount::bind(source, target)?;
    }
    Ok(Side::Sandbox)
}

fn enter_namespaces(kind: Kind) -> Result<Side> {
    match kind {
        Kind::Pod => {
            enter_new(&[
                Namespace::Network,
                Namespace::Mount,
                Namespace::Uts,
                Namespace::Pid,
            ])?;
            return fork_into_pid_namespace();
        }
        Kind::HostPod(node) => {
            enter_process(
                node,
                &[Namespace::Network, Namespace::Mount, Namespace::Uts],
            )?;
            enter_new(&[Namespace::Mount, Namespace::Pid])?;
            return fork_into_pid_namespace();
        }
        Kind::Node => enter_new(&[
            Namespace::Network,
            Namespace::Mount,
            Namespace::Uts,
            Namespace::Cgroup,
        ])?,
        Kind::Host => enter_new(&[Namespace::Network, Namespace::Mount, Namespace::Uts])?,
    }
    Ok(Side::Sandbox)
}

/// The first process born in a PID namespace is its init: when it ends, so does everything in it.
fn fork_into_pid_namespace() -> Result<Side> {
    // SAFETY: the process has one thread, so the child gets a whole copy of it with no lock held by another.
    match unsafe { fork() }.context("cannot fork into the new PID namespace")? {
        ForkResult::Parent { .. } => Ok(Side::Parent),
        ForkResult::Child => Ok(Side::Sandbox),
    }
}

/// The id of this process as the daemon counts. The init of a PID namespace is 1 to itself, but a `/proc` counts as
/// the namespace does that it was mounted in, and the daemon's is still there.
fn outer_pid() -> Result<u32> {
    let own = fs::read_link("/proc/self").context("cannot read the process id in /proc/self")?;
    let text = own.to_string_lossy();
    text.parse()
        .with_context(|| format!("/proc/self is `{text}` and no process id"))
}

/// Takes the machine's `/sys` away with all that is mounted below it, and shows the one of the own network.
fn show_own_sys() -> Result<()> {
    let sys = Path::new("/sys");
    mount::unmount(sys)?;
    Ok(mount::sysfs(sys)?)
}

fn prepare_network() -> Result<()> {
    let mut netlink = Netlink::open()?;
    let loopback = netlink.require_link("lo")?;
    netlink.change_link(loopback.index, &LinkChange::up())?;
    for (name, value) in [
        // Addresses are handed out by the lab, so nothing is gained by asking around for duplicates for a second.
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.all.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv6.conf.all.accept_ra", "0"),
        // A new namespace inherits the machine's IPv4 settings, whatever they are.
        ("net.ipv4.conf.default.rp_filter", "0"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.ip_forward", "0"),
        // ICMP sockets for everybody: probes and ping need no raw socket.
        ("net.ipv4.ping_group_range", "0 2147483647"),
    ] {
        match sysctl::write(name, value) {
            // A kernel without IPv6.
            Err(error) if error.is_not_found() && name.contains("ipv6") => {}
            result => result?,
        }
    }
    Ok(())
}

/// Makes sure that something can be mounted at `target`, without touching the machine's own file system: where the
/// place is missing, a writable layer is laid over its parent first.
fn make_place(target: &Path, scratch: &Path, directory: bool) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    let parent = target
        .parent()
        .context("the root directory cannot be missing")?;
    make_place(parent, scratch, true)?;
    let layer = scratch.join(parent.to_string_lossy().trim_matches('/').replace('/', "-"));
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    if !upper.exists() {
        fs::create_dir_all(&upper)?;
        fs::create_dir_all(&work)?;
        mount::overlay(parent, &upper, &work, parent)?;
    }
    if directory {
        fs::create_dir_all(target)?;
    } else {
        fs::File::create(target)?;
    }
    Ok(())
}
