// SPDX-License-Identifier: Apache-2.0
//! Is a pod's network still as it was made? Looks and repairs nothing.

use weir_api::endpoint::{EndpointChecked, EndpointRequest};
use weir_net::{Family, NetNamespace, Netlink, Result};

use super::{Proven, prove};
use crate::core::Core;
use crate::core::links::{self, PodLink};
use crate::endpoint::Record;
use crate::error::{EndpointError, chain};

impl Core {
    /// Compares an endpoint with what its pod was promised, and with the kernel.
    pub(in crate::core) fn check(
        &mut self,
        request: EndpointRequest,
    ) -> std::result::Result<EndpointChecked, EndpointError> {
        let Proven { request, pod } = prove(request)?;
        // Before that, rows that are missing may be on their way.
        if !self.synced {
            return Err(EndpointError::NotSynced);
        }
        let Some(endpoint) = self.known(&request) else {
            let what = format!("of container {}", request.container_id);
            return Err(EndpointError::Unknown(what));
        };
        let record = endpoint.record.clone();
        let mut problems = Vec::new();
        if endpoint.pod != pod {
            problems.push(format!("the container is of pod {}", endpoint.pod));
        }
        if !endpoint.connected {
            problems.push("its link has no program".to_owned());
        }
        if !endpoint.realized {
            problems.push("its rows are not in the kernel".to_owned());
        }
        let others = request.requested_addresses.iter();
        for address in others.filter(|address| !record.addresses.contains(address)) {
            problems.push(format!("address {address} is not the pod's"));
        }
        match self.look_at_host_side(&record) {
            Ok(found) => problems.extend(found),
            Err(error) => problems.push(chain(&error)),
        }
        match look_inside(&request.netns, &record) {
            Ok(found) => problems.extend(found),
            Err(error) => problems.push(chain(&error)),
        }
        Ok(EndpointChecked {
            id: record.id,
            problems,
        })
    }

    fn look_at_host_side(&mut self, record: &Record) -> Result<Vec<String>> {
        let index = weir_net::IfIndex::new(record.host_index);
        let name = &record.host_interface;
        let link = self.netlink.link_by_index(index)?;
        let Some(link) = link.filter(|link| link.name == *name) else {
            return Ok(vec![format!("interface {name} is gone")]);
        };
        Ok(differences(&link, record.mtu))
    }
}

fn look_inside(netns: &str, record: &Record) -> Result<Vec<String>> {
    let namespace = NetNamespace::open(netns)?;
    if namespace.inode()? != record.netns_inode {
        return Ok(vec![format!("{netns} is another network namespace")]);
    }
    inspect_pod(&namespace, &PodLink::of(record))
}

/// What inside the pod is not as [`links::configure_inside`] makes it.
fn inspect_pod(namespace: &NetNamespace, wanted: &PodLink<'_>) -> Result<Vec<String>> {
    let mut inside = Netlink::open_in(namespace)?;
    let interface = wanted.interface;
    let Some(link) = inside.link(interface)? else {
        return Ok(vec![format!("interface {interface} of the pod is gone")]);
    };
    let mut problems = differences(&link, wanted.mtu);
    let found = inside.addresses()?;
    for address in wanted.addresses {
        let there = |one: &weir_net::Address| one.link == link.index && one.ip() == *address;
        if !found.iter().any(there) {
            problems.push(format!("address {address} of the pod is missing"));
        }
        let family = if address.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        let gateway = links::gateway_of(*address);
        let leads = inside.routes(family)?.iter().any(|route| {
            route.destination.prefix_len() == 0
                && route.gateway == Some(gateway)
                && route.link == Some(link.index)
        });
        if !leads {
            problems.push(format!("default route via {gateway} of the pod is missing"));
        }
    }
    Ok(problems)
}

fn differences(link: &weir_net::Link, mtu: u32) -> Vec<String> {
    let mut problems = Vec::new();
    if !link.up {
        problems.push(format!("interface {} is down", link.name));
    }
    if link.mtu != mtu {
        let found = link.mtu;
        problems.push(format!(
            "interface {} has MTU {found} instead of {mtu}",
            link.name
        ));
    }
    problems
}
