// SPDX-License-Identifier: Apache-2.0
//! Routes of the main table.

mod message;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteNextHop, RouteNextHopFlags},
};

use super::{Netlink, Subject, link::existed};
use crate::{Family, IfIndex, Result};
use message::{address_family, message_of};

pub(crate) use message::route_of;

/// How far away the destination of a route is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteScope {
    /// Behind a gateway, or anything for IPv6.
    #[default]
    Universe,
    /// On the link itself.
    Link,
    /// This host.
    Host,
}

/// What a route does with packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Forwards them.
    #[default]
    Unicast,
    /// Drops them without a word.
    Blackhole,
    /// Answers "destination unreachable".
    Unreachable,
    /// Anything else, which this crate reads but does not write.
    Other,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// Where it leads; `0.0.0.0/0` and `::/0` are default routes.
    pub destination: IpNet,
    /// The device that it goes out by.
    pub link: Option<IfIndex>,
    /// The next hop; an IPv4 destination may have an IPv6 gateway.
    pub gateway: Option<IpAddr>,
    /// The source address that the host prefers on it.
    pub source: Option<IpAddr>,
    /// The path MTU that it states.
    pub mtu: Option<u32>,
    /// Its preference among routes with one destination, lower is better; 0 is the kernel's default.
    pub metric: u32,
    /// How far away the destination is.
    pub scope: RouteScope,
    /// Whether the gateway counts as on the link whatever the addresses say.
    pub onlink: bool,
    /// What it does.
    pub kind: RouteKind,
}

impl Route {
    /// A route out of a device, without gateway.
    pub fn device(destination: IpNet, link: IfIndex) -> Self {
        Self {
            destination,
            link: Some(link),
            gateway: None,
            source: None,
            mtu: None,
            metric: 0,
            scope: match destination {
                IpNet::V4(_) => RouteScope::Link,
                IpNet::V6(_) => RouteScope::Universe,
            },
            onlink: false,
            kind: RouteKind::Unicast,
        }
    }

    /// A route through a gateway, which is taken to be on the link.
    pub fn via(destination: IpNet, gateway: IpAddr, link: IfIndex) -> Self {
        Self {
            gateway: Some(gateway),
            scope: RouteScope::Universe,
            onlink: true,
            ..Self::device(destination, link)
        }
    }

    /// The same with a preferred source address.
    #[must_use]
    pub fn with_source(self, source: Option<IpAddr>) -> Self {
        Self { source, ..self }
    }

    /// The same with a path MTU.
    #[must_use]
    pub fn with_mtu(self, mtu: Option<u32>) -> Self {
        Self { mtu, ..self }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(link) = self.link {
            write!(f, " dev {link}")?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if let Some(mtu) = self.mtu {
            write!(f, " mtu {mtu}")?;
        }
        Ok(())
    }
}

/// Where packets go that no other route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// The device that they leave by.
    pub link: IfIndex,
    /// The next hop, if there is one.
    pub gateway: Option<IpAddr>,
}

/// The destination of a default route.
pub(crate) fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
        Family::V6 => Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

impl Netlink {
    /// The routes of the main table, without the kernel's cached ones.
    pub fn routes(&mut self, family: Family) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(family);
        let subject = Subject {
            action: "list",
            object: "routes",
        };
        self.dump(RouteNetlinkMessage::GetRoute(request), subject, |message| {
            if let RouteNetlinkMessage::NewRoute(message) = message {
                routes.extend(route_of(&message));
            }
        })?;
        Ok(routes)
    }

    /// The default route with the best metric.
    pub fn default_route(&mut self, family: Family) -> Result<Option<DefaultRoute>> {
        let all = everything(family);
        Ok(self
            .routes(family)?
            .into_iter()
            .filter(|route| route.destination == all && route.kind == RouteKind::Unicast)
            .min_by_key(|route| route.metric)
            .and_then(|route| {
                Some(DefaultRoute {
                    link: route.link?,
                    gateway: route.gateway,
                })
            }))
    }

    /// Adds a route; tells whether it was new.
    pub fn ensure_route(&mut self, route: &Route) -> Result<bool> {
        let object = route.to_string();
        let subject = Subject {
            action: "add route",
            object: &object,
        };
        let request = RouteNetlinkMessage::NewRoute(message_of(route));
        match self.change(request, NLM_F_CREATE | NLM_F_EXCL, subject) {
            Ok(()) => Ok(true),
            Err(error) if error.is_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds a route or puts it in the place of the one with its destination and metric.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        let object = route.to_string();
        let subject = Subject {
            action: "replace route",
            object: &object,
        };
        let request = RouteNetlinkMessage::NewRoute(message_of(route));
        self.change(request, NLM_F_CREATE | NLM_F_REPLACE, subject)
    }

    /// Adds a route over several gateways of one link, among which the kernel divides the flows, or puts it in the
    /// place of the one with its destination.
    pub fn replace_shared_route(
        &mut self,
        destination: IpNet,
        gateways: &[IpAddr],
        link: IfIndex,
    ) -> Result<()> {
        let [first, others @ ..] = gateways else {
            return Ok(());
        };
        if others.is_empty() {
            return self.replace_route(&Route::via(destination, *first, link));
        }
        let object = format!("{destination} via {} gateways dev {link}", gateways.len());
        let subject = Subject {
            action: "replace route",
            object: &object,
        };
        let hop = |gateway: &IpAddr| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = link.get();
            hop.flags = RouteNextHopFlags::Onlink;
            hop.attributes = vec![RouteAttribute::Gateway((*gateway).into())];
            hop
        };
        let mut message = message_of(&Route {
            link: None,
            scope: RouteScope::Universe,
            ..Route::device(destination, link)
        });
        let hops = gateways.iter().map(hop).collect();
        message.attributes.push(RouteAttribute::MultiPath(hops));
        let request = RouteNetlinkMessage::NewRoute(message);
        self.change(request, NLM_F_CREATE | NLM_F_REPLACE, subject)
    }

    /// Removes whatever route of the main table leads to a destination; tells whether there was one.
    pub fn delete_routes_to(&mut self, destination: IpNet) -> Result<bool> {
        let mut there = false;
        let family = Family::of(destination.addr());
        for route in self.routes(family)? {
            if route.destination == destination {
                there |= self.delete_route(&route)?;
            }
        }
        Ok(there)
    }

    /// Removes a route; tells whether it was there.
    pub fn delete_route(&mut self, route: &Route) -> Result<bool> {
        let object = route.to_string();
        let subject = Subject {
            action: "delete route",
            object: &object,
        };
        let request = RouteNetlinkMessage::DelRoute(message_of(route));
        existed(self.change(request, 0, subject))
    }
}
