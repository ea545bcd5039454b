// SPDX-License-Identifier: Apache-2.0
//! Somebody: an endpoint, an address, a range, a socket or a pod.

use super::FilterError;
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use weir_api::event::Peer;

/// One end of a packet's way, as people name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// An endpoint of the node, by number.
    Endpoint(u16),
    Address(IpAddr),
    Range(IpNet),
    Socket(SocketAddr),
    /// `namespace/pod`, `node/NAME`.
    Name(String),
    /// `world`, `host` …: whoever has no better name.
    Reserved(String),
}

/// Names of reserved identities that can be asked for.
const RESERVED: [&str; 6] = [
    "host",
    "world",
    "remote-node",
    "kube-apiserver",
    "world-ipv4",
    "world-ipv6",
];

impl FromStr for Subject {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Endpoint(id));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Ok(range) = text.parse::<IpNet>() {
            return Ok(Self::Range(range.trunc()));
        }
        if let Ok(socket) = text.parse() {
            return Ok(Self::Socket(socket));
        }
        if RESERVED.contains(&text) {
            return Ok(Self::Reserved(text.to_owned()));
        }
        match text.split_once('/') {
            Some((namespace, pod)) if is_name(namespace) && is_name(pod) => {
                Ok(Self::Name(text.to_owned()))
            }
            _ => Err(FilterError::Subject {
                text: text.to_owned(),
            }),
        }
    }
}

/// What Kubernetes lets objects be called (RFC 1123, in lower case). All digits would be an
/// address range that somebody mistyped.
fn is_name(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    !text.is_empty()
        && text.chars().all(letter)
        && text.chars().any(|c| c.is_ascii_lowercase())
        && text.parse::<IpAddr>().is_err()
}

impl Subject {
    /// Whether the peer is this one.
    pub fn matches(&self, peer: &Peer) -> bool {
        let address = || peer.address.parse::<IpAddr>().ok();
        match self {
            Self::Endpoint(id) => peer.endpoint == *id,
            Self::Address(wanted) => address() == Some(*wanted),
            Self::Range(range) => address().is_some_and(|address| range.contains(&address)),
            Self::Socket(socket) => {
                address() == Some(socket.ip()) && peer.port == Some(socket.port())
            }
            Self::Name(name) => peer.name == *name,
            Self::Reserved(name) => peer.name == *name || is_reserved(name, peer.identity),
        }
    }

    /// Whether a sentence names it as a word.
    pub(super) fn is_mentioned(&self, message: &str) -> bool {
        let wanted = self.to_string();
        message
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '(' | ')' | '"' | '`'))
            .any(|word| word.trim_end_matches(['.', ':']) == wanted)
    }
}

fn is_reserved(name: &str, identity: u32) -> bool {
    let identity = weir_abi::Identity(identity);
    identity.reserved_name() == Some(name) || (name == "world" && identity.is_world())
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(id) => id.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Range(range) => range.fmt(f),
            Self::Socket(socket) => socket.fmt(f),
            Self::Name(name) | Self::Reserved(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_understood() {
        let parse = |text: &str| text.parse::<Subject>();
        assert_eq!(parse("412"), Ok(Subject::Endpoint(412)));
        assert_eq!(
            parse("10.8.3.41/16").map(|subject| subject.to_string()),
            Ok("10.8.0.0/16".to_owned())
        );
        assert_eq!(
            parse("shop/web-1"),
            Ok(Subject::Name("shop/web-1".to_owned()))
        );
        assert_eq!(parse("world"), Ok(Subject::Reserved("world".to_owned())));
        for text in [
            "",
            "70000",
            "web",
            "10.0.0.0/40",
            "a/b/c",
            "10.0.0.1:",
            "Shop/web",
            "/",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_world_has_three_numbers() {
        let peer = Peer {
            identity: 9,
            name: "external/world".to_owned(),
            ..Peer::default()
        };
        assert!(Subject::Reserved("world".to_owned()).matches(&peer));
        assert!(!Subject::Reserved("host".to_owned()).matches(&peer));
    }
}
