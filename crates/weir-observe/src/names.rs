// SPDX-License-Identifier: Apache-2.0
//! Who is behind a number: answered by whoever knows the cluster.

use weir_abi::number::{EndpointId, IfIndex, PolicyCookie, ServiceId};
use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, Identity, Protocol};
use weir_api::policy::PolicyRule;

/// A connection that policy denied, as the side that denied it sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Denial {
    pub direction: PolicyDirection,
    /// Whose policies were asked.
    pub subject: Identity,
    /// Who is at the other end.
    pub peer: Identity,
    pub peer_address: Address,
    pub protocol: Protocol,
    /// The destination's, after services.
    pub port: u16,
}

/// Names for what records carry as numbers. Look-ups must be cheap: each event makes a few.
pub trait Names {
    /// The node that the records come from.
    fn node(&self) -> &str;

    /// The time of day of a moment of the kernel's monotonic clock; [`crate::BootClock`] does it.
    fn time(&self, monotonic_nanoseconds: u64) -> String;

    /// `namespace/pod`, `node/NAME` …: who has the address; `None`: not known.
    fn peer(&self, address: Address) -> Option<String>;

    /// `namespace/pod` of an endpoint of this node.
    fn endpoint(&self, id: EndpointId) -> Option<String>;

    /// The endpoint whose link (host side) the interface is. Without it, a packet that is dropped
    /// before its sender is known is not named.
    fn link(&self, index: IfIndex) -> Option<EndpointId> {
        let _ = index;
        None
    }

    /// `namespace/name:port` of a service.
    fn service(&self, service: ServiceId) -> Option<String> {
        let _ = service;
        None
    }

    /// Why a service has no usable backend.
    fn no_backend(&self, service: ServiceId) -> Option<String> {
        let _ = service;
        None
    }

    /// The rules of policies behind a verdict.
    fn rules(&self, cookie: PolicyCookie) -> Vec<PolicyRule> {
        let _ = cookie;
        Vec::new()
    }

    /// The policies that isolate an endpoint of this node in one direction.
    fn isolating(&self, endpoint: EndpointId, direction: PolicyDirection) -> Vec<PolicyRule> {
        let _ = (endpoint, direction);
        Vec::new()
    }

    /// The rule that would have allowed a connection, but for what: a sentence.
    fn nearest_miss(&self, denial: &Denial) -> Option<String> {
        let _ = denial;
        None
    }

    /// The label set behind an identity; empty: not known.
    fn labels(&self, identity: Identity) -> Vec<String>;

    /// The name of an interface of this node.
    fn interface(&self, index: IfIndex) -> Option<String>;
}

/// The best name for one end of a packet's way; empty: nothing is known.
pub(crate) fn best(
    names: &impl Names,
    address: Option<Address>,
    endpoint: EndpointId,
    identity: Identity,
) -> String {
    let by_address = address.and_then(|address| names.peer(address));
    let by_endpoint = || {
        (endpoint != EndpointId::NONE)
            .then(|| names.endpoint(endpoint))
            .flatten()
    };
    // "unknown" says nothing that an empty name does not say.
    let by_identity = || {
        (identity != Identity::UNKNOWN).then(|| match identity.reserved_name() {
            Some(name) => name.to_owned(),
            None => names.labels(identity).join(","),
        })
    };
    by_address
        .or_else(by_endpoint)
        .or_else(by_identity)
        .unwrap_or_default()
}
