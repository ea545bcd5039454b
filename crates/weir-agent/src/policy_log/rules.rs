// SPDX-License-Identifier: Apache-2.0
//! What of the kernel's records is logged, and as what.

use weir_abi::event::{EventRecord, flags, kind, policy_flags};
use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, Identity, PolicyCookie, Protocol, TraceReason};
use weir_model::{LogScope, NetworkLogging};
use weir_observe::Denial;
use weir_observe::decode::{denial, reached};

use super::entry::{Connection, Disposition, End, Entry, Policy};

/// What one side's policies decided on a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) direction: PolicyDirection,
    pub(crate) disposition: Disposition,
    /// The rule that allowed it.
    cookie: PolicyCookie,
}

/// Who knows names, policies and annotations.
pub(crate) trait Cluster {
    fn node(&self) -> &str;

    /// The time of day of a moment of the kernel's monotonic clock.
    fn time(&self, monotonic_nanoseconds: u64) -> String;

    fn end(&self, address: Address) -> End;

    /// The namespace of the pods behind an identity.
    fn namespace(&self, identity: Identity) -> Option<String>;

    /// Every policy that allows a connection; `cookie` is of one of their rules. What is allowed by definition has none.
    fn allowing(&self, asked: &Denial, cookie: PolicyCookie) -> Vec<Policy>;

    /// The annotation of a policy.
    fn logs_allowed(&self, policy: &Policy) -> bool;

    /// The annotation of a namespace.
    fn logs_denied(&self, namespace: &str) -> bool;
}

/// The decisions that a record tells of. Replies and later packets go on with what was decided before.
pub(crate) fn decisions(record: &EventRecord) -> impl Iterator<Item = Decision> {
    let opens = record.flags & flags::REPLY == 0 && record.flags & flags::HAS_KEY != 0;
    let new = record.trace_reason == TraceReason::New as u8
        || record.trace_reason == TraceReason::Reopened as u8;
    // Of a packet that was dropped, no connection came about: what one side would have allowed is nothing to log.
    let (allows, denies) = match record.kind {
        kind::TRACE => (opens && new, false),
        kind::DROP => (false, opens),
        _ => (false, false),
    };
    let policy = record.policy;
    let sides = [
        (
            PolicyDirection::Egress,
            policy_flags::EGRESS_ASKED,
            policy_flags::EGRESS_DENIED,
            record.egress_cookie,
        ),
        (
            PolicyDirection::Ingress,
            policy_flags::INGRESS_ASKED,
            policy_flags::INGRESS_DENIED,
            record.ingress_cookie,
        ),
    ];
    sides
        .into_iter()
        .filter_map(move |(direction, asked, denied, cookie)| {
            let is_denied = policy & denied != 0;
            let disposition = if is_denied {
                Disposition::Deny
            } else {
                Disposition::Allow
            };
            let counts = if is_denied { denies } else { allows };
            (policy & asked != 0 && counts).then_some(Decision {
                direction,
                disposition,
                cookie,
            })
        })
}

/// The line for a decision; none where it is not to be logged.
pub(crate) fn entry(
    logging: NetworkLogging,
    record: &EventRecord,
    decision: Decision,
    cluster: &impl Cluster,
) -> Option<Entry> {
    let asked = denial(record, decision.direction);
    let scope = match decision.disposition {
        Disposition::Allow => logging.allow,
        Disposition::Deny => logging.deny,
    };
    if scope == LogScope::Nothing {
        return None;
    }
    let delegated = scope == LogScope::Delegated;
    let mut policies = Vec::new();
    match decision.disposition {
        Disposition::Allow => {
            policies = cluster.allowing(&asked, decision.cookie);
            if delegated {
                policies.retain(|policy| cluster.logs_allowed(policy));
            }
            // Allowed by definition, as probes of the own node are, or by policies that do not ask for it.
            if policies.is_empty() {
                return None;
            }
        }
        Disposition::Deny if delegated => {
            let namespace = cluster.namespace(asked.subject)?;
            if !cluster.logs_denied(&namespace) {
                return None;
            }
        }
        Disposition::Deny => {}
    }
    let connection = connection(record, decision.direction);
    Some(Entry {
        src: cluster.end(connection.src_ip),
        dest: cluster.end(connection.dest_ip),
        connection,
        disposition: decision.disposition,
        policies,
        count: 1,
        node_name: cluster.node().to_owned(),
        timestamp: cluster.time(record.timestamp),
        seen: record.timestamp,
    })
}

fn connection(record: &EventRecord, direction: PolicyDirection) -> Connection {
    let key = &record.key;
    let (destination, port) = reached(record);
    // The identifier of an echo stands in the place of a port and is none.
    let has_ports = matches!(key.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP);
    Connection {
        src_ip: key.source,
        dest_ip: destination,
        src_port: has_ports.then(|| key.source_port.get()),
        dest_port: has_ports.then(|| port.get()),
        protocol: key.protocol,
        direction,
    }
}

#[cfg(test)]
mod tests;
