// SPDX-License-Identifier: Apache-2.0
//! Nothing that a ring buffer or a packet can hold stops the reader.

#[cfg(test)]
mod hostile_records {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;
    use weir_abi::number::{EndpointId, IfIndex};
    use weir_abi::{Address, Identity};
    use weir_observe::line::{Style, format};
    use weir_observe::packet::{Packet, Transport};
    use weir_observe::{BootClock, Decoded, Decoder, Filter, Names};

    struct Nobody;

    impl Names for Nobody {
        fn node(&self) -> &'static str {
            "n1"
        }
        fn time(&self, monotonic_nanoseconds: u64) -> String {
            BootClock::new(0, 0).rfc3339(monotonic_nanoseconds)
        }
        fn peer(&self, _: Address) -> Option<String> {
            None
        }
        fn endpoint(&self, _: EndpointId) -> Option<String> {
            None
        }
        fn labels(&self, _: Identity) -> Vec<String> {
            Vec::new()
        }
        fn interface(&self, _: IfIndex) -> Option<String> {
            None
        }
    }

    const FULL: Style = Style {
        numeric: false,
        verbose: true,
        hex: true,
        time: true,
    };

    fn kinds() -> impl Strategy<Value = u8> {
        prop_oneof![Just(1u8), Just(4), Just(5), Just(131), any::<u8>()]
    }

    /// Frames that get past the first checks of a parser more often than random bytes do.
    fn frames() -> impl Strategy<Value = Vec<u8>> {
        (
            prop::collection::vec(any::<u8>(), 0..160),
            prop_oneof![Just([8u8, 0]), Just([0x86, 0xdd]), Just([8, 6])],
            any::<[u8; 2]>(),
        )
            .prop_map(|(mut frame, ethertype, [version, protocol])| {
                if let Some(place) = frame.get_mut(12..14) {
                    place.copy_from_slice(&ethertype);
                }
                let ip = if ethertype == [8, 0] { 0x45 } else { 0x60 };
                if let Some(first) = frame.get_mut(14) {
                    *first = if version % 4 == 0 { version } else { ip };
                }
                let (place, known) = if ip == 0x45 {
                    (23, [1, 6, 17, 132])
                } else {
                    (20, [58, 6, 44, 0])
                };
                if let Some(number) = frame.get_mut(place) {
                    *number = known[usize::from(protocol % 4)];
                }
                frame
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_an_event_a_signal_or_a_counted_problem(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300),
            kind in kinds(),
            known_version: bool,
        ) {
            if let [first, second, ..] = bytes.as_mut_slice() {
                *first = kind;
                if known_version {
                    *second = 1;
                }
            }
            let mut decoder = Decoder::new();
            match decoder.decode(&bytes, &Nobody) {
                Some(Decoded::Event(event)) => {
                    prop_assert!(!format(&event, FULL).is_empty());
                    prop_assert!(Filter::default().matches(&event));
                }
                Some(Decoded::Signal(_)) => {}
                None => prop_assert_eq!(decoder.problems().total(), 1),
            }
        }

        #[test]
        fn any_frame_can_be_described(frame in frames()) {
            for packet in [Packet::parse(&frame), Packet::parse_layer3(&frame)] {
                let _ = (packet.layers(), packet.flags(), packet.protocol());
            }
        }

        /// Where an independent parser finds addresses and ports, this one finds the same.
        #[test]
        fn an_independent_parser_agrees(frame in frames()) {
            let ours = Packet::parse_ethernet(&frame);
            let Ok(strict) = SlicedPacket::from_ethernet(&frame) else {
                return Ok(());
            };
            match &strict.net {
                Some(NetSlice::Ipv4(ip)) => {
                    let ip = ip.header();
                    let found = ours.ip().expect("an IPv4 header is there");
                    prop_assert_eq!(found.source, ip.source_addr());
                    prop_assert_eq!(found.destination, ip.destination_addr());
                    prop_assert_eq!(found.ttl, ip.ttl());
                }
                Some(NetSlice::Ipv6(ip)) => {
                    let ip = ip.header();
                    let found = ours.ip().expect("an IPv6 header is there");
                    prop_assert_eq!(found.source, ip.source_addr());
                    prop_assert_eq!(found.destination, ip.destination_addr());
                }
                Some(NetSlice::Arp(_)) | None => {}
            }
            match (&strict.transport, ours.transport) {
                (Some(TransportSlice::Tcp(tcp)), Some(Transport::Tcp { source_port, destination_port, sequence, .. })) => {
                    prop_assert_eq!(source_port, tcp.source_port());
                    prop_assert_eq!(destination_port, tcp.destination_port());
                    prop_assert_eq!(sequence, tcp.sequence_number());
                }
                (Some(TransportSlice::Tcp(_)), other) => prop_assert!(false, "{:?}", other),
                (Some(TransportSlice::Udp(udp)), Some(Transport::Udp { source_port, destination_port, .. })) => {
                    prop_assert_eq!(source_port, udp.source_port());
                    prop_assert_eq!(destination_port, udp.destination_port());
                }
                (Some(TransportSlice::Udp(_)), other) => prop_assert!(false, "{:?}", other),
                (Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None, _) => {}
            }
        }
    }
}
