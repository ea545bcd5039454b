// SPDX-License-Identifier: Apache-2.0
//! Routes as the kernel's messages say them.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{
        self, RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteProtocol, RouteType, RouteVia,
    },
};

use super::{Route, RouteKind, RouteScope, everything};
use crate::{Family, IfIndex};

pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// None for routes of other tables, for cached routes and for families other than IP.
pub(crate) fn route_of(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    let family = match header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    if header.table != RouteHeader::RT_TABLE_MAIN || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut route = Route {
        destination: everything(family),
        link: None,
        gateway: None,
        source: None,
        mtu: None,
        metric: 0,
        scope: match header.scope {
            route::RouteScope::Link => RouteScope::Link,
            route::RouteScope::Host => RouteScope::Host,
            _ => RouteScope::Universe,
        },
        onlink: header.flags.contains(RouteFlags::Onlink),
        kind: match header.kind {
            RouteType::Unicast => RouteKind::Unicast,
            RouteType::BlackHole => RouteKind::Blackhole,
            RouteType::Unreachable => RouteKind::Unreachable,
            _ => RouteKind::Other,
        },
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => {
                route.destination =
                    IpNet::new(ip_of(address)?, header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(address) => route.gateway = ip_of(address),
            RouteAttribute::Via(RouteVia::Inet(ip)) => route.gateway = Some((*ip).into()),
            RouteAttribute::Via(RouteVia::Inet6(ip)) => route.gateway = Some((*ip).into()),
            RouteAttribute::PrefSource(address) => route.source = ip_of(address),
            RouteAttribute::Oif(index) => route.link = Some(IfIndex::new(*index)),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(route)
}

pub(super) fn message_of(route: &Route) -> RouteMessage {
    let family = Family::of(route.destination.addr());
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: address_family(family),
        destination_prefix_length: route.destination.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: match route.scope {
            RouteScope::Universe => route::RouteScope::Universe,
            RouteScope::Link => route::RouteScope::Link,
            RouteScope::Host => route::RouteScope::Host,
        },
        kind: match route.kind {
            RouteKind::Unicast | RouteKind::Other => RouteType::Unicast,
            RouteKind::Blackhole => RouteType::BlackHole,
            RouteKind::Unreachable => RouteType::Unreachable,
        },
        flags: if route.onlink {
            RouteFlags::Onlink
        } else {
            RouteFlags::empty()
        },
        ..RouteHeader::default()
    };
    let attributes = &mut message.attributes;
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.destination.addr().into()));
    }
    if let Some(gateway) = route.gateway {
        attributes.push(if Family::of(gateway) == family {
            RouteAttribute::Gateway(gateway.into())
        } else {
            match gateway {
                IpAddr::V4(ip) => RouteAttribute::Via(RouteVia::Inet(ip)),
                IpAddr::V6(ip) => RouteAttribute::Via(RouteVia::Inet6(ip)),
            }
        });
    }
    attributes.extend(route.link.map(|link| RouteAttribute::Oif(link.get())));
    attributes.extend(
        route
            .source
            .map(|source| RouteAttribute::PrefSource(source.into())),
    );
    attributes.extend(
        route
            .mtu
            .map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])),
    );
    if route.metric != 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
