// SPDX-License-Identifier: Apache-2.0
//! Everything that a question is answered from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use weir_abi::IfIndex;
use weir_abi::observation::Hook;
use weir_datapath::{DryRun, Maps};
use weir_model::{Change, NodeName, World};

use super::TraceError;
use super::run::{Seen, by_code, by_kernel};
use super::view::View;
use crate::shared::Shared;
use crate::snapshot::Snapshot;

/// The world, as it is or as it is supposed to be, and the nodes' rows.
pub(super) struct Scene<'a> {
    pub(super) shared: &'a Shared,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) world: World,
    pub(super) hypothetical: Vec<String>,
    pub(super) notes: Vec<String>,
    dry_run: Arc<DryRun>,
    maps: Arc<Maps>,
    views: RefCell<BTreeMap<NodeName, Rc<View>>>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(shared: &'a Shared) -> Result<Self, TraceError> {
        let snapshot = shared.snapshot();
        let (Some(dry_run), Some(maps)) = (snapshot.dry_run.clone(), snapshot.maps.clone()) else {
            return Err(TraceError::NotLoaded);
        };
        Ok(Self {
            shared,
            snapshot,
            // Not held: compiling takes its time.
            world: shared.world().clone(),
            hypothetical: Vec::new(),
            notes: Vec::new(),
            dry_run,
            maps,
            views: RefCell::default(),
        })
    }

    /// Takes something for given that is not so.
    pub(super) fn suppose(&mut self, change: Change, said: String) {
        self.world.apply(change);
        self.hypothetical.push(said);
        self.views.get_mut().clear();
    }

    /// Whether this node's kernel can answer for a node.
    fn is_live(&self, node: &NodeName) -> bool {
        *node == self.shared.node && self.hypothetical.is_empty()
    }

    /// What a node decides by.
    pub(super) fn view(&self, name: &NodeName) -> Result<Rc<View>, TraceError> {
        if let Some(view) = self.views.borrow().get(name) {
            return Ok(Rc::clone(view));
        }
        let config = self.dry_run.config();
        let view = if self.is_live(name) {
            View::live(self.shared, &self.snapshot, &self.maps, config)?
        } else {
            let node = self.world.node(name).ok_or_else(|| TraceError::Missing {
                message: format!("there is no node {name}"),
            })?;
            View::compiled(self.shared, &self.snapshot, &self.world, node, config)
        };
        let view = Rc::new(view);
        self.views
            .borrow_mut()
            .insert(name.clone(), Rc::clone(&view));
        Ok(view)
    }

    /// Lets a packet meet a program of a node; the second answer is that of the same code in user
    /// space, where the kernel has given the first.
    pub(super) fn run(
        &self,
        view: &View,
        hook: Hook,
        interface: IfIndex,
        frame: &[u8],
    ) -> Result<(Seen, Option<Seen>), TraceError> {
        let here = by_code(view, hook, interface, frame);
        if !self.is_live(&view.node) {
            return Ok((here, None));
        }
        let seen = by_kernel(&self.dry_run, hook, interface, frame)?;
        Ok((seen, Some(here)))
    }

    /// Whether the kernel follows a connection with this tuple, or may get answers to it.
    pub(super) fn is_followed(&self, key: &weir_abi::FlowKey) -> Result<bool, TraceError> {
        let there = |key| self.maps.flows.get(key).map(|entry| entry.is_some());
        Ok(there(key)? || there(&key.reversed())?)
    }

    /// Whether those who send through a program have their sockets translated already.
    pub(super) fn translates_sockets(&self, hook: Hook) -> bool {
        match hook {
            Hook::FromContainer => self.dry_run.config().pod_sockets != 0,
            Hook::FromHost | Hook::ToNetdev => true,
            Hook::FromNetdev => false,
        }
    }

    /// The node that has an address.
    pub(super) fn node_with(&self, address: IpAddr) -> Option<NodeName> {
        let mut nodes = self.world.nodes();
        let known = nodes.find(|node| node.addresses.contains(&address));
        let own = || {
            let mut devices = self.snapshot.devices.iter();
            let text = address.to_string();
            devices
                .any(|device| device.addresses.contains(&text))
                .then(|| self.shared.node.clone())
        };
        known.map(|node| node.name.clone()).or_else(own)
    }

    /// An address of each family that no pod has, out of this node's ranges, from their ends.
    pub(super) fn free_addresses(&self) -> Vec<IpAddr> {
        let Some(node) = self.world.node(&self.shared.node) else {
            return Vec::new();
        };
        let taken = |address: &IpAddr| {
            self.world.pods().any(|pod| pod.addresses.contains(address))
                || self
                    .snapshot
                    .compiled
                    .owners
                    .contains_key(&(*address).into())
        };
        let mut found: Vec<IpAddr> = Vec::new();
        for cidr in &node.pod_cidrs {
            let net = cidr.net();
            let v4 = net.addr().is_ipv4();
            if found.iter().any(|ip| ip.is_ipv4() == v4) {
                continue;
            }
            found.extend(last_addresses(net).find(|address| !taken(address)));
        }
        found
    }

    /// The program's interface, for people.
    pub(super) fn interface(&self, view: &View, index: IfIndex) -> String {
        if !self.is_live(&view.node) {
            return String::new();
        }
        let name = self.snapshot.interfaces.get(&index);
        name.cloned().unwrap_or_else(|| format!("if{index}"))
    }
}

/// The last addresses of a range, the broadcast address left out.
fn last_addresses(net: ipnet::IpNet) -> impl Iterator<Item = IpAddr> {
    let last = net.broadcast();
    (1_u8..=250).map(move |back| match last {
        IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().saturating_sub(u32::from(back)).into()),
        IpAddr::V6(ip) => IpAddr::V6(ip.to_bits().saturating_sub(u128::from(back)).into()),
    })
}
