// SPDX-License-Identifier: Apache-2.0
//! What to do about a drop: the reason's sentence, made specific by what the event shows.
//!
//! A hint names the address, pod or route that the reader would have to look up, and gives the
//! command with its arguments filled in.

mod codes;
mod policy;

use crate::packet::{Network, Packet, Transport};
use codes::{errno, fib, insertion};
use weir_abi::DropReason;
use weir_api::event::{PacketEvent, Peer};

pub use codes::{errno_name, fib_name};

/// What is known beside the event.
#[derive(Clone, Debug, Default)]
pub struct Evidence<'a> {
    /// The pod behind the link that the packet came from.
    pub sender: Option<&'a str>,
    /// Why the service has no backend.
    pub no_backend: Option<String>,
}

/// The hint for a drop.
pub fn hint(
    reason: DropReason,
    event: &PacketEvent,
    packet: &Packet,
    evidence: &Evidence<'_>,
) -> String {
    specific(reason, event, packet, evidence).unwrap_or_else(|| reason.info().hint.to_owned())
}

/// `None` where the evidence adds nothing to the reason's own sentence.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each reason")]
fn specific(
    reason: DropReason,
    event: &PacketEvent,
    packet: &Packet,
    evidence: &Evidence<'_>,
) -> Option<String> {
    let sender = evidence.sender;
    let source = address(&event.source);
    let destination = address(&event.destination);
    Some(match reason {
        DropReason::InvalidSourceIp => format!(
            "pod {} sent from {}, which is not its address: check for spoofing, an address added by hand, or a bridge or virtual machine inside the pod",
            sender?, source?
        ),
        DropReason::PolicyDenied | DropReason::PolicyDeny => policy::hint(reason, event)?,
        DropReason::StaleOrUnroutable => {
            let destination = destination?;
            format!(
                "no pod has {destination} (any more): `weir ip list | grep {destination}` shows who had it; check whether the client still holds the address of a deleted pod"
            )
        }
        DropReason::FragmentationNeeded => format!(
            "{} the way to {}: the sender was told by ICMP; check that ICMP is not filtered there, and compare `mtu` on pod and underlay",
            too_large(event, packet),
            destination?
        ),
        DropReason::CtUnknownL4 => format!(
            "{} is not tracked: use TCP, UDP, SCTP, ICMP or ICMPv6 between pods",
            event.protocol.as_deref()?
        ),
        DropReason::UnknownL3Target => match packet.network {
            Some(Network::Arp { target, .. }) => format!(
                "{} asked for the MAC address of {target}, which is not its gateway: pods reach everything through the gateway",
                sender.unwrap_or("a pod")
            ),
            Some(Network::Ip(_)) | None => return None,
        },
        DropReason::CtInsertionFailed => format!(
            "the flow table refused a new entry: {}",
            insertion(event.extended)?
        ),
        DropReason::NoTunnelEndpoint => format!(
            "{} belongs to a node that this node has no row for: compare `weir bpf ipcache get {}` and `weir node list` with the cluster's nodes",
            named(&event.destination)?,
            destination?
        ),
        DropReason::NoMasqueradeMapping => format!(
            "every port towards {} is taken: spread the clients over nodes or destinations, and see `weir bpf nat list | grep {}`",
            endpoint(&event.destination)?,
            destination?
        ),
        DropReason::MasqueradeUnsupported => format!(
            "{} cannot be masqueraded: exempt {} with nonMasqueradeCIDRs, or use TCP, UDP or ICMP echo",
            event.protocol.as_deref()?,
            destination?
        ),
        DropReason::FibLookupFailed => {
            let destination = destination?;
            format!(
                "node {} has no usable route to {destination}{}: check `ip route get {destination}` there",
                event.node,
                fib(event.extended)
            )
        }
        DropReason::EncapsulationProhibited => format!(
            "pod {} sent tunnel packets to {} itself, which would bypass policy: find out what runs in it",
            sender?,
            named(&event.destination)?
        ),
        DropReason::InvalidIdentity if packet.inner.is_some() => format!(
            "node {} sent a packet of {} through the tunnel, which does not live there: a pod that moved, or a node whose addresses changed; see `weir bpf ipcache get {}`",
            packet.ip()?.source,
            named(&event.source)?,
            source?
        ),
        DropReason::InvalidIdentity => format!(
            "{} does not belong to where the packet came from ({} on node {}): spoofing, or a node whose addresses changed; see `weir bpf ipcache get {}`",
            source?,
            interface(event),
            event.node,
            source?
        ),
        DropReason::UnknownSender => format!(
            "a tunnel packet came from {}, which is no node of the cluster: compare `weir node list` with the cluster's nodes",
            packet.ip()?.source
        ),
        DropReason::EndpointNotReady => format!(
            "the policy of {} is not realized yet: see `weir endpoint log {}`",
            named(&event.destination)?,
            (event.destination.endpoint != 0).then_some(event.destination.endpoint)?
        ),
        DropReason::ServiceBackendNotFound => {
            let at = endpoint(&event.destination)?;
            let service = match &event.service {
                Some(name) => format!("{name} at {at}"),
                None => at,
            };
            let why = evidence.no_backend.as_deref().unwrap_or(
                "check its selector, the readiness of its pods and the names of its ports",
            );
            format!("the service {service} has no usable backend: {why}")
        }
        DropReason::IsClusterIp => format!(
            "{} reached the cluster IP {} from outside the cluster: use a NodePort, a load balancer or an external IP",
            source?,
            endpoint(&event.destination)?
        ),
        DropReason::NoServicePort => format!(
            "the service at {} has no such port and protocol: see `weir service list`",
            endpoint(&event.destination)?
        ),
        DropReason::SourceRangeDenied => format!(
            "{} is in none of the loadBalancerSourceRanges of the service at {}",
            source?,
            endpoint(&event.destination)?
        ),
        DropReason::UnknownPeerIdentity => format!(
            "policy isolates a pod from {}, an address in a pod range that no pod is known to have: it is new and its address has not come from the API server yet, or it is gone; see `weir ip list | grep {}`",
            source?, source?
        ),
        DropReason::TtlExceeded => format!(
            "the packet from {} to {} went round in a loop, or somebody traces the route",
            source?, destination?
        ),
        DropReason::WriteError | DropReason::ChecksumL3 | DropReason::ChecksumL4 => format!(
            "the kernel refused to change the packet ({}): `dmesg` on node {} may say more",
            errno(event.extended)?,
            event.node
        ),
        DropReason::HostUnreachable => format!(
            "the interface `weir_host` is missing or down: restart the agent on node {}",
            event.node
        ),
        DropReason::NoDevice => format!(
            "the device to send by does not exist (any more) on node {}: see `weir status --verbose` there",
            event.node
        ),
        DropReason::InvalidPacket
        | DropReason::CtInvalidHeader
        | DropReason::UnsupportedL3
        | DropReason::UnknownIcmpv4Code
        | DropReason::UnknownIcmpv4Type
        | DropReason::UnknownIcmpv6Code
        | DropReason::UnknownIcmpv6Type
        | DropReason::InvalidExtensionHeader
        | DropReason::FragmentationUnsupported
        | DropReason::UnsupportedL2
        | DropReason::FirstFragmentNotFound
        | DropReason::ForbiddenIcmpv6
        | DropReason::ScratchMissing
        | DropReason::RateLimited
        | DropReason::IgmpHandled
        | DropReason::MulticastHandled
        | DropReason::HostNotReady
        | DropReason::FirstFragmentNotFoundWorld
        | DropReason::SctpPortTranslation => return None,
    })
}

/// The capture may be the packet or the answer that was made of it, which says what would fit.
fn too_large(event: &PacketEvent, packet: &Packet) -> String {
    match packet.transport {
        Some(Transport::Icmp { mtu: Some(mtu), .. }) => {
            format!("the packet is larger than the {mtu} bytes that fit")
        }
        _ => format!("the packet of {} bytes does not fit", event.length),
    }
}

fn address(peer: &Peer) -> Option<&str> {
    (!peer.address.is_empty()).then_some(peer.address.as_str())
}

/// Name and address, or the address alone.
fn named(peer: &Peer) -> Option<String> {
    let address = address(peer)?;
    Some(if peer.name.is_empty() {
        address.to_owned()
    } else {
        format!("{} ({address})", peer.name)
    })
}

fn endpoint(peer: &Peer) -> Option<String> {
    let address = address(peer)?;
    Some(match peer.port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    })
}

fn interface(event: &PacketEvent) -> String {
    if event.interface.is_empty() {
        format!("interface {}", event.ifindex)
    } else {
        event.interface.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> PacketEvent {
        PacketEvent {
            node: "n1".to_owned(),
            length: 1514,
            protocol: Some("TCP".to_owned()),
            source: Peer {
                address: "10.8.5.9".to_owned(),
                port: Some(47110),
                name: "shop/cli".to_owned(),
                ..Peer::default()
            },
            destination: Peer {
                address: "10.8.3.41".to_owned(),
                port: Some(8080),
                name: "shop/web".to_owned(),
                endpoint: 12,
                ..Peer::default()
            },
            ..PacketEvent::default()
        }
    }

    #[track_caller]
    fn check(reason: DropReason, extended: i32, expected: &str) {
        let event = PacketEvent {
            extended,
            ..event()
        };
        let evidence = Evidence {
            sender: Some("shop/cli"),
            no_backend: Some("its selector app=web matches no pod".to_owned()),
        };
        let hint = hint(reason, &event, &Packet::default(), &evidence);
        assert!(hint.contains(expected), "{hint}");
    }

    #[test]
    fn hints_name_what_the_event_shows() {
        check(
            DropReason::InvalidSourceIp,
            0,
            "pod shop/cli sent from 10.8.5.9",
        );
        check(
            DropReason::PolicyDenied,
            0,
            "weir policy trace --src-k8s-pod shop:cli --dst-k8s-pod shop:web --dport 8080/TCP",
        );
        check(
            DropReason::StaleOrUnroutable,
            0,
            "`weir ip list | grep 10.8.3.41`",
        );
        check(DropReason::FibLookupFailed, 2, "to 10.8.3.41 (unreachable)");
        check(DropReason::CtInsertionFailed, -16, "passes by itself");
        check(DropReason::EndpointNotReady, 0, "`weir endpoint log 12`");
        check(DropReason::FragmentationNeeded, 0, "1514 bytes");
        check(
            DropReason::ServiceBackendNotFound,
            0,
            "the service 10.8.3.41:8080 has no usable backend: its selector app=web matches no pod",
        );
    }

    #[test]
    fn every_reason_has_a_hint_without_any_evidence() {
        for &reason in DropReason::ALL {
            let (event, evidence) = (PacketEvent::default(), Evidence::default());
            let hint = hint(reason, &event, &Packet::default(), &evidence);
            assert!(!hint.is_empty(), "{reason:?}");
        }
    }
}
