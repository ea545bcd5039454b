// SPDX-License-Identifier: Apache-2.0
//! What a cluster is called, where its files lie, and which addresses it uses.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::workspace;

/// The API server, in a namespace beside the nodes.
pub(super) const API_SERVER: &str = "https://10.99.0.2:6443";
pub(super) const CONTROL_PLANE: Addresses = Addresses {
    v4: "10.99.0.2",
    v6: "fd99::2",
};
/// Outside the cluster, and the nodes' default gateway.
pub(super) const WORLD: Addresses = Addresses {
    v4: "10.99.0.1",
    v6: "fd99::1",
};
pub(crate) const POD_RANGES: &str = "10.200.0.0/16,fd00:200::/48";
pub(crate) const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:96::/112";
pub(super) const DNS: &str = "10.96.0.10";

/// The addresses of one host of the underlay, without their prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) v4: &'static str,
    pub(super) v6: &'static str,
}

/// The name of a cluster: it begins the names of its network namespaces and cgroups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Name(String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fine = text.len() <= 20
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !fine {
            return Err(
                "expected a lower-case letter, then at most 19 letters and digits".to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One node, by its number from 1 on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Node(u8);

impl Node {
    /// The nodes of a cluster of that size.
    pub(crate) fn all(count: u8) -> impl Iterator<Item = Self> {
        (1..=count).map(Self)
    }

    pub(crate) fn v4(self) -> String {
        format!("10.99.0.1{}", self.0)
    }

    pub(crate) fn v6(self) -> String {
        format!("fd99::1{}", self.0)
    }

    /// Three zones in turn, so that what asks for topology finds some.
    pub(super) fn zone(self) -> &'static str {
        ["zone-a", "zone-b", "zone-c"][usize::from(self.0 - 1) % 3]
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}", self.0)
    }
}

/// What every cluster of this checkout shares: the programs and the images.
pub(super) fn base() -> PathBuf {
    env::var_os("WEIR_CLUSTER_DIR").map_or_else(
        || workspace::target_dir().join("cluster"),
        |dir| workspace::root().join(dir),
    )
}

/// The sources of the cluster: Go module, configuration, scripts.
pub(crate) fn source() -> PathBuf {
    workspace::root().join("tests/cluster")
}

/// Built programs.
pub(super) fn programs() -> PathBuf {
    base().join("bin")
}

/// Built container images.
pub(super) fn images() -> PathBuf {
    base().join("images")
}

/// One cluster on this machine.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    name: Name,
    state: PathBuf,
}

impl Place {
    pub(crate) fn of(name: &Name) -> Self {
        Self {
            state: base().join("run").join(&name.0),
            name: name.clone(),
        }
    }

    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Everything that `up` writes and `down` removes.
    pub(crate) fn state(&self) -> PathBuf {
        self.state.clone()
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    pub(super) fn processes(&self) -> PathBuf {
        self.state.join("processes")
    }

    pub(super) fn keys(&self) -> PathBuf {
        self.state.join("keys")
    }

    /// The folder that is a node's file system.
    pub(super) fn node_root(&self, node: Node) -> PathBuf {
        self.state.join(node.to_string())
    }

    /// The kubeconfig of a user of the cluster, such as `admin`.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.state.join(format!("{user}.kubeconfig"))
    }

    /// Outlives the cluster: what the last run of the tests reported, or the logs of a benchmark.
    pub(crate) fn report(&self) -> PathBuf {
        base().join("report").join(&self.name.0)
    }

    /// The network namespace of a part: `net`, `control`, `world` or a node.
    pub(crate) fn namespace(&self, part: impl fmt::Display) -> String {
        format!("{}-{part}", self.name)
    }

    pub(crate) fn namespace_file(&self, part: impl fmt::Display) -> PathBuf {
        PathBuf::from("/run/netns").join(self.namespace(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parts_of_other_names() {
        assert!("kube2".parse::<Name>().is_ok());
        for wrong in ["", "2kube", "a/b", "a-b", "Kube", "abcdefghijklmnopqrstu"] {
            assert!(wrong.parse::<Name>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn nodes_take_three_zones_in_turn() {
        let zones: Vec<_> = Node::all(4).map(Node::zone).collect();
        assert_eq!(zones, ["zone-a", "zone-b", "zone-c", "zone-a"]);
        let last = Node::all(9).last().map(|node| (node.v4(), node.v6()));
        assert_eq!(last, Some(("10.99.0.19".to_owned(), "fd99::19".to_owned())));
    }
}
