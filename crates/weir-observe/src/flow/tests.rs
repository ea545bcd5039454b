// SPDX-License-Identifier: Apache-2.0
use super::*;
use weir_abi::DropReason;

fn peer(name: &str, address: &str, port: u16, identity: u32) -> Peer {
    Peer {
        address: address.to_owned(),
        port: Some(port),
        identity,
        name: name.to_owned(),
        labels: vec![format!("k8s:app={}", name.rsplit('/').next().unwrap())],
        ..Peer::default()
    }
}

fn seen() -> PacketEvent {
    PacketEvent {
        time: "2026-03-01T10:00:01.000000000Z".to_owned(),
        node: "n1".to_owned(),
        observation_point: Some("to-overlay".to_owned()),
        source: peer("shop/cli-1", "10.8.5.9", 47110, 20990),
        destination: peer("svc:shop/web", "10.96.0.9", 80, 0),
        protocol: Some("TCP".to_owned()),
        flags: "SYN".to_owned(),
        service: Some("shop/web:http".to_owned()),
        translated_destination: Some("10.8.3.41:8080".to_owned()),
        translated_destination_name: Some("shop/web-1".to_owned()),
        ..PacketEvent::default()
    }
}

fn denied() -> PacketEvent {
    PacketEvent {
        observation_point: None,
        reason_code: Some(133),
        reason: Some("Policy denied".to_owned()),
        reason_enum: Some("POLICY_DENIED".to_owned()),
        hint: Some("look".to_owned()),
        direction: "ingress".to_owned(),
        source: peer("", "2001:db8::7", 4000, 10),
        destination: peer("shop/web-1", "fd00::1", 8080, 20817),
        service: None,
        translated_destination: None,
        translated_destination_name: None,
        nearest_miss: Some("shop/web ingress[0]: it wants app=cli".to_owned()),
        isolated_by: vec![PolicyRule {
            kind: "NetworkPolicy".to_owned(),
            namespace: "shop".to_owned(),
            name: "deny".to_owned(),
            rule: None,
        }],
        ..seen()
    }
}

#[track_caller]
fn check(event: &Event, style: FlowStyle, expected: &[&str]) {
    assert_eq!(lines(event, style), expected);
}

#[test]
fn flows_are_lines_with_names_first() {
    check(
        &Event::Trace(seen()),
        FlowStyle::default(),
        &[
            "2026-03-01T10:00:01.000000000Z: shop/cli-1:47110 (ID:20990) -> svc:shop/web:80 (unknown) to-overlay FORWARDED (TCP Flags: SYN) service shop/web:http to shop/web-1",
        ],
    );
    let reply = PacketEvent {
        reply: true,
        service: None,
        translated_destination: None,
        translated_destination_name: None,
        flags: "SYN, ACK".to_owned(),
        ..seen()
    };
    check(
        &Event::Trace(reply),
        FlowStyle {
            numeric: true,
            node: true,
            ..FlowStyle::default()
        },
        &[
            "2026-03-01T10:00:01.000000000Z: [n1] 10.96.0.9:80 (unknown) <- 10.8.5.9:47110 (ID:20990) to-overlay FORWARDED (TCP Flags: SYN, ACK)",
        ],
    );
    check(
        &Event::Drop(denied()),
        FlowStyle {
            hints: true,
            ..FlowStyle::default()
        },
        &[
            "2026-03-01T10:00:01.000000000Z: [2001:db8::7]:4000 (world-ipv6) <> shop/web-1:8080 (ID:20817) Policy denied (POLICY_DENIED) DROPPED (TCP Flags: SYN), isolated by shop/deny, nearest shop/web ingress[0]: it wants app=cli",
            "  hint: look",
        ],
    );
    check(
        &Event::PolicyVerdict(denied()),
        FlowStyle::default(),
        &[
            "2026-03-01T10:00:01.000000000Z: [2001:db8::7]:4000 (world-ipv6) <> shop/web-1:8080 (ID:20817) policy-verdict INGRESS DENIED (TCP Flags: SYN), isolated by shop/deny, nearest shop/web ingress[0]: it wants app=cli",
        ],
    );
}

/// Which of the two events above a filter lets through.
#[track_caller]
fn check_filter(filter: &FlowFilter, trace: bool, drop: bool) {
    let found = [Event::Trace(seen()), Event::Drop(denied())].map(|event| filter.matches(&event));
    assert_eq!(found, [trace, drop], "{filter:?}");
}

fn either(change: impl FnOnce(&mut End)) -> FlowFilter {
    let mut filter = FlowFilter::default();
    change(&mut filter.either);
    filter
}

#[test]
fn filters_are_those_that_people_know() {
    check_filter(&FlowFilter::default(), true, true);
    for (pod, trace, drop) in [
        ("shop/cli", true, false),
        ("shop/web-1", false, true),
        ("shop/", true, true),
        ("web", false, false),
    ] {
        check_filter(
            &either(|end| end.pods = vec![pod.parse().unwrap()]),
            trace,
            drop,
        );
    }
    let mut filter = FlowFilter::default();
    filter.from.pods = vec!["shop/".parse().unwrap()];
    check_filter(&filter, true, false);
    check_filter(
        &either(|end| end.namespaces = vec!["shop".to_owned()]),
        true,
        true,
    );
    check_filter(&either(|end| end.ports = vec![80, 81]), true, false);
    check_filter(&either(|end| end.identities = vec![10]), false, true);
    for (label, trace) in [
        ("app=cli-1", true),
        ("k8s:app=cli-1,app", true),
        ("app=x", false),
    ] {
        check_filter(
            &either(|end| end.labels = vec![label.parse().unwrap()]),
            trace,
            false,
        );
    }
    check_filter(
        &either(|end| end.addresses = vec!["10.8.0.0/16".parse().unwrap()]),
        true,
        false,
    );
    let with = |change: fn(&mut FlowFilter)| {
        let mut filter = FlowFilter::default();
        change(&mut filter);
        filter
    };
    check_filter(
        &with(|f| f.verdicts = vec!["dropped".parse().unwrap()]),
        false,
        true,
    );
    check_filter(
        &with(|f| f.reasons = vec![DropReason::PolicyDenied]),
        false,
        true,
    );
    check_filter(
        &with(|f| f.types = vec!["trace:to-overlay".parse().unwrap()]),
        true,
        false,
    );
    check_filter(&with(|f| f.protocols = vec!["tcp".to_owned()]), true, true);
    check_filter(
        &with(|f| f.services = vec!["shop/web".to_owned()]),
        true,
        false,
    );
    check_filter(
        &with(|f| f.services = vec!["shop/web:http".to_owned()]),
        true,
        false,
    );
    check_filter(
        &with(|f| f.since = Some("2026-03-01T10:00:02".to_owned())),
        false,
        false,
    );
    check_filter(
        &with(|f| f.until = Some("2026-03-01T10:00:02".to_owned())),
        true,
        true,
    );
    check_filter(&with(|f| f.reply = Some(true)), false, false);
}

#[test]
fn what_is_no_filter_is_refused() {
    assert!("/web".parse::<PodFilter>().is_err());
    assert!("a/b/c".parse::<PodFilter>().is_err());
    assert!("LOST".parse::<Verdict>().is_err());
    assert!("a=b,".parse::<LabelFilter>().is_err());
    assert!("10.0.0.0/40".parse::<Pattern>().is_err());
}
