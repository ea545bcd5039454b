// SPDX-License-Identifier: Apache-2.0
//! What policies say in sets, and how it is taken back in the same words.

use std::sync::Arc;

use weir_abi::Identity;
use weir_abi::policy::PolicyDirection;
use weir_model::{LabelSet, World};

use crate::policy::PolicyCompiler;
use crate::policy::cell::{PolicyNumber, PortSpec, RuleId};
use crate::policy::changes::Work;
use crate::policy::rules::{CompiledRule, DIRECTIONS, compile_rules, release_rules};
use crate::policy::selectors::{SelectorId, User};
use crate::policy::sets::{CellPeer, Set};

impl PolicyCompiler {
    /// Puts a policy into a set.
    pub(super) fn attach(
        &mut self,
        number: PolicyNumber,
        identity: Identity,
        world: &World,
        work: &mut Work,
    ) {
        let Some(state) = self.policies.get_mut(number) else {
            return;
        };
        if state.rules.is_none() {
            let (selectors, blocks) = (&mut self.selectors, &mut self.blocks);
            let rules = compile_rules(&state.source, selectors, blocks, world);
            state.rules = Some(Arc::new(rules));
        }
        state.sets.insert(identity);
        if let Some(set) = self.sets.get_mut(&identity) {
            set.policies.insert(number);
        }
        self.speak(number, identity, true, work);
    }

    /// Takes a policy out of a set.
    pub(super) fn detach(&mut self, number: PolicyNumber, identity: Identity, work: &mut Work) {
        self.speak(number, identity, false, work);
        if let Some(set) = self.sets.get_mut(&identity) {
            set.policies.remove(&number);
        }
        let Some(state) = self.policies.get_mut(number) else {
            return;
        };
        state.sets.remove(&identity);
        if state.sets.is_empty()
            && let Some(rules) = state.rules.take()
        {
            release_rules(&rules, &mut self.selectors, &mut self.blocks);
        }
    }

    /// Says in a set what a policy says, or takes it back.
    fn speak(&mut self, number: PolicyNumber, identity: Identity, add: bool, work: &mut Work) {
        let Some(state) = self.policies.get(number) else {
            return;
        };
        let (source, Some(rules)) = (Arc::clone(&state.source), state.rules.clone()) else {
            return;
        };
        for direction in DIRECTIONS {
            if source.rules(direction).is_none() {
                continue;
            }
            self.isolate(identity, direction, add, work);
            for (place, rule) in (0..).zip(&rules[direction as usize]) {
                let user = User {
                    set: identity,
                    direction,
                    policy: number,
                    rule: place,
                };
                self.speak_rule(user, rule, add, work);
            }
        }
    }

    /// Counts one more or one less policy that isolates a set.
    fn isolate(
        &mut self,
        identity: Identity,
        direction: PolicyDirection,
        add: bool,
        work: &mut Work,
    ) {
        let Some(set) = self.sets.get_mut(&identity) else {
            return;
        };
        work.sets.insert(identity);
        work.changes.sets.insert(set.number);
        let count = &mut set.isolating[direction as usize];
        let before = *count;
        *count = if add { before + 1 } else { before - 1 };
        let toggled = before == 0 || *count == 0;
        if toggled && direction == PolicyDirection::Egress {
            // "Traffic to and from the node where a Pod is running is always allowed."
            let key = (direction, CellPeer::Identity(Identity::HOST));
            set.share(key, &[PortSpec::EVERYTHING], RuleId::OWN_NODE, add);
            work.cells.insert((identity, key));
        }
    }

    fn speak_rule(&mut self, user: User, rule: &CompiledRule, add: bool, work: &mut Work) {
        let Some(set) = self.sets.get_mut(&user.set) else {
            return;
        };
        let id = RuleId {
            policy: user.policy,
            rule: user.rule,
        };
        let own = set.labels.ports.clone();
        // At peers without names, a rule for the way out has its numbers only.
        let plain = match user.direction {
            PolicyDirection::Ingress => rule.ports(&own).into_owned(),
            PolicyDirection::Egress => rule.numbers().to_vec(),
        };
        if rule.everyone {
            let key = (user.direction, CellPeer::Any);
            set.share(key, &plain, id, add);
            work.cells.insert((user.set, key));
        }
        let named = rule.named_blocks.iter().map(|(block, protocol)| {
            // The number is filled in for each group.
            (*block, vec![PortSpec::allow(*protocol, 0, 0)])
        });
        let blocks = rule.blocks.iter().map(|block| (*block, plain.clone()));
        for (block, specs) in blocks.chain(named) {
            let key = (user.direction, CellPeer::Block(block));
            if set.share(key, &specs, id, add) {
                self.blocks.set_user(block, (user.set, user.direction), add);
            }
            work.cells.insert((user.set, key));
        }
        for selector in rule.selectors.iter().chain(&rule.named_everyone) {
            self.selectors.set_user(*selector, user, add);
            let meant = self.selectors.get(*selector).map(|one| &one.matches);
            for identity in meant.into_iter().flatten() {
                if let Some(labels) = self.selectors.labels(*identity) {
                    speak_of_pod(set, rule, user, *identity, labels, add, work);
                }
            }
        }
    }

    /// Tells every rule that asks a selector that an identity is meant, or no longer.
    pub(super) fn tell_users(
        &mut self,
        selector: SelectorId,
        identity: Identity,
        labels: &LabelSet,
        add: bool,
        work: &mut Work,
    ) {
        let users = self.selectors.get(selector).map(|one| one.users.clone());
        for user in users.into_iter().flatten() {
            let Some(rules) = self
                .policies
                .get(user.policy)
                .and_then(|one| one.rules.clone())
            else {
                continue;
            };
            let Some(rule) = rules[user.direction as usize].get(user.rule as usize) else {
                continue;
            };
            let Some(set) = self.sets.get_mut(&user.set) else {
                continue;
            };
            speak_of_pod(set, rule, user, identity, labels, add, work);
        }
    }
}

/// Says, or takes back, what a rule says about a pod's identity.
fn speak_of_pod(
    set: &mut Set,
    rule: &CompiledRule,
    user: User,
    identity: Identity,
    labels: &LabelSet,
    add: bool,
    work: &mut Work,
) {
    let specs = match user.direction {
        PolicyDirection::Ingress => rule.ports(&set.labels.ports).into_owned(),
        PolicyDirection::Egress if rule.everyone => rule.named(&labels.ports),
        PolicyDirection::Egress => rule.ports(&labels.ports).into_owned(),
    };
    let id = RuleId {
        policy: user.policy,
        rule: user.rule,
    };
    let key = (user.direction, CellPeer::Identity(identity));
    if !specs.is_empty() {
        set.share(key, &specs, id, add);
        work.cells.insert((user.set, key));
    }
}
