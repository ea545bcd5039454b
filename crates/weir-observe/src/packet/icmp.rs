// SPDX-License-Identifier: Apache-2.0
//! Names of ICMP messages (IANA "ICMP Type Numbers", "ICMPv6 Parameters").

use weir_abi::Protocol;

/// `EchoRequest`, `DestinationUnreachable(Port)` …; unknown ones by their numbers.
pub fn icmp_name(protocol: Protocol, kind: u8, code: u8) -> String {
    let (name, codes): (&str, &[&str]) = if protocol == Protocol::ICMPV6 {
        version6(kind)
    } else {
        version4(kind)
    };
    match (name, codes.get(usize::from(code))) {
        ("", _) => format!("type {kind} code {code}"),
        (name, Some(code)) => format!("{name}({code})"),
        (name, None) if code == 0 => name.to_owned(),
        (name, None) => format!("{name}(code {code})"),
    }
}

fn version4(kind: u8) -> (&'static str, &'static [&'static str]) {
    match kind {
        0 => ("EchoReply", &[]),
        3 => (
            "DestinationUnreachable",
            &[
                "Net",
                "Host",
                "Protocol",
                "Port",
                "FragmentationNeeded",
                "SourceRouteFailed",
                "NetUnknown",
                "HostUnknown",
                "SourceIsolated",
                "NetAdminProhibited",
                "HostAdminProhibited",
                "NetTOS",
                "HostTOS",
                "CommAdminProhibited",
                "HostPrecedence",
                "PrecedenceCutoff",
            ],
        ),
        4 => ("SourceQuench", &[]),
        5 => ("Redirect", &["Net", "Host", "TOS+Net", "TOS+Host"]),
        8 => ("EchoRequest", &[]),
        9 => ("RouterAdvertisement", &[]),
        10 => ("RouterSolicitation", &[]),
        11 => (
            "TimeExceeded",
            &["TTLExceeded", "FragmentReassemblyTimeExceeded"],
        ),
        12 => (
            "ParameterProblem",
            &["PointerIndicatesError", "MissingOption", "BadLength"],
        ),
        13 => ("TimestampRequest", &[]),
        14 => ("TimestampReply", &[]),
        15 => ("InfoRequest", &[]),
        16 => ("InfoReply", &[]),
        17 => ("AddressMaskRequest", &[]),
        18 => ("AddressMaskReply", &[]),
        _ => ("", &[]),
    }
}

fn version6(kind: u8) -> (&'static str, &'static [&'static str]) {
    match kind {
        1 => (
            "DestinationUnreachable",
            &[
                "NoRouteToDst",
                "AdminProhibited",
                "BeyondScopeOfSrc",
                "Address",
                "Port",
                "SrcAddressFailedPolicy",
                "RejectRouteToDst",
            ],
        ),
        2 => ("PacketTooBig", &[]),
        3 => (
            "TimeExceeded",
            &["HopLimitExceeded", "FragmentReassemblyTimeExceeded"],
        ),
        4 => (
            "ParameterProblem",
            &[
                "ErroneousHeader",
                "UnrecognizedNextHeader",
                "UnrecognizedIPv6Option",
            ],
        ),
        128 => ("EchoRequest", &[]),
        129 => ("EchoReply", &[]),
        130 => ("MulticastListenerQuery", &[]),
        131 => ("MulticastListenerReport", &[]),
        132 => ("MulticastListenerDone", &[]),
        133 => ("RouterSolicitation", &[]),
        134 => ("RouterAdvertisement", &[]),
        135 => ("NeighborSolicitation", &[]),
        136 => ("NeighborAdvertisement", &[]),
        137 => ("Redirect", &[]),
        143 => ("MulticastListenerReportV2", &[]),
        _ => ("", &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(protocol: Protocol, numbers: (u8, u8), expected: &str) {
        assert_eq!(icmp_name(protocol, numbers.0, numbers.1), expected);
    }

    #[test]
    fn messages_are_named() {
        check(Protocol::ICMP, (8, 0), "EchoRequest");
        check(
            Protocol::ICMP,
            (3, 4),
            "DestinationUnreachable(FragmentationNeeded)",
        );
        check(Protocol::ICMP, (3, 200), "DestinationUnreachable(code 200)");
        check(Protocol::ICMP, (200, 7), "type 200 code 7");
        check(Protocol::ICMPV6, (2, 0), "PacketTooBig");
        check(Protocol::ICMPV6, (1, 4), "DestinationUnreachable(Port)");
        check(Protocol::ICMPV6, (8, 0), "type 8 code 0");
    }
}
