// SPDX-License-Identifier: Apache-2.0
//! The pods of a node: a client and the backends, each a network namespace with one link to the node, the same on every
//! side. Who makes the links is the side's own business: here are those of a node without a dataplane.

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::objects::{ENDPOINTS, Half, TARGET_PORT, backend, client};
use crate::bench::Family;
use crate::cluster::network::{add_namespace, inside, ip};
use crate::cluster::place::{self, Node, Place, SERVICE_RANGES};
use crate::cluster::processes::{run, start};
use crate::process::{append, command};

/// Who asks, or who answers. Who asks in another way has an address of its own, so that no way meets what another has left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pod {
    /// Whose connections are measured.
    Client,
    /// The same outside the node's cgroup, where no dataplane translates sockets: every packet is.
    Outside,
    /// Who tells when a change counts.
    Watcher,
    Backend(u8),
}

impl Pod {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [Self::Client, Self::Outside, Self::Watcher]
            .into_iter()
            .chain((0..ENDPOINTS).map(Self::Backend))
    }

    pub(super) fn address(self, family: Family) -> IpAddr {
        match self {
            Self::Client => client(family, 0),
            Self::Outside => client(family, 1),
            Self::Watcher => client(family, 2),
            Self::Backend(number) => backend(family, number),
        }
    }

    /// Its name in the cluster.
    pub(super) fn name(self) -> String {
        match self {
            Self::Client => "client".to_owned(),
            Self::Outside => "outside".to_owned(),
            Self::Watcher => "watcher".to_owned(),
            Self::Backend(number) => format!("backend{number}"),
        }
    }

    /// The part of the benchmark's network that is its namespace.
    pub(super) fn part(self, node: Node) -> String {
        format!("{node}-{}", self.name())
    }

    /// A command in its namespaces: the network's, and the cgroup where the node has one for its pods. All pods share one
    /// processor: what counts is then the work for a connection, not how long another processor takes to wake up. They go
    /// before whatever else the machine does meanwhile.
    pub(super) fn run(
        self,
        place: &Place,
        node: Node,
        group: Option<&Path>,
        program: &Path,
    ) -> Result<Command> {
        let mut within = inside(place, self.part(node), "nice");
        within
            .args(["--adjustment=-10", "taskset", "--cpu-list", &processor()?])
            .arg(program);
        let Some(group) = group.filter(|_| self != Self::Outside) else {
            return Ok(within);
        };
        let mut join = command(place::source().join("join.sh"));
        append(join.arg(group).arg("--"), &within);
        Ok(join)
    }
}

/// The last of the processors that this program may use: interrupts tend to the first.
fn processor() -> Result<String> {
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .context("the kernel does not say which processors there are")?;
    let last = list.rsplit([',', '-']).next().unwrap_or(list);
    Ok(last.trim().to_owned())
}

/// Makes the namespaces of a node's pods, without a link.
pub(super) fn make(place: &Place, node: Node) -> Result<()> {
    Pod::all().try_for_each(|pod| add_namespace(place, &pod.part(node)))
}

/// Links and routes of a node on which the kernel alone forwards: every pod has a link of its own and reaches everything
/// through the node. What is sent to a service before there are rules for it ends at the node: forwarded as it is, it would
/// leave an entry in the kernel's connection table by which the rules are passed over for two minutes.
pub(super) fn link(place: &Place, node: Node, family: Family) -> Result<()> {
    // The node's address on each link; it is in no range of pods.
    let gateway = family.pick("169.254.1.1", "fe80::1");
    // An address alone, used at once: nobody is asked whether it is taken.
    let alone = family.pick("/32", "/128 nodad");
    for range in SERVICE_RANGES.split(',') {
        ip(place, node, &format!("route add unreachable {range}"))?;
    }
    for pod in Pod::all() {
        let (name, part, address) = (pod.name(), pod.part(node), pod.address(family));
        let namespace = place.namespace(&part);
        ip(
            place,
            node,
            &format!("link add {name} type veth peer name eth0 netns {namespace}"),
        )?;
        ip(place, node, &format!("link set {name} up"))?;
        ip(
            place,
            node,
            &format!("address add {gateway}{alone} dev {name}"),
        )?;
        ip(place, node, &format!("route add {address} dev {name}"))?;
        ip(place, &part, "link set eth0 up")?;
        ip(
            place,
            &part,
            &format!("address add {address}{alone} dev eth0"),
        )?;
        ip(place, &part, &format!("route add {gateway} dev eth0"))?;
        ip(
            place,
            &part,
            &format!("route add default via {gateway} dev eth0"),
        )?;
    }
    Ok(())
}

/// Starts what answers in the backends of a node. They forget a connection as soon as it has ended: a client's clock for
/// time stamps (RFC 7323, section 5.4) differs from service to service, so who remembers takes the next connection from the
/// same port through another service for a stale one, and the client asks again after a second.
pub(super) fn serve(
    place: &Place,
    node: Node,
    family: Family,
    group: Option<&Path>,
    traffic: &Path,
) -> Result<()> {
    let all = family.pick("0.0.0.0", "[::]");
    for number in 0..ENDPOINTS {
        let pod = Pod::Backend(number);
        run(inside(place, pod.part(node), "sysctl").args(["-qw", "net.ipv4.tcp_max_tw_buckets=0"]))?;
        let mut server = pod.run(place, node, group, traffic)?;
        server.args(["traffic", "name", &format!("{all}:{TARGET_PORT}")]);
        server.arg(Half::of(number).name());
        start(place, &pod.part(node), &mut server)?;
    }
    Ok(())
}
