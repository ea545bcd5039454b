// SPDX-License-Identifier: Apache-2.0
//! Which flows a person wants to see.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use weir_abi::DropReason;
use weir_api::event::{Event, PacketEvent, Peer};

use crate::filter::TypeFilter;

/// Something typed that cannot be a filter of flows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FlowFilterError {
    #[error(
        "`{0}` is no pod: write NAMESPACE/POD, NAMESPACE/PREFIX, NAMESPACE/ or a name in `default`"
    )]
    Pod(String),
    #[error("`{0}` is no verdict: use FORWARDED, DROPPED, ALLOWED or DENIED")]
    Verdict(String),
    #[error("`{0}` is no label: write KEY, KEY=VALUE or several of them with commas between")]
    Label(String),
    #[error("`{0}` is no address or range")]
    Address(String),
    #[error("`{0}` is no drop reason, see `weir bpf metrics list` or the page of drop reasons")]
    Reason(String),
}

/// What became of a packet, or what policy said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Forwarded,
    Dropped,
    Allowed,
    Denied,
}

impl FromStr for Verdict {
    type Err = FlowFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_uppercase().as_str() {
            "FORWARDED" => Ok(Self::Forwarded),
            "DROPPED" => Ok(Self::Dropped),
            "ALLOWED" => Ok(Self::Allowed),
            "DENIED" => Ok(Self::Denied),
            _ => Err(FlowFilterError::Verdict(text.to_owned())),
        }
    }
}

impl Verdict {
    fn matches(self, event: &Event) -> bool {
        match event {
            Event::Trace(_) => self == Self::Forwarded,
            Event::Drop(_) => self == Self::Dropped,
            Event::PolicyVerdict(packet) => {
                let denied = packet.reason_code.is_some();
                self == if denied { Self::Denied } else { Self::Allowed }
            }
            Event::Agent(_) | Event::Lost(_) => false,
        }
    }
}

/// A pod, or all whose names begin so: `shop/web`, `shop/`, `web` (in `default`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodFilter {
    namespace: String,
    prefix: String,
}

impl FromStr for PodFilter {
    type Err = FlowFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, prefix) = match text.split_once('/') {
            Some(("", _)) => return Err(FlowFilterError::Pod(text.to_owned())),
            Some((namespace, prefix)) => (namespace, prefix),
            None => ("default", text),
        };
        if text.is_empty() || prefix.contains('/') {
            return Err(FlowFilterError::Pod(text.to_owned()));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

impl PodFilter {
    fn matches(&self, peer: &Peer) -> bool {
        pod(peer).is_some_and(|(namespace, name)| {
            namespace == self.namespace && name.starts_with(&self.prefix)
        })
    }
}

/// Labels that must all be there: `app=web,tier`, also as `k8s:app=web`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelFilter(Vec<String>);

impl FromStr for LabelFilter {
    type Err = FlowFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let labels: Vec<_> = text.split(',').map(|one| one.trim().to_owned()).collect();
        if labels
            .iter()
            .any(|one| one.is_empty() || one.starts_with('='))
        {
            return Err(FlowFilterError::Label(text.to_owned()));
        }
        Ok(Self(labels))
    }
}

impl LabelFilter {
    fn matches(&self, peer: &Peer) -> bool {
        self.0.iter().all(|wanted| {
            peer.labels.iter().any(|label| {
                let bare = label
                    .split_once(':')
                    .map_or(label.as_str(), |(_, bare)| bare);
                let key = bare.split_once('=').map_or(bare, |(key, _)| key);
                [label.as_str(), bare, key].contains(&wanted.as_str())
            })
        })
    }
}

/// An address or range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern(IpNet);

impl FromStr for Pattern {
    type Err = FlowFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        address
            .or_else(|_| text.parse::<IpNet>())
            .map(Self)
            .map_err(|_| FlowFilterError::Address(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Pattern {
    fn matches(self, peer: &Peer) -> bool {
        let address = peer.address.parse::<IpAddr>();
        address.is_ok_and(|address| self.0.contains(&address))
    }
}

/// What one end of a flow must be. A list is of alternatives, an empty one lets everything through.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct End {
    pub pods: Vec<PodFilter>,
    pub namespaces: Vec<String>,
    pub labels: Vec<LabelFilter>,
    pub addresses: Vec<Pattern>,
    pub ports: Vec<u16>,
    pub identities: Vec<u32>,
}

impl End {
    fn matches(&self, peer: &Peer) -> bool {
        any(&self.pods, |one| one.matches(peer))
            && any(&self.namespaces, |one| {
                pod(peer).is_some_and(|(namespace, _)| namespace == one)
            })
            && any(&self.labels, |one| one.matches(peer))
            && any(&self.addresses, |one| one.matches(peer))
            && any(&self.ports, |one| peer.port == Some(*one))
            && any(&self.identities, |one| peer.identity == *one)
    }
}

/// Every part must agree.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FlowFilter {
    pub from: End,
    pub to: End,
    /// One of the ends; each of its lists may be met by another end.
    pub either: End,
    pub protocols: Vec<String>,
    pub verdicts: Vec<Verdict>,
    pub reasons: Vec<DropReason>,
    pub types: Vec<TypeFilter>,
    /// `namespace/name`, with or without `:port`.
    pub services: Vec<String>,
    /// RFC 3339, both included.
    pub since: Option<String>,
    pub until: Option<String>,
    /// Only answers, or only what is none.
    pub reply: Option<bool>,
}

impl FlowFilter {
    /// Whether the event is wanted; one that is not about a packet never is, but for the loss of others.
    pub fn matches(&self, event: &Event) -> bool {
        let Some(packet) = super::packet(event) else {
            return matches!(event, Event::Lost(_));
        };
        let (source, destination) = (&packet.source, &packet.destination);
        self.from.matches(source)
            && self.to.matches(destination)
            && self.either_matches(source, destination)
            && any(&self.verdicts, |one| one.matches(event))
            && any(&self.types, |one| one.matches(event))
            && any(&self.protocols, |one| {
                let protocol = packet.protocol.as_deref().unwrap_or_default();
                protocol.eq_ignore_ascii_case(one)
            })
            && any(&self.reasons, |one| {
                packet.reason_code == Some(one.number())
            })
            && any(&self.services, |one| is_service(packet, one))
            && self.reply.is_none_or(|reply| packet.reply == reply)
            && self.in_time(&packet.time)
    }

    /// Times of one form and zone are in the order of their text, up to the second.
    fn in_time(&self, time: &str) -> bool {
        self.since.as_deref().is_none_or(|since| time >= since)
            && self.until.as_deref().is_none_or(|until| time <= until)
    }

    fn either_matches(&self, source: &Peer, destination: &Peer) -> bool {
        let End {
            pods,
            namespaces,
            labels,
            addresses,
            ports,
            identities,
        } = &self.either;
        let one_of = |end: &End| end.matches(source) || end.matches(destination);
        let none = End::default;
        one_of(&End {
            pods: pods.clone(),
            ..none()
        }) && one_of(&End {
            namespaces: namespaces.clone(),
            ..none()
        }) && one_of(&End {
            labels: labels.clone(),
            ..none()
        }) && one_of(&End {
            addresses: addresses.clone(),
            ..none()
        }) && one_of(&End {
            ports: ports.clone(),
            ..none()
        }) && one_of(&End {
            identities: identities.clone(),
            ..none()
        })
    }
}

fn any<T>(wanted: &[T], matches: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(matches)
}

/// Namespace and name of a peer that is a pod.
fn pod(peer: &Peer) -> Option<(&str, &str)> {
    let (namespace, name) = peer.name.split_once('/')?;
    let kind = matches!(namespace, "node" | "external") || namespace.contains(':');
    (!kind).then_some((namespace, name))
}

fn is_service(packet: &PacketEvent, wanted: &str) -> bool {
    let is_it = |name: &str| {
        name == wanted
            || name
                .rsplit_once(':')
                .is_some_and(|(name, _)| name == wanted)
    };
    let by_address = [&packet.source, &packet.destination]
        .into_iter()
        .filter_map(|peer| peer.name.strip_prefix("svc:"));
    packet
        .service
        .as_deref()
        .into_iter()
        .chain(by_address)
        .any(is_it)
}
