// SPDX-License-Identifier: Apache-2.0
//! What happened to packets lately, remembered for `weir flows`.
//!
//! Records are kept as they came and decoded when somebody asks: most are never asked for. Who was behind an address is
//! noted at once, because a pod that is gone a moment later is exactly what people will want to see.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use weir_abi::event::{EventRecord, flags};
use weir_abi::number::{EndpointId, IfIndex, PolicyCookie, ServiceId};
use weir_abi::policy::PolicyDirection;
use weir_abi::{Address, Identity};
use weir_api::event::Event;
use weir_api::policy::PolicyRule;
use weir_compile::Owner;
use weir_observe::{Decoded, Denial, Names, decode, verdicts};

use crate::names::{SnapshotNames, owner_name};

/// Records that are remembered: as many as the peers do.
pub(crate) const CAPACITY: usize = 4095;

/// One record, with the names that may be gone when it is looked at.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) sequence: u64,
    record: Box<[u8]>,
    owners: [Option<(Address, Owner)>; 2],
    service: Option<(ServiceId, Arc<str>)>,
    rules: [Option<(PolicyCookie, Arc<[PolicyRule]>)>; 2],
}

impl Seen {
    /// None where the bytes are no record of a packet.
    pub(crate) fn new(sequence: u64, bytes: &[u8], names: &SnapshotNames) -> Option<Self> {
        let record: EventRecord = decode::record(bytes).ok()?;
        let has_key = record.flags & flags::HAS_KEY != 0;
        let owner = |address: Address| {
            let owner = names.owner(address).filter(|_| has_key)?;
            Some((address, owner))
        };
        let rules = |cookie: PolicyCookie| Some((cookie, names.shared_rules(cookie)?));
        Some(Self {
            sequence,
            record: bytes.into(),
            owners: [owner(record.key.source), owner(record.key.destination)],
            service: names
                .shared_service(record.service)
                .map(|name| (record.service, name)),
            rules: [rules(record.egress_cookie), rules(record.ingress_cookie)],
        })
    }

    /// The verdicts on the packet and what became of it.
    pub(crate) fn events(&self, names: &SnapshotNames) -> Vec<Event> {
        let names = SeenNames { seen: self, names };
        match decode(&self.record, &names) {
            Ok(Decoded::Event(event)) => {
                let mut events = verdicts(&self.record, &event);
                events.push(event);
                events
            }
            Ok(Decoded::Signal(_)) | Err(_) => Vec::new(),
        }
    }
}

/// The last records.
#[derive(Debug, Default)]
pub(crate) struct Observed(Mutex<VecDeque<Arc<Seen>>>);

impl Observed {
    pub(crate) fn remember(&self, new: Vec<Seen>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let surplus = (all.len() + new.len()).saturating_sub(CAPACITY);
        let old = surplus.min(all.len());
        all.drain(..old);
        all.extend(new.into_iter().skip(surplus - old).map(Arc::new));
    }

    /// All of them, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Seen>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().cloned().collect()
    }
}

/// Today's names, and those of the moment before them.
struct SeenNames<'a> {
    seen: &'a Seen,
    names: &'a SnapshotNames,
}

impl Names for SeenNames<'_> {
    fn node(&self) -> &str {
        self.names.node()
    }

    fn time(&self, monotonic_nanoseconds: u64) -> String {
        self.names.time(monotonic_nanoseconds)
    }

    fn peer(&self, address: Address) -> Option<String> {
        let then = self.seen.owners.iter().flatten();
        then.clone()
            .find(|(owned, _)| *owned == address)
            .map(|(_, owner)| owner_name(owner))
            .or_else(|| self.names.peer(address))
    }

    fn endpoint(&self, id: EndpointId) -> Option<String> {
        self.names.endpoint(id)
    }

    fn link(&self, index: IfIndex) -> Option<EndpointId> {
        self.names.link(index)
    }

    fn service(&self, service: ServiceId) -> Option<String> {
        match &self.seen.service {
            Some((id, name)) if *id == service => Some(name.to_string()),
            Some(_) | None => self.names.service(service),
        }
    }

    fn no_backend(&self, service: ServiceId) -> Option<String> {
        self.names.no_backend(service)
    }

    fn rules(&self, cookie: PolicyCookie) -> Vec<PolicyRule> {
        let mut then = self.seen.rules.iter().flatten();
        match then.find(|(known, _)| *known == cookie) {
            Some((_, rules)) => rules.to_vec(),
            None => self.names.rules(cookie),
        }
    }

    fn isolating(&self, endpoint: EndpointId, direction: PolicyDirection) -> Vec<PolicyRule> {
        self.names.isolating(endpoint, direction)
    }

    fn nearest_miss(&self, denial: &Denial) -> Option<String> {
        self.names.nearest_miss(denial)
    }

    fn labels(&self, identity: Identity) -> Vec<String> {
        self.names.labels(identity)
    }

    fn interface(&self, index: IfIndex) -> Option<String> {
        self.names.interface(index)
    }
}
