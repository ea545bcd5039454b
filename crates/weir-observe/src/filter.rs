// SPDX-License-Identifier: Apache-2.0
//! Which events a person wants to see.

mod kind;
mod subject;

pub use kind::{EventKind, TypeFilter};
pub use subject::Subject;

use weir_api::event::{Event, PacketEvent, Peer};

/// Something typed that cannot be a filter.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FilterError {
    #[error("`{text}` is no endpoint id, address, CIDR, ADDRESS:PORT or NAMESPACE/POD")]
    Subject { text: String },
    #[error("`{text}` is no type of event: use drop, trace, policy-verdict or agent")]
    Type { text: String },
    #[error("`{text}` is no drop reason, see `weir bpf metrics list` or the page of drop reasons")]
    Reason { text: String },
    #[error("`{text}` is no observation point, such as to-endpoint or from-network")]
    Point { text: String },
}

/// All lists are alternatives, an empty list lets everything through, and every list must agree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    pub types: Vec<TypeFilter>,
    pub from: Vec<Subject>,
    pub to: Vec<Subject>,
    /// Either end.
    pub related_to: Vec<Subject>,
}

impl Filter {
    /// Whether the event is wanted. Lost events always are: they say that the rest is not all.
    pub fn matches(&self, event: &Event) -> bool {
        if !self.types.is_empty() && !self.types.iter().any(|wanted| wanted.matches(event)) {
            return false;
        }
        match event {
            Event::Drop(packet) | Event::Trace(packet) | Event::PolicyVerdict(packet) => {
                self.matches_packet(packet)
            }
            Event::Agent(agent) => {
                let mentions = |subject: &Subject| subject.is_mentioned(&agent.message);
                self.from.is_empty()
                    && self.to.is_empty()
                    && (self.related_to.is_empty() || self.related_to.iter().any(mentions))
            }
            Event::Lost(_) => true,
        }
    }

    fn matches_packet(&self, packet: &PacketEvent) -> bool {
        let any = |subjects: &[Subject], peers: &[&Peer]| {
            subjects.is_empty()
                || subjects
                    .iter()
                    .any(|subject| peers.iter().any(|peer| subject.matches(peer)))
        };
        let (source, destination) = (&packet.source, &packet.destination);
        any(&self.from, &[source])
            && any(&self.to, &[destination])
            && any(&self.related_to, &[source, destination])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_api::event::{AgentEvent, LostEvent};

    fn drop() -> Event {
        Event::Drop(PacketEvent {
            reason_code: Some(133),
            source: Peer {
                address: "10.8.5.9".to_owned(),
                port: Some(47110),
                endpoint: 7,
                name: "shop/cli".to_owned(),
                identity: 20990,
                labels: vec!["k8s:app=cli".to_owned()],
            },
            destination: Peer {
                address: "fd00:8::41".to_owned(),
                port: Some(8080),
                endpoint: 0,
                name: "shop/web".to_owned(),
                identity: 20817,
                labels: Vec::new(),
            },
            ..PacketEvent::default()
        })
    }

    #[track_caller]
    fn check(types: &[&str], from: &[&str], to: &[&str], related: &[&str], expected: bool) {
        let subjects = |texts: &[&str]| -> Vec<Subject> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let filter = Filter {
            types: types.iter().map(|text| text.parse().unwrap()).collect(),
            from: subjects(from),
            to: subjects(to),
            related_to: subjects(related),
        };
        assert_eq!(filter.matches(&drop()), expected, "{filter:?}");
    }

    #[test]
    fn every_list_must_agree() {
        check(&[], &[], &[], &[], true);
        check(&["drop"], &["7"], &[], &[], true);
        check(&["trace"], &["7"], &[], &[], false);
        check(&["trace", "drop"], &[], &[], &[], true);
        check(&["drop:policy_denied"], &[], &[], &[], true);
        check(&["drop:CT_MAP_INSERTION_FAILED"], &[], &[], &[], false);
        check(&[], &["7"], &["shop/web"], &[], true);
        check(&[], &["7"], &["shop/cli"], &[], false);
        check(&[], &["8", "7"], &[], &[], true);
    }

    #[test]
    fn either_end_is_related() {
        for related in [
            "7",
            "10.8.5.9",
            "10.8.0.0/16",
            "fd00:8::41",
            "fd00:8::/32",
            "shop/web",
            "10.8.5.9:47110",
            "[fd00:8::41]:8080",
        ] {
            check(&[], &[], &[], &[related], true);
        }
        for related in ["8", "10.8.5.10", "10.9.0.0/16", "shop/db", "10.8.5.9:80"] {
            check(&[], &[], &[], &[related], false);
        }
    }

    #[test]
    fn lost_events_pass_and_agent_events_are_about_what_they_mention() {
        let lost = Event::Lost(LostEvent {
            time: String::new(),
            node: String::new(),
            place: "kernel".to_owned(),
            count: 3,
        });
        let agent = Event::Agent(AgentEvent {
            time: String::new(),
            node: String::new(),
            subtype: "endpoint-created".to_owned(),
            message: "endpoint 7 shop/cli with 10.8.5.9".to_owned(),
        });
        let related = |text: &str| Filter {
            related_to: vec![text.parse().unwrap()],
            ..Filter::default()
        };
        assert!(related("99").matches(&lost));
        assert!(related("shop/cli").matches(&agent));
        assert!(related("7").matches(&agent));
        assert!(!related("shop/client").matches(&agent));
        assert!(!related("70").matches(&agent));
    }
}
