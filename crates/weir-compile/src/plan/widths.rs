// SPDX-License-Identifier: Apache-2.0
//! What one list of port rules allows beside another one.

use weir_abi::policy::{PortRule, rule_flags};

use crate::policy::RULES_MAX;

const fn denies(rule: &PortRule) -> bool {
    rule.flags & rule_flags::DENY != 0
}

/// Whether every packet of one rule is also the other one's, at the same rank.
fn covers(wide: &PortRule, narrow: &PortRule) -> bool {
    (wide.precedence, denies(wide)) == (narrow.precedence, denies(narrow))
        && (wide.protocol.0 == 0 || wide.protocol == narrow.protocol)
        && wide.first_port <= narrow.first_port
        && narrow.last_port <= wide.last_port
}

/// Whether the second list allows all that the first one does, as far as single rules show it.
pub(super) fn is_within(first: &[PortRule], second: &[PortRule]) -> bool {
    let among = |rule: &PortRule, rules: &[PortRule]| rules.iter().any(|one| covers(one, rule));
    let mut allows = first.iter().filter(|rule| !denies(rule));
    let mut denials = second.iter().filter(|rule| denies(rule));
    allows.all(|rule| among(rule, second)) && denials.all(|rule| among(rule, first))
}

/// Rules that allow nothing that not both lists allow, as much of it as fits into the rows of a peer.
/// They keep the cookies of the second list.
pub(super) fn common(first: &[PortRule], second: &[PortRule]) -> Vec<PortRule> {
    let mut rules: Vec<PortRule> = Vec::new();
    let mut add = |rule: PortRule| {
        if !rules.iter().any(|one| covers(one, &rule)) {
            rules.push(rule);
        }
    };
    for rule in second.iter().chain(first).filter(|rule| denies(rule)) {
        add(*rule);
    }
    for new in second.iter().filter(|rule| !denies(rule)) {
        for old in first.iter().filter(|rule| !denies(rule)) {
            let protocol = match (new.protocol.0, old.protocol.0) {
                (new, 0) => new,
                (0, old) => old,
                (new, old) if new == old => new,
                (_, _) => continue,
            };
            let first_port = new.first_port.max(old.first_port);
            let last_port = new.last_port.min(old.last_port);
            if new.precedence == old.precedence && first_port <= last_port {
                add(PortRule {
                    first_port,
                    last_port,
                    protocol: weir_abi::Protocol(protocol),
                    ..*new
                });
            }
        }
    }
    // Denials come first; what is cut off here would have allowed something.
    rules.truncate(RULES_MAX);
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_abi::{PolicyCookie, Protocol};

    const fn rule(protocol: u8, first_port: u16, last_port: u16) -> PortRule {
        PortRule {
            cookie: PolicyCookie(1),
            first_port,
            last_port,
            precedence: 5,
            protocol: Protocol(protocol),
            flags: 0,
        }
    }

    fn check(first: &[PortRule], second: &[PortRule], within: bool, expected: &[PortRule]) {
        assert_eq!(is_within(first, second), within);
        assert_eq!(common(first, second), expected);
    }

    #[test]
    fn lists_are_compared_by_what_they_allow() {
        let (any, tcp, web) = (rule(0, 0, u16::MAX), rule(6, 0, u16::MAX), rule(6, 80, 90));
        check(&[web], &[any], true, &[web]);
        check(&[any], &[web], false, &[web]);
        check(
            &[tcp, rule(17, 53, 53)],
            &[any],
            true,
            &[tcp, rule(17, 53, 53)],
        );
        check(&[rule(6, 70, 85)], &[web], false, &[rule(6, 80, 85)]);
        check(&[rule(17, 80, 90)], &[web], false, &[]);
        check(&[], &[web], true, &[]);
        let deny = PortRule {
            flags: rule_flags::DENY,
            ..web
        };
        check(&[any], &[any, deny], false, &[deny, any]);
        check(&[any, deny], &[any], true, &[deny, any]);
    }
}
