// SPDX-License-Identifier: Apache-2.0
//! The packet table through the user-space build of the decisions alone: needs neither root nor the eBPF object.

#[cfg(test)]
#[path = "packets/accelerate.rs"]
mod accelerated;
#[cfg(test)]
#[path = "packets/closing.rs"]
mod closing;
#[cfg(test)]
#[path = "packets/direct.rs"]
mod direct;
#[cfg(test)]
#[path = "packets/eviction.rs"]
mod eviction;
#[cfg(test)]
#[path = "support/judge.rs"]
mod judge;
#[cfg(test)]
#[path = "packets/policy.rs"]
mod policies;
#[cfg(test)]
#[path = "packets/properties.rs"]
mod properties;
#[cfg(test)]
#[path = "support/raw.rs"]
mod raw;
#[cfg(test)]
#[path = "support/relayed.rs"]
mod relayed;
#[cfg(test)]
#[path = "support/services.rs"]
mod services;
#[cfg(test)]
#[path = "packets/services.rs"]
mod shared_backends;
#[cfg(test)]
#[path = "support/table.rs"]
mod table;
#[cfg(test)]
#[path = "support/tuple.rs"]
mod tuple;
#[cfg(test)]
#[path = "support/world.rs"]
mod world;

#[cfg(test)]
/// Interfaces that are nowhere.
const LINKS: world::Links = world::Links {
    pod_a: weir_abi::IfIndex(11),
    pod_b: weir_abi::IfIndex(12),
    host: weir_abi::IfIndex(13),
    underlay: weir_abi::IfIndex(14),
    underlay_mac: weir_abi::MacAddress([2, 0, 0, 0, 0, 0x77]),
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weir_abi::DropReason;
    use weir_packet::memory::MemoryPacket;
    use weir_verdict::{Verdict, Workspace};

    use super::LINKS;
    use super::table::{direct_rows, rows};

    /// Every reason that the programs can raise, but for those that need the kernel to refuse (`CtInsertionFailed`,
    /// `WriteError`, `ChecksumL4`, `ScratchMissing`), a full range of ports (`NoMasqueradeMapping`, tested with the
    /// kernel) or a frame without an Ethernet header (`UnsupportedL2`).
    const REASONS: [DropReason; 31] = [
        DropReason::PolicyDenied,
        DropReason::PolicyDeny,
        DropReason::UnknownPeerIdentity,
        DropReason::ServiceBackendNotFound,
        DropReason::NoServicePort,
        DropReason::IsClusterIp,
        DropReason::SourceRangeDenied,
        DropReason::SctpPortTranslation,
        DropReason::InvalidSourceIp,
        DropReason::InvalidPacket,
        DropReason::CtInvalidHeader,
        DropReason::FragmentationNeeded,
        DropReason::CtUnknownL4,
        DropReason::UnsupportedL3,
        DropReason::UnknownIcmpv4Type,
        DropReason::UnknownIcmpv6Type,
        DropReason::UnknownL3Target,
        DropReason::StaleOrUnroutable,
        DropReason::InvalidExtensionHeader,
        DropReason::NoTunnelEndpoint,
        DropReason::FibLookupFailed,
        DropReason::EncapsulationProhibited,
        DropReason::InvalidIdentity,
        DropReason::UnknownSender,
        DropReason::FirstFragmentNotFound,
        DropReason::FirstFragmentNotFoundWorld,
        DropReason::ForbiddenIcmpv6,
        DropReason::TtlExceeded,
        DropReason::IgmpHandled,
        DropReason::MulticastHandled,
        DropReason::EndpointNotReady,
    ];

    #[test]
    fn every_packet_of_the_table_ends_as_expected() {
        let links = LINKS;
        let (mut failures, mut reasons) = (Vec::new(), BTreeSet::new());
        for native in [false, true] {
            for family in 0..2 {
                let tables = links.tables(native);
                tables.now.set(1000);
                let mut workspace = Workspace::default();
                for row in rows(&links, family, native) {
                    let mut packet = MemoryPacket::new(row.frame.clone());
                    let verdict = weir_verdict::run(
                        &mut packet,
                        &tables,
                        row.hook,
                        row.interface,
                        &mut workspace,
                    );
                    if let Verdict::Drop(reason) | Verdict::Answer(reason, _) = verdict {
                        reasons.insert(reason);
                    }
                    if let Err(problem) = row.check(&links, verdict, packet.bytes()) {
                        let family = [4, 6][family];
                        failures.push(format!(
                            "IPv{family}, native {native}: {}: {problem}",
                            row.name
                        ));
                    }
                }
            }
        }
        assert!(
            failures.is_empty(),
            "{} failures:\n{}",
            failures.len(),
            failures.join("\n")
        );
        assert_eq!(reasons, BTreeSet::from(REASONS));
    }

    #[test]
    fn every_packet_of_direct_return_ends_as_expected() {
        let links = LINKS;
        let mut failures = Vec::new();
        for native in [false, true] {
            for family in 0..2 {
                let tables = links.direct_tables(native);
                tables.now.set(1000);
                let mut workspace = Workspace::default();
                for row in direct_rows(&links, family, native) {
                    let mut packet = MemoryPacket::new(row.frame.clone());
                    let (hook, interface) = (row.hook, row.interface);
                    let verdict =
                        weir_verdict::run(&mut packet, &tables, hook, interface, &mut workspace);
                    if let Err(problem) = row.check(&links, verdict, packet.bytes()) {
                        let (family, name) = ([4, 6][family], row.name);
                        failures.push(format!("IPv{family}, native {native}: {name}: {problem}"));
                    }
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
