// SPDX-License-Identifier: Apache-2.0
//! Records in, lines out.

#[cfg(test)]
mod events {
    use etherparse::PacketBuilder;
    use weir_abi::event::{CAPTURE_MAX, EVENT_VERSION, EventRecord, flags, kind, signal};
    use weir_abi::number::{EndpointId, IfIndex};
    use weir_abi::observation::Hook;
    use weir_abi::policy::PolicyDirection;
    use weir_abi::{
        Address, DropReason, FlowKey, Identity, ObservationPoint, PolicyCookie, Port, Protocol,
        ServiceId, TraceReason,
    };
    use weir_api::event::Event;
    use weir_api::policy::PolicyRule;
    use weir_observe::line::{Style, format};
    use weir_observe::{
        BootClock, DecodeProblem, Decoded, Decoder, Denial, Names, Signal, decode, verdicts,
    };
    use zerocopy::IntoBytes;

    struct Cluster;

    impl Names for Cluster {
        fn node(&self) -> &'static str {
            "n1"
        }
        fn time(&self, monotonic_nanoseconds: u64) -> String {
            BootClock::new(1_772_359_200_000_000_000, 0).rfc3339(monotonic_nanoseconds)
        }
        fn peer(&self, address: Address) -> Option<String> {
            match address.to_string().as_str() {
                "10.8.5.9" | "fd00:8::9" => Some("shop/cli".to_owned()),
                "10.8.3.41" | "fd00:8::41" => Some("shop/web".to_owned()),
                "172.18.0.3" => Some("node/n2".to_owned()),
                _ => None,
            }
        }
        fn endpoint(&self, id: EndpointId) -> Option<String> {
            (id.get() == 7).then(|| "shop/cli".to_owned())
        }
        fn link(&self, index: IfIndex) -> Option<EndpointId> {
            (index.get() == 31).then_some(EndpointId(7))
        }
        fn labels(&self, identity: Identity) -> Vec<String> {
            vec![format!("k8s:number={identity}")]
        }
        fn interface(&self, index: IfIndex) -> Option<String> {
            (index.get() == 31).then(|| "weir0a1b2c3d".to_owned())
        }
        fn service(&self, service: ServiceId) -> Option<String> {
            (service.get() == 4).then(|| "shop/web:http".to_owned())
        }
        fn no_backend(&self, service: ServiceId) -> Option<String> {
            (service.get() == 4).then(|| "its selector app=web matches no pod".to_owned())
        }
        fn rules(&self, cookie: PolicyCookie) -> Vec<PolicyRule> {
            vec![policy(&format!("rule-{cookie}"), Some(0))]
        }
        fn nearest_miss(&self, denial: &Denial) -> Option<String> {
            Some(format!("a rule without port {}", denial.port))
        }
        fn isolating(&self, endpoint: EndpointId, direction: PolicyDirection) -> Vec<PolicyRule> {
            vec![policy(
                &format!("deny-{}-{endpoint}", direction.name()),
                None,
            )]
        }
    }

    fn policy(name: &str, rule: Option<u32>) -> PolicyRule {
        PolicyRule {
            kind: "NetworkPolicy".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            rule,
        }
    }

    fn address(text: &str) -> Address {
        Address::from(text.parse::<std::net::IpAddr>().unwrap())
    }

    fn record(kind: u8, subtype: u8, frame: &[u8]) -> EventRecord {
        let mut capture = [0; CAPTURE_MAX];
        let captured = frame.len().min(CAPTURE_MAX);
        capture[..captured].copy_from_slice(&frame[..captured]);
        EventRecord {
            kind,
            version: EVENT_VERSION,
            subtype,
            hook: Hook::FromContainer as u8,
            ifindex: IfIndex(31),
            timestamp: 1_000_000_042,
            packet_length: u32::try_from(frame.len()).unwrap(),
            source_identity: Identity(20990),
            destination_identity: Identity(20817),
            source_endpoint: EndpointId(7),
            captured: u16::try_from(captured).unwrap(),
            capture,
            ..EventRecord::default()
        }
    }

    fn with_key(
        record: &EventRecord,
        protocol: Protocol,
        from: (&str, u16),
        to: (&str, u16),
    ) -> EventRecord {
        EventRecord {
            flags: record.flags | flags::HAS_KEY,
            key: FlowKey {
                source: address(from.0),
                destination: address(to.0),
                source_port: Port::new(from.1),
                destination_port: Port::new(to.1),
                protocol,
                zone: [0; 2],
                reserved: 0,
            },
            ..*record
        }
    }

    fn syn() -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [10, 0x57, 0x45, 0x49, 0x52, 1])
            .ipv4([10, 8, 5, 9], [10, 8, 3, 41], 64)
            .tcp(47110, 8080, 1000, 64240)
            .syn()
            .write(&mut frame, &[])
            .unwrap();
        frame
    }

    fn tcp_drop(reason: DropReason) -> EventRecord {
        EventRecord {
            tcp_flags: 0x02,
            destination_endpoint: EndpointId(412),
            ..with_key(
                &record(kind::DROP, reason.number(), &syn()),
                Protocol::TCP,
                ("10.8.5.9", 47110),
                ("10.8.3.41", 8080),
            )
        }
    }

    fn event(record: &EventRecord) -> Event {
        match decode(record.as_bytes(), &Cluster) {
            Ok(Decoded::Event(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check(record: &EventRecord, style: Style, expected: &[&str]) {
        assert_eq!(format(&event(record), style), expected);
    }

    #[test]
    fn a_drop_says_who_why_and_what_to_do() {
        check(
            &tcp_drop(DropReason::StaleOrUnroutable),
            Style::default(),
            &[
                "xx drop (Stale or unroutable IP/STALE_OR_UNROUTABLE_IP) flow 0x1c58232c to endpoint 412, ifindex 31 (weir0a1b2c3d), hook from_container, identity 20990->20817: 10.8.5.9:47110 (shop/cli) -> 10.8.3.41:8080 (shop/web) tcp SYN",
                "   hint: no pod has 10.8.3.41 (any more): `weir ip list | grep 10.8.3.41` shows who had it; check whether the client still holds the address of a deleted pod",
            ],
        );
    }

    #[test]
    fn an_extended_error_is_named() {
        let record = EventRecord {
            extended: -16,
            ..tcp_drop(DropReason::CtInsertionFailed)
        };
        check(
            &record,
            Style {
                numeric: true,
                ..Style::default()
            },
            &[
                "xx drop (CT: Map insertion failed/CT_MAP_INSERTION_FAILED, -16 (EBUSY)) flow 0x1c58232c to endpoint 412, ifindex 31, hook from_container, identity 20990->20817: 10.8.5.9:47110 -> 10.8.3.41:8080 tcp SYN",
                "   hint: the flow table refused a new entry: another CPU held the same bucket (EBUSY), which passes by itself",
            ],
        );
    }

    #[test]
    fn layers_and_bytes_stand_between_the_drop_and_its_hint() {
        let style = Style {
            verbose: true,
            hex: true,
            time: true,
            ..Style::default()
        };
        let lines = format(&event(&tcp_drop(DropReason::PolicyDenied)), style);
        assert!(
            lines[0].starts_with(
                "2026-03-01T10:00:01.000000042Z xx drop (Policy denied/POLICY_DENIED)"
            ),
            "{}",
            lines[0]
        );
        assert_eq!(
            lines[1..5],
            [
                "   node n1 hook from_container ifindex 31 weir0a1b2c3d length 54 captured 54",
                "   ethernet 02:02:02:02:02:02 -> 0a:57:45:49:52:01 type 0x0800",
                "   ipv4 10.8.5.9 -> 10.8.3.41 TCP ttl 64 length 40",
                "   tcp 47110 -> 8080 [SYN] seq 1000 ack 0 window 64240",
            ]
        );
        assert!(lines[5].starts_with("   00000000  0a 57 45 49 52 01 02 02"));
        assert_eq!(
            lines.last().unwrap(),
            "   hint: no policy rule allows this: run `weir policy trace --src-k8s-pod shop:cli --dst-k8s-pod shop:web --dport 8080/TCP`"
        );
    }

    #[test]
    fn traces_follow_the_packet() {
        let to = EventRecord {
            trace_reason: TraceReason::Reply as u8,
            flags: flags::REPLY | flags::INGRESS,
            destination_endpoint: EndpointId(7),
            source_endpoint: EndpointId(0),
            original_source: address("172.18.0.3"),
            tcp_flags: 0x12,
            ..record(kind::TRACE, ObservationPoint::ToEndpoint as u8, &[])
        };
        let to = with_key(&to, Protocol::TCP, ("fd00:8::41", 80), ("fd00:8::9", 40000));
        check(
            &to,
            Style::default(),
            &[
                "-> endpoint 7 flow 0x4aa1e94f, identity 20990->20817 state reply ifindex weir0a1b2c3d orig-ip 172.18.0.3: [fd00:8::41]:80 (shop/web) -> [fd00:8::9]:40000 (shop/cli) tcp SYN, ACK",
            ],
        );
        let from = EventRecord {
            destination_identity: Identity::WORLD_IPV4,
            ..record(kind::TRACE, ObservationPoint::FromEndpoint as u8, &[])
        };
        let from = with_key(&from, Protocol::UDP, ("10.8.5.9", 5353), ("192.0.2.7", 53));
        check(
            &from,
            Style::default(),
            &[
                "<- endpoint 7 flow 0x8a2f3a1e, identity 20990->world-ipv4 state new ifindex weir0a1b2c3d: 10.8.5.9:5353 (shop/cli) -> 192.0.2.7:53 (world-ipv4) udp",
            ],
        );
    }

    #[test]
    fn icmp_messages_and_arp_are_named() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 8, 5, 9], [10, 8, 3, 41], 64)
            .icmpv4_echo_request(77, 1)
            .write(&mut frame, &[])
            .unwrap();
        let echo = with_key(
            &record(kind::TRACE, ObservationPoint::ToOverlay as u8, &frame),
            Protocol::ICMP,
            ("10.8.5.9", 77),
            ("10.8.3.41", 0),
        );
        check(
            &echo,
            Style::default(),
            &[
                "-> overlay flow 0xef35f6d0, identity 20990->20817 state new ifindex weir0a1b2c3d: 10.8.5.9 (shop/cli) -> 10.8.3.41 (shop/web) icmp EchoRequest",
            ],
        );
        let mut arp = vec![0xff; 6];
        arp.extend([2; 6]);
        arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        arp.extend([2, 2, 2, 2, 2, 2, 10, 8, 5, 9, 0, 0, 0, 0, 0, 0, 10, 8, 5, 1]);
        check(
            &record(kind::DROP, DropReason::UnknownL3Target.number(), &arp),
            Style::default(),
            &[
                "xx drop (Unknown L3 target address/UNKNOWN_L3_TARGET_ADDRESS) flow 0x0, ifindex 31 (weir0a1b2c3d), hook from_container, identity 20990->20817: 42 bytes arp who-has 10.8.5.1 tell 10.8.5.9",
                "   hint: shop/cli asked for the MAC address of 10.8.5.1, which is not its gateway: pods reach everything through the gateway",
            ],
        );
    }

    #[test]
    fn a_reason_of_a_newer_program_is_still_a_drop() {
        let lines = format(&event(&record(kind::DROP, 251, &[])), Style::default());
        assert!(
            lines[0].starts_with("xx drop (reason 251) flow"),
            "{lines:?}"
        );
        assert!(lines[1].contains("newer"), "{lines:?}");
    }

    #[test]
    fn verdicts_name_the_action() {
        for (subtype, expected) in [
            (0, "action allow: 10.8.5.9:47110"),
            (
                133,
                "action deny (Policy denied/POLICY_DENIED): 10.8.5.9:47110",
            ),
        ] {
            let record = EventRecord {
                kind: kind::POLICY_VERDICT,
                subtype,
                flags: flags::HAS_KEY | flags::INGRESS,
                ..tcp_drop(DropReason::PolicyDenied)
            };
            let lines = format(&event(&record), Style::default());
            assert!(
                lines[0].starts_with(
                    "Policy verdict log: flow 0x1c58232c local EP ID 412, remote ID 20990, ingress"
                ),
                "{lines:?}"
            );
            assert!(lines[0].contains(expected), "{lines:?}");
        }
    }

    #[test]
    fn signals_are_no_events() {
        let whole = record(kind::SIGNAL, signal::COLLECT_GARBAGE, &[]);
        // What the programs send has no more than its head.
        for bytes in [whole.as_bytes(), &whole.as_bytes()[..8]] {
            assert_eq!(
                decode(bytes, &Cluster),
                Ok(Decoded::Signal(Signal::CollectGarbage))
            );
        }
    }

    #[test]
    fn a_spoofing_pod_is_found_by_its_link() {
        let spoofed = EventRecord {
            source_endpoint: EndpointId(0),
            source_identity: Identity(0),
            ..with_key(
                &record(kind::DROP, DropReason::InvalidSourceIp.number(), &[]),
                Protocol::UDP,
                ("192.0.2.66", 53),
                ("10.8.3.41", 53),
            )
        };
        let Event::Drop(packet) = event(&spoofed) else {
            panic!("a drop")
        };
        assert_eq!(packet.source.endpoint, 7);
        assert_eq!(packet.source.name, "shop/cli");
        let hint = packet.hint.unwrap();
        assert!(
            hint.starts_with("pod shop/cli sent from 192.0.2.66"),
            "{hint}"
        );
    }

    #[test]
    fn the_answer_to_a_packet_is_not_taken_for_the_packet() {
        let mut frame = Vec::new();
        let told = etherparse::Icmpv4Type::DestinationUnreachable(
            etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1450 },
        );
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([172, 18, 0, 2], [10, 8, 5, 9], 64)
            .icmpv4(told)
            .write(&mut frame, &[0; 28])
            .unwrap();
        let large = with_key(
            &record(kind::DROP, DropReason::FragmentationNeeded.number(), &frame),
            Protocol::UDP,
            ("10.8.5.9", 5353),
            ("192.0.2.7", 53),
        );
        let style = Style {
            verbose: true,
            ..Style::default()
        };
        let lines = format(&event(&large), style);
        assert!(lines[0].ends_with(" udp"), "{}", lines[0]);
        let echo = EventRecord {
            key: FlowKey {
                protocol: Protocol::ICMP,
                ..large.key
            },
            ..large
        };
        let first = format(&event(&echo), style).remove(0);
        assert!(first.ends_with(" icmp"), "{first}");
        assert_eq!(
            lines[4],
            "   icmp DestinationUnreachable(FragmentationNeeded) mtu 1450"
        );
        assert!(
            lines[5].contains("larger than the 1450 bytes that fit the way to 192.0.2.7"),
            "{}",
            lines[5]
        );
    }

    #[test]
    fn a_tunnel_packet_shows_both_ends_of_the_tunnel() {
        let mut inner = Vec::new();
        PacketBuilder::ethernet2([4; 6], [6; 6])
            .ipv4([10, 8, 5, 9], [10, 8, 3, 41], 63)
            .icmpv4_echo_request(77, 1)
            .write(&mut inner, &[])
            .unwrap();
        let mut vxlan = vec![8, 0, 0, 0, 0, 0, 1, 0];
        vxlan.extend(inner);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([198, 51, 100, 7], [172, 18, 0, 2], 64)
            .udp(40000, 8472)
            .write(&mut frame, &vxlan)
            .unwrap();
        let stranger = EventRecord {
            hook: Hook::FromNetdev as u8,
            source_endpoint: EndpointId(0),
            ..with_key(
                &record(kind::DROP, DropReason::UnknownSender.number(), &frame),
                Protocol::ICMP,
                ("10.8.5.9", 77),
                ("10.8.3.41", 0),
            )
        };
        let style = Style {
            verbose: true,
            ..Style::default()
        };
        let lines = format(&event(&stranger), style);
        assert!(
            lines[0].ends_with("10.8.5.9 (shop/cli) -> 10.8.3.41 (shop/web) icmp EchoRequest"),
            "{}",
            lines[0]
        );
        assert_eq!(lines[5], "   vxlan vni 1");
        assert_eq!(
            lines[7],
            "   ipv4 10.8.5.9 -> 10.8.3.41 ICMP ttl 63 length 28"
        );
        assert!(
            lines[9].contains("came from 198.51.100.7, which is no node"),
            "{}",
            lines[9]
        );
    }

    #[test]
    fn a_service_is_named_with_its_backend_or_why_it_has_none() {
        let drop = EventRecord {
            service: ServiceId(4),
            ..tcp_drop(DropReason::ServiceBackendNotFound)
        };
        let lines = format(&event(&drop), Style::default());
        assert!(
            lines[0].ends_with(" tcp SYN service shop/web:http"),
            "{}",
            lines[0]
        );
        assert_eq!(
            lines[1],
            "   hint: the service shop/web:http at 10.8.3.41:8080 has no usable backend: its selector app=web matches no pod"
        );
        let trace = EventRecord {
            service: ServiceId(4),
            translated_destination: address("10.8.5.9"),
            translated_destination_port: Port::new(9090),
            subtype: ObservationPoint::ToOverlay as u8,
            kind: kind::TRACE,
            ..drop
        };
        let lines = format(&event(&trace), Style::default());
        assert!(
            lines[0].ends_with(" tcp SYN service shop/web:http to 10.8.5.9:9090 (shop/cli)"),
            "{}",
            lines[0]
        );
    }

    #[track_caller]
    fn check_verdicts(record: &EventRecord, expected: &[&str]) {
        let style = Style {
            numeric: true,
            ..Style::default()
        };
        let found: Vec<_> = verdicts(record.as_bytes(), &event(record))
            .iter()
            .map(|event| {
                let line = format(event, style).swap_remove(0);
                let (_, what) = line.split_once(", ").unwrap();
                what.split(": ").next().unwrap().to_owned()
            })
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_side_that_policy_asked_is_a_verdict_of_its_own() {
        use weir_abi::event::policy_flags::{
            EGRESS_ASKED, EGRESS_DENIED, INGRESS_ASKED, INGRESS_DENIED,
        };
        check_verdicts(&tcp_drop(DropReason::StaleOrUnroutable), &[]);
        let both = EventRecord {
            policy: EGRESS_ASKED | INGRESS_ASKED,
            egress_cookie: PolicyCookie(5),
            ingress_cookie: PolicyCookie(6),
            ..tcp_drop(DropReason::PolicyDenied)
        };
        let trace = EventRecord {
            kind: kind::TRACE,
            subtype: ObservationPoint::ToEndpoint as u8,
            ..both
        };
        check_verdicts(
            &trace,
            &[
                "remote ID 20817, egress, action allow, allowed by shop/rule-5 rule 0",
                "remote ID 20990, ingress, action allow, allowed by shop/rule-6 rule 0",
            ],
        );
        let later = EventRecord {
            trace_reason: TraceReason::Established as u8,
            ..trace
        };
        check_verdicts(&later, &[]);
        let isolated = EventRecord {
            policy: both.policy | INGRESS_DENIED,
            ingress_cookie: PolicyCookie::NONE,
            ..both
        };
        check_verdicts(
            &isolated,
            &[
                "remote ID 20817, egress, action allow, allowed by shop/rule-5 rule 0",
                "remote ID 20990, ingress, action deny (Policy denied/POLICY_DENIED), isolated by shop/deny-ingress-412",
            ],
        );
        let lines = format(&event(&isolated), Style::default());
        assert_eq!(
            lines[1],
            "   hint: no policy rule allows this to enter shop/web, which is isolated by shop/deny-ingress-412; nearest is a rule without port 8080: run `weir policy trace --src-k8s-pod shop:cli --dst-k8s-pod shop:web --dport 8080/TCP`"
        );
        let denied = EventRecord {
            policy: EGRESS_ASKED | EGRESS_DENIED,
            ..both
        };
        check_verdicts(
            &denied,
            &[
                "remote ID 20817, egress, action deny (Policy denied/POLICY_DENIED), denied by shop/rule-5 rule 0",
            ],
        );
    }

    #[test]
    fn what_cannot_be_decoded_is_counted() {
        let good = tcp_drop(DropReason::PolicyDenied);
        let mut decoder = Decoder::new();
        for (bytes, problem) in [
            (vec![], DecodeProblem::Short { length: 0 }),
            (
                vec![1, EVENT_VERSION, 0],
                DecodeProblem::Short { length: 3 },
            ),
            (vec![1, 9, 0], DecodeProblem::Version { version: 9 }),
            (
                EventRecord { kind: 77, ..good }.as_bytes().to_vec(),
                DecodeProblem::Kind { kind: 77 },
            ),
            (
                record(kind::SIGNAL, 99, &[]).as_bytes().to_vec(),
                DecodeProblem::Signal { subtype: 99 },
            ),
        ] {
            assert_eq!(decode(&bytes, &Cluster), Err(problem));
            assert_eq!(decoder.decode(&bytes, &Cluster), None);
        }
        assert_eq!(decoder.problems().total(), 5);
        assert_eq!(decoder.problems().short, 2);
        assert!(decoder.decode(good.as_bytes(), &Cluster).is_some());
    }

    #[test]
    fn a_record_may_end_with_the_captured_bytes() {
        let whole = tcp_drop(DropReason::PolicyDenied);
        let bytes = whole.as_bytes();
        let cut = &bytes[..bytes.len() - CAPTURE_MAX + usize::from(whole.captured)];
        assert_eq!(decode(cut, &Cluster), decode(bytes, &Cluster));
    }
}
