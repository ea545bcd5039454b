// SPDX-License-Identifier: Apache-2.0
//! What the loop publishes after each change, for those who only read.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_abi::IfIndex;
use weir_api::endpoint::Endpoint;
use weir_api::status::{Device, IpamPool};
use weir_compile::Compiled;
use weir_datapath::{DryRun, Maps};
use weir_model::{IdentityTable, Node};

/// One consistent picture of the node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) nodes: Arc<Vec<Arc<Node>>>,
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) identities: Arc<IdentityTable>,
    pub(crate) endpoints: Arc<Vec<Endpoint>>,
    pub(crate) interfaces: Arc<BTreeMap<IfIndex, String>>,
    /// Whose network namespace is which, by the numbers that programs at sockets see.
    pub(crate) namespaces: Arc<BTreeMap<u64, String>>,
    pub(crate) devices: Vec<Device>,
    pub(crate) pools: Vec<IpamPool>,
    pub(crate) revision: u64,
    /// Changes of policies so far, and how many of them every endpoint has.
    pub(crate) policy_revisions: (u64, u64),
    /// None while no datapath is loaded.
    pub(crate) maps: Option<Arc<Maps>>,
    /// Questions to the programs of that datapath.
    pub(crate) dry_run: Option<Arc<DryRun>>,
}
