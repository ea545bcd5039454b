// SPDX-License-Identifier: Apache-2.0
//! Why packets are dropped: declared once; counters, events, metrics, listings and the
//! documentation derive from this table.
//!
//! Numbers and names are those that the field uses where the meaning is equal; Weir's own start at
//! 220. `0` is not a drop: it counts forwarded packets.

/// A class of reasons, for people who look at many drops at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The packet was consumed on purpose or is everyday noise.
    Expected,
    /// Somebody's packet did not arrive: look.
    Problem,
}

/// What is known about a drop reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReasonInfo {
    /// The number in events and counters.
    pub number: u8,
    /// The upper-case name that flow exports use.
    pub enum_name: &'static str,
    /// The words that `monitor` prints and metrics label.
    pub prose: &'static str,
    pub severity: Severity,
    /// What to do about it, one sentence.
    pub hint: &'static str,
}

macro_rules! reasons {
    ($($name:ident = $number:literal, $enum_name:literal, $prose:literal, $severity:ident, $hint:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $prose] $name = $number,)*
        }

        impl DropReason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// All that is known about the reason.
            pub const fn info(self) -> ReasonInfo {
                match self {
                    $(Self::$name => ReasonInfo {
                        number: $number,
                        enum_name: $enum_name,
                        prose: $prose,
                        severity: Severity::$severity,
                        hint: $hint,
                    },)*
                }
            }
        }
    };
}

reasons! {
    InvalidSourceIp = 132, "INVALID_SOURCE_IP", "Invalid source ip", Problem,
        "the pod sent from an address that is not its own: check for address spoofing, an address added by hand, or a bridge or virtual machine inside the pod";
    PolicyDenied = 133, "POLICY_DENIED", "Policy denied", Problem,
        "no policy rule allows this: run `weir policy trace` for the two pods";
    InvalidPacket = 134, "INVALID_PACKET_DROPPED", "Invalid packet", Problem,
        "the IP header is malformed: capture on the sender, look for a broken offload or a fuzzer";
    CtInvalidHeader = 135, "CT_TRUNCATED_OR_INVALID_HEADER", "CT: Truncated or invalid header", Problem,
        "the transport header is cut off: capture on the sender";
    FragmentationNeeded = 136, "CT_MISSING_TCP_ACK_FLAG", "Fragmentation needed", Problem,
        "the packet is larger than the path's MTU: the sender was told by ICMP; check that it is not filtered there, and compare `mtu` on pod and underlay";
    CtUnknownL4 = 137, "CT_UNKNOWN_L4_PROTOCOL", "CT: Unknown L4 protocol", Problem,
        "only TCP, UDP, SCTP, ICMP and ICMPv6 are tracked: use one of these between pods";
    UnsupportedL3 = 139, "UNSUPPORTED_L3_PROTOCOL", "Unsupported L3 protocol", Expected,
        "the frame is neither IPv4, IPv6 nor ARP";
    WriteError = 141, "ERROR_WRITING_TO_PACKET", "Error writing to packet", Problem,
        "the kernel refused to change the packet (out of memory?): see the extended error";
    UnknownIcmpv4Code = 143, "UNKNOWN_ICMPV4_CODE", "Unknown ICMPv4 code", Problem,
        "an ICMP message of this code cannot be related to a flow";
    UnknownIcmpv4Type = 144, "UNKNOWN_ICMPV4_TYPE", "Unknown ICMPv4 type", Problem,
        "an ICMP message of this type is neither an echo nor an error about a flow";
    UnknownIcmpv6Code = 145, "UNKNOWN_ICMPV6_CODE", "Unknown ICMPv6 code", Problem,
        "an ICMPv6 message of this code cannot be related to a flow";
    UnknownIcmpv6Type = 146, "UNKNOWN_ICMPV6_TYPE", "Unknown ICMPv6 type", Problem,
        "an ICMPv6 message of this type is neither an echo nor an error about a flow";
    UnknownL3Target = 150, "UNKNOWN_L3_TARGET_ADDRESS", "Unknown L3 target address", Expected,
        "a pod asked for the MAC address of something that is not its gateway: pods reach everything through the gateway";
    StaleOrUnroutable = 151, "STALE_OR_UNROUTABLE_IP", "Stale or unroutable IP", Problem,
        "no pod has this address (any more): check `weir ip list` and whether the client still holds the address of a deleted pod";
    ChecksumL3 = 153, "ERROR_WHILE_CORRECTING_L3_CHECKSUM", "Error while correcting L3 checksum", Problem,
        "the kernel refused to update the IP checksum: see the extended error";
    ChecksumL4 = 154, "ERROR_WHILE_CORRECTING_L4_CHECKSUM", "Error while correcting L4 checksum", Problem,
        "the kernel refused to update the transport checksum: see the extended error";
    CtInsertionFailed = 155, "CT_MAP_INSERTION_FAILED", "CT: Map insertion failed", Problem,
        "the flow table refused a new entry: the extended error is the errno; -16 passes by itself, else see `weir status --verbose` for the table's pressure";
    InvalidExtensionHeader = 156, "INVALID_IPV6_EXTENSION_HEADER", "Invalid IPv6 extension header", Problem,
        "the chain of IPv6 extension headers is too long or malformed";
    FragmentationUnsupported = 157, "IP_FRAGMENTATION_NOT_SUPPORTED", "IP fragmentation not supported", Problem,
        "a fragment arrived where fragments cannot be followed";
    ServiceBackendNotFound = 158, "SERVICE_BACKEND_NOT_FOUND", "Service backend not found", Problem,
        "the service has no usable backend: check its selector, the readiness of its pods and the names of its ports";
    NoTunnelEndpoint = 160, "NO_TUNNEL_OR_ENCAPSULATION_ENDPOINT", "No tunnel/encapsulation endpoint", Problem,
        "the address belongs to a node that this node has no row for: compare `weir node list` with the cluster's nodes";
    HostUnreachable = 164, "LOCAL_HOST_IS_UNREACHABLE", "Local host is unreachable", Problem,
        "the interface `weir_host` is missing or down: restart the agent on this node";
    UnsupportedL2 = 166, "UNSUPPORTED_L2_PROTOCOL", "Unsupported L2 protocol", Expected,
        "the frame is not Ethernet with IP or ARP";
    NoMasqueradeMapping = 167, "NO_MAPPING_FOR_NAT_MASQUERADE", "No mapping for NAT masquerade", Problem,
        "every port towards this destination is taken: spread the clients over nodes or destinations, and see `weir bpf nat list`";
    MasqueradeUnsupported = 168, "UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE", "Unsupported protocol for NAT masquerade", Problem,
        "this protocol cannot be masqueraded: exempt the destination with nonMasqueradeCIDRs or use TCP, UDP or ICMP echo";
    FibLookupFailed = 169, "FIB_LOOKUP_FAILED", "FIB lookup failed", Problem,
        "the node has no usable route: the extended code says which (1 blackhole, 2 unreachable, 3 prohibited, 4 not forwarded, 5 forwarding disabled); check `ip route get` on the node";
    EncapsulationProhibited = 170, "ENCAPSULATION_TRAFFIC_IS_PROHIBITED", "Encapsulation traffic is prohibited", Problem,
        "a pod sent tunnel packets to a node itself, which would bypass policy: find out what runs in it";
    InvalidIdentity = 171, "INVALID_IDENTITY", "Invalid identity", Problem,
        "the packet's source address does not belong to where it came from: spoofing, or a node whose addresses changed";
    UnknownSender = 172, "UNKNOWN_SENDER", "Unknown sender", Problem,
        "a tunnel packet came from an address that is no node of the cluster: compare `weir node list` with the cluster's nodes";
    IsClusterIp = 174, "IS_A_CLUSTERIP", "Is a ClusterIP", Problem,
        "a cluster IP was reached from outside the cluster: use a NodePort, a load balancer or an external IP";
    FirstFragmentNotFound = 175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND", "First logical datagram fragment not found", Problem,
        "a later fragment came before the first one, or the fragment table was too small: avoid fragments, or raise mapSizes.fragments";
    ForbiddenIcmpv6 = 176, "FORBIDDEN_ICMPV6_MESSAGE", "Forbidden ICMPv6 message", Problem,
        "pods must not send router advertisements or redirects";
    SourceRangeDenied = 177, "DENIED_BY_LB_SRC_RANGE_CHECK", "Denied by LB src range check", Problem,
        "the client's address is in none of the service's loadBalancerSourceRanges";
    PolicyDeny = 181, "POLICY_DENY", "Policy denied by denylist", Problem,
        "an explicit deny rule matched: run `weir policy trace` for the two pods";
    ScratchMissing = 184, "INVALID_TC_BUFFER", "Failed to update or lookup TC buffer", Problem,
        "the programs' scratch memory is missing: restart the agent on this node";
    TtlExceeded = 196, "TTL_EXCEEDED", "TTL exceeded", Problem,
        "the packet went round in a loop, or somebody traces the route";
    RateLimited = 198, "DROP_RATE_LIMITED", "Rate limited", Problem,
        "too many answers of this kind were wanted";
    IgmpHandled = 199, "IGMP_HANDLED", "IGMP handled", Expected,
        "a multicast membership report, which needs no forwarding here";
    MulticastHandled = 201, "MULTICAST_HANDLED", "Multicast handled", Expected,
        "multicast and neighbour discovery of a pod's own link end at the link";
    HostNotReady = 202, "DROP_HOST_NOT_READY", "Host datapath not ready", Problem,
        "the agent has not finished its first round on this node: see `weir status`";
    EndpointNotReady = 203, "DROP_EP_NOT_READY", "Endpoint policy program not available", Problem,
        "the pod's policy is not realized yet: see `weir endpoint list` and `weir endpoint log`";
    NoDevice = 206, "DROP_NO_DEVICE", "No device", Problem,
        "the device to send by does not exist (any more)";
    FirstFragmentNotFoundWorld = 207, "DROP_FRAG_NOT_FOUND_WORLD", "First logical datagram fragment not found from world", Expected,
        "a later fragment from outside the cluster came without its first one: mostly noise";
    UnknownPeerIdentity = 220, "UNKNOWN_PEER_IDENTITY", "Peer's identity not known yet", Problem,
        "policy isolates the pod and the peer's address is in a pod range, but no pod is known to have it: the pod is new and its address has not come from the API server yet, or it is gone; see `weir ip list`";
    NoServicePort = 221, "NO_SERVICE_PORT", "No service at this port", Problem,
        "the address belongs to a service, but the service has no such port and protocol: see `weir service list`";
    SctpPortTranslation = 222, "SCTP_PORT_TRANSLATION", "Port of SCTP cannot be translated", Problem,
        "the checksum of SCTP covers the ports and cannot be updated here: give the service the same port and targetPort";
}

impl DropReason {
    /// The number in events and counters.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Finds a reason by what people type: its number, prose or enum name in any case, a unique
    /// beginning of the enum name (`NO_TUNNEL_OR_ENCAPSULATION`, `INVALID_PACKET`).
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<u8>() {
            return Self::from_number(number);
        }
        let exact = Self::ALL.iter().copied().find(|reason| {
            let info = reason.info();
            info.prose.eq_ignore_ascii_case(text) || info.enum_name.eq_ignore_ascii_case(text)
        });
        if exact.is_some() {
            return exact;
        }
        let mut begins = Self::ALL.iter().copied().filter(|reason| {
            let name = reason.info().enum_name.as_bytes();
            name.get(..text.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()))
        });
        match (begins.next(), begins.next()) {
            (Some(only), None) => Some(only),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sorted_and_in_the_range_of_drops() {
        assert!(
            DropReason::ALL
                .windows(2)
                .all(|pair| pair[0].number() < pair[1].number())
        );
        assert!(DropReason::ALL.iter().all(|reason| reason.number() >= 130));
    }

    #[test]
    fn every_way_to_write_a_reason_finds_it() {
        for &reason in DropReason::ALL {
            let info = reason.info();
            assert_eq!(DropReason::parse(info.prose), Some(reason));
            assert_eq!(DropReason::parse(info.enum_name), Some(reason));
            assert_eq!(DropReason::from_number(info.number), Some(reason));
        }
    }

    #[test]
    fn the_short_names_that_people_know_are_accepted() {
        for (text, reason) in [
            ("POLICY_DENIED", DropReason::PolicyDenied),
            ("CT_MAP_INSERTION_FAILED", DropReason::CtInsertionFailed),
            ("NO_TUNNEL_OR_ENCAPSULATION", DropReason::NoTunnelEndpoint),
            ("INVALID_PACKET", DropReason::InvalidPacket),
            ("policy denied", DropReason::PolicyDenied),
            ("151", DropReason::StaleOrUnroutable),
        ] {
            assert_eq!(DropReason::parse(text), Some(reason), "{text}");
        }
        assert_eq!(DropReason::parse("POLICY"), None);
        assert_eq!(DropReason::parse("nonsense"), None);
    }
}
