// SPDX-License-Identifier: Apache-2.0
//! What the policies of an end have to say.

use std::net::IpAddr;

use weir_abi::endpoint::flags::{ENFORCE_EGRESS, ENFORCE_INGRESS};
use weir_abi::event::policy_flags;
use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, BlockGroup, Port, Protocol};
use weir_api::policy::PolicyRule;
use weir_api::trace::{Evaluated, TraceSide, TraceVerdict};
use weir_compile::policy::{Explanation, Peer, Question, explain};
use weir_model::{LabelSet, Pod};
use weir_verdict::Tables as _;
use weir_verdict::decision::Party as Asked;
use weir_verdict::policy::ask;
use weir_verdict::source::world;

use super::TraceError;
use super::hop::Hop;
use super::place::{Party, What, of_address};
use super::scene::Scene;
use super::view::View;
use crate::directory::whole_policy;

/// May it leave its source?
pub(super) fn egress(
    scene: &Scene<'_>,
    source: &Party,
    hops: &[Hop],
) -> Result<TraceSide, TraceError> {
    let (Some(first), Some(last)) = (hops.first(), hops.last()) else {
        return Ok(nobody("", false));
    };
    let peer_ip = last.leaves.destination.to_ip();
    let connection = Connection {
        direction: PolicyDirection::Egress,
        own: first.arrives.source.to_ip(),
        peer: of_address(scene, peer_ip),
        peer_ip,
        protocol: first.arrives.protocol,
        port: last.leaves.destination_port,
    };
    connection.side(scene, source, hops)
}

/// May it enter its destination?
pub(super) fn ingress(
    scene: &Scene<'_>,
    source: &Party,
    hops: &[Hop],
) -> Result<TraceSide, TraceError> {
    let (Some(first), Some(last)) = (hops.first(), hops.last()) else {
        return Ok(nobody("", false));
    };
    let own = last.leaves.destination.to_ip();
    let subject = of_address(scene, own);
    let there = subject.node.as_ref() == Some(&last.view.node);
    // Who is masqueraded on the way is not seen as who it was.
    let seen = if there { &last.arrives } else { &last.leaves };
    let peer_ip = seen.source.to_ip();
    let masqueraded = peer_ip != first.arrives.source.to_ip();
    let connection = Connection {
        direction: PolicyDirection::Ingress,
        own,
        peer: if masqueraded {
            Party {
                name: format!(
                    "{} (as which {} is masqueraded on the way)",
                    of_address(scene, peer_ip).name,
                    source.name
                ),
                ..of_address(scene, peer_ip)
            }
        } else {
            source.clone()
        },
        peer_ip,
        protocol: first.arrives.protocol,
        port: last.leaves.destination_port,
    };
    connection.side(scene, &subject, hops)
}

/// A connection as one end sees it.
struct Connection {
    direction: PolicyDirection,
    own: IpAddr,
    peer: Party,
    peer_ip: IpAddr,
    protocol: Protocol,
    /// Of the destination, after services.
    port: Port,
}

/// For an end that has no policies.
fn nobody(name: &str, service: bool) -> TraceSide {
    let reason = if service {
        format!("not asked: {name} led to no backend")
    } else {
        format!("{name} is no pod with a network of its own: no network policy applies to it")
    };
    TraceSide {
        verdict: TraceVerdict::Allowed,
        policies: Vec::new(),
        reason,
        subject: String::new(),
        enforced: false,
        evaluated: Evaluated::Kernel,
        nearest_miss: None,
    }
}

impl Connection {
    fn side(
        &self,
        scene: &Scene<'_>,
        subject: &Party,
        hops: &[Hop],
    ) -> Result<TraceSide, TraceError> {
        let (asked_bit, denied_bit, enforce) = match self.direction {
            PolicyDirection::Egress => (
                policy_flags::EGRESS_ASKED,
                policy_flags::EGRESS_DENIED,
                ENFORCE_EGRESS,
            ),
            PolicyDirection::Ingress => (
                policy_flags::INGRESS_ASKED,
                policy_flags::INGRESS_DENIED,
                ENFORCE_INGRESS,
            ),
        };
        let service = |party: &Party| matches!(party.what, What::Service(_));
        let (Some(pod), Some(node)) = (subject.pod(), &subject.node) else {
            return Ok(nobody(&subject.name, service(subject)));
        };
        let direction = self.direction.name();
        let view = scene.view(node)?;
        let mut side = TraceSide {
            subject: subject.name.clone(),
            evaluated: Evaluated::Compiled,
            ..nobody(&subject.name, false)
        };
        let asked = hops
            .iter()
            .find(|hop| hop.view.node == *node && hop.seen.policy & asked_bit != 0);
        if let Some(hop) = hops.iter().find(|hop| hop.view.node == *node) {
            side.evaluated = hop.seen.evaluated;
        }
        let Some(row) = view.tables.endpoints.get(&self.own.into()) else {
            side.reason = format!("node {node} has no endpoint for {}", subject.name);
            return Ok(side);
        };
        side.enforced = row.flags & enforce != 0;
        let own_node = self.peer.node == subject.node;
        let explained = self.explain(scene, pod, own_node);
        if !side.enforced {
            side.reason = format!("no policy isolates {} for {direction}", subject.name);
            if !explained.isolating.is_empty() {
                side.reason += " in the kernel, although one should: see `weir status`";
            }
            return Ok(side);
        }
        let (denied, cookie) = match asked {
            Some(hop) => (
                hop.seen.policy & denied_bit != 0,
                match self.direction {
                    PolicyDirection::Egress => hop.seen.egress_cookie,
                    PolicyDirection::Ingress => hop.seen.ingress_cookie,
                },
            ),
            None if service(&self.peer) => {
                return Ok(TraceSide {
                    enforced: true,
                    subject: side.subject,
                    ..nobody(&self.peer.name, true)
                });
            }
            None if self.own == self.peer_ip => {
                "a pod always reaches itself".clone_into(&mut side.reason);
                return Ok(side);
            }
            None if own_node
                && self.peer.what == What::Node
                && self.direction == PolicyDirection::Ingress =>
            {
                side.reason = format!("node {node} always reaches its own pods");
                return Ok(side);
            }
            None => {
                // The packet never came as far as this: asked all the same.
                side.evaluated = Evaluated::Compiled;
                let answer = ask(
                    &view.tables,
                    &party(&view, self.own.into()),
                    self.direction,
                    &party(&view, self.peer_ip.into()),
                    self.protocol,
                    self.port,
                );
                (!answer.allowed(), answer.cookie)
            }
        };
        if denied {
            self.deny(&mut side, &explained);
        } else {
            side.policies = view.rules(cookie);
            side.reason = format!("allowed by {}", list(&side.policies));
        }
        Ok(side)
    }

    /// What the policies say that people have written.
    fn explain(&self, scene: &Scene<'_>, pod: &Pod, own_node: bool) -> Explanation {
        let set = LabelSet::of(pod);
        let others = self.peer.pod().map(|peer| LabelSet::of(peer));
        let question = Question {
            subject: &set,
            direction: self.direction,
            peer: match (&self.peer.what, &others) {
                (What::Pod(_), Some(set)) => Peer::Pod(set),
                (What::Node, _) => Peer::Node {
                    own: own_node,
                    pod: None,
                },
                _ => Peer::Outside,
            },
            peer_address: Some(self.peer_ip),
            protocol: self.protocol,
            port: self.port.get(),
        };
        explain(&scene.world, &question)
    }

    fn deny(&self, side: &mut TraceSide, explained: &Explanation) {
        side.verdict = TraceVerdict::Denied;
        side.policies = explained.isolating.iter().map(whole_policy).collect();
        side.nearest_miss = explained.nearest.as_ref().map(ToString::to_string);
        let (subject, direction) = (&side.subject, self.direction.name());
        let (peer, protocol) = (&self.peer.name, self.protocol);
        let word = match self.direction {
            PolicyDirection::Egress => "to",
            PolicyDirection::Ingress => "from",
        };
        let what = match self.port.get() {
            0 => protocol.to_string(),
            port => format!("{port}/{protocol}"),
        };
        side.reason = format!(
            "{} isolates {subject} for {direction} and no rule allows {what} {word} {peer}",
            list(&side.policies)
        );
    }
}

fn list(rules: &[PolicyRule]) -> String {
    if rules.is_empty() {
        return "a policy".to_owned();
    }
    let names: Vec<_> = rules.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// An address as the policies of a node see it.
pub(super) fn party(view: &View, address: Address) -> Asked {
    let mut party = Asked::UNKNOWN;
    if let Some(row) = view.tables.endpoint(&address) {
        party.set_endpoint(&row);
    } else {
        let row = view.tables.ipcache(&address);
        let (identity, blocks) = row.map_or((world(&address), BlockGroup::NONE), |row| {
            (row.identity, row.blocks)
        });
        party.set_other(identity, blocks);
    }
    party
}
