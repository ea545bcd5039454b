// SPDX-License-Identifier: Apache-2.0
//! The rule that decides is the strongest of all that match, however many there are and in whichever rows they stand.

use proptest::prelude::*;
use weir_abi::policy::{
    PARTS_MAX, PeerKind, PolicyDirection, PolicyKey, PolicyRow, PortRule, RULES_PER_ROW, rule_flags,
};
use weir_abi::{BlockGroup, Identity, PolicyCookie, PolicySet, Port, Protocol};
use weir_verdict::decision::Party;
use weir_verdict::memory::MemoryTables;
use weir_verdict::policy::ask;

const SET: PolicySet = PolicySet(3);
const PEER: Identity = Identity(300);
const GROUP: BlockGroup = BlockGroup(9);
const DIRECTION: PolicyDirection = PolicyDirection::Egress;
const PROTOCOLS: [u8; 4] = [0, 6, 17, 132];

fn rule() -> impl Strategy<Value = PortRule> {
    let ports = prop_oneof![
        Just((0, u16::MAX)),
        (0..20_u16, 0..6_u16).prop_map(|(first, more)| (first, first + more)),
        (65_530..=u16::MAX).prop_map(|port| (port, u16::MAX)),
    ];
    (
        ports,
        0..3_u16,
        prop::sample::select(&PROTOCOLS[..]),
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |((first_port, last_port), precedence, protocol, denies)| PortRule {
                cookie: PolicyCookie::NONE,
                first_port,
                last_port,
                precedence,
                protocol: Protocol(protocol),
                flags: if denies { rule_flags::DENY } else { 0 },
            },
        )
}

fn matches(rule: &PortRule, protocol: u8, port: Option<u16>) -> bool {
    let every_port = (rule.first_port, rule.last_port) == (0, u16::MAX);
    let in_range = port.is_some_and(|port| (rule.first_port..=rule.last_port).contains(&port));
    [0, protocol].contains(&rule.protocol.0) && (every_port || in_range)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_strongest_rule_decides(
        rules in prop::array::uniform3(prop::collection::vec(rule(), 0..40)),
        in_group: bool,
        protocol in prop::sample::select(vec![6_u8, 17, 132, 1]),
        port in prop_oneof![0..26_u16, 65_528..=u16::MAX],
    ) {
        let mut tables = MemoryTables::default();
        let kinds = [(PeerKind::Any, 0), (PeerKind::Identity, PEER.0), (PeerKind::Blocks, GROUP.0)];
        let mut all = Vec::new();
        for ((kind, peer), mut rules) in kinds.into_iter().zip(rules) {
            for rule in &mut rules {
                rule.cookie = PolicyCookie(u32::try_from(all.len()).unwrap() + 1);
                all.push((kind, *rule));
            }
            let key = PolicyKey::new(SET, DIRECTION, kind, peer);
            tables.policy.extend(PolicyRow::parts(key, &rules).unwrap());
        }
        let own = Party { policy_set: SET, ..Party::UNKNOWN };
        let blocks = if in_group { GROUP } else { BlockGroup::NONE };
        let peer = Party { identity: PEER, blocks, ..Party::UNKNOWN };
        let answer = ask(&tables, &own, DIRECTION, &peer, Protocol(protocol), Port::new(port));

        let port = (protocol != 1).then_some(port);
        let mut strongest: Option<PortRule> = None;
        for (kind, rule) in all {
            let concerned = kind != PeerKind::Blocks || in_group;
            let rank = |rule: &PortRule| (rule.precedence, rule.flags & rule_flags::DENY);
            let stronger = strongest.is_none_or(|other| rank(&rule) > rank(&other));
            if concerned && matches(&rule, protocol, port) && stronger {
                strongest = Some(rule);
            }
        }
        let cookie = strongest.map_or(PolicyCookie::NONE, |rule| rule.cookie);
        let denied = strongest.is_some_and(|rule| rule.flags & rule_flags::DENY != 0);
        prop_assert_eq!((answer.cookie, answer.denied), (cookie, denied));
        prop_assert_eq!(answer.allowed(), strongest.is_some() && !denied);
    }
}

/// What does not fit is refused as a whole.
#[test]
fn too_many_rules_are_no_rows() {
    let most = RULES_PER_ROW * usize::from(PARTS_MAX);
    let key = PolicyKey::new(SET, DIRECTION, PeerKind::Any, 0);
    let rows =
        |count| PolicyRow::parts(key, &vec![PortRule::default(); count]).map(Iterator::count);
    assert_eq!(rows(0), Some(0));
    assert_eq!(rows(RULES_PER_ROW + 1), Some(2));
    assert_eq!(rows(most), Some(usize::from(PARTS_MAX)));
    assert_eq!(rows(most + 1), None);
}
