// SPDX-License-Identifier: Apache-2.0
//! The node's routes towards pods.

use std::collections::BTreeSet;

use ipnet::IpNet;
use weir_compile::{DesiredRoute, RoutePath};
use weir_net::{Family, IfIndex, Netlink, Result, Route};

use super::Core;

/// A desired route in the kernel's terms; none where the way there is not known.
fn kernel_route(
    netlink: &mut Netlink,
    core: &CoreView<'_>,
    desired: &DesiredRoute,
) -> Result<Option<Route>> {
    let destination = desired.destination;
    Ok(match desired.path {
        RoutePath::Host { source, mtu } => {
            let source = source.filter(|source| core.network.has(*source));
            let link = IfIndex::new(core.network.host.0);
            Some(
                Route::device(destination, link)
                    .with_source(source)
                    .with_mtu(mtu),
            )
        }
        RoutePath::Node { gateway } => {
            // The device that leads to the node: on-link routes may point to any of several.
            let family = Family::of(gateway);
            let routes = netlink.routes(family)?;
            let best = routes
                .iter()
                .filter(|route| route.destination.contains(&gateway) && route.link.is_some())
                .filter(|route| route.destination.prefix_len() > 0)
                .max_by_key(|route| route.destination.prefix_len())
                .and_then(|route| route.link);
            let link = best.or_else(|| core.network.devices.first().map(|device| device.index));
            link.map(|link| Route::via(destination, gateway, link))
        }
    })
}

/// What of the core is needed here.
struct CoreView<'a> {
    network: &'a super::devices::NodeNetwork,
}

fn same(found: &Route, wanted: &Route) -> bool {
    (
        found.destination,
        found.link,
        found.gateway,
        found.source,
        found.mtu,
    ) == (
        wanted.destination,
        wanted.link,
        wanted.gateway,
        wanted.source,
        wanted.mtu,
    )
}

impl Core {
    /// Makes the desired routes and takes away those that nobody wants any more; tells what was not
    /// as it had been left.
    pub(super) fn sync_routes(&mut self) -> Result<Vec<String>> {
        let view = CoreView {
            network: &self.network,
        };
        let mut found = Vec::new();
        for family in Family::BOTH {
            found.extend(self.netlink.routes(family)?);
        }
        let mut wanted_destinations = BTreeSet::new();
        let mut repaired = Vec::new();
        let mut first_error = None;
        for desired in &self.compiled.routes {
            wanted_destinations.insert(desired.destination);
            let Some(wanted) = kernel_route(&mut self.netlink, &view, desired)? else {
                continue;
            };
            if found.iter().any(|route| same(route, &wanted)) {
                self.owned_routes.insert(desired.destination);
                self.made_routes.insert(desired.destination, wanted);
                continue;
            }
            match self.netlink.replace_route(&wanted) {
                Ok(()) => {
                    tracing::info!(route = %wanted, "route set");
                    self.owned_routes.insert(desired.destination);
                    let made = self.made_routes.insert(desired.destination, wanted.clone());
                    if made.as_ref() == Some(&wanted) {
                        repaired.push(format!("route {wanted} was missing or changed"));
                    }
                }
                Err(error) => drop(first_error.get_or_insert(error)),
            }
        }
        if self.synced {
            let stale: Vec<Route> = found
                .into_iter()
                .filter(|route| !wanted_destinations.contains(&route.destination))
                .filter(|route| self.is_ours(route))
                .collect();
            for route in stale {
                match self.netlink.delete_route(&route) {
                    Ok(_) => tracing::info!(%route, "route removed"),
                    Err(error) => drop(first_error.get_or_insert(error)),
                }
            }
            self.owned_routes
                .retain(|destination| wanted_destinations.contains(destination));
            self.made_routes
                .retain(|destination, _| wanted_destinations.contains(destination));
        }
        first_error.map_or(Ok(repaired), Err)
    }

    fn is_ours(&self, route: &Route) -> bool {
        let by_host = route
            .link
            .is_some_and(|link| link.get() == self.network.host.0);
        // The kernel's own routes of the interface (IPv6 link-local and multicast) stay.
        let special = match route.destination {
            IpNet::V4(_) => false,
            IpNet::V6(v6) => v6.addr().is_multicast() || v6.addr().is_unicast_link_local(),
        };
        !special && (by_host || self.owned_routes.contains(&route.destination))
    }
}
