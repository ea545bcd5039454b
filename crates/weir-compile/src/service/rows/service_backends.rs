// SPDX-License-Identifier: Apache-2.0
//! The backends that each service port has.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_abi::service::{ServiceBackendKey, ServiceBackendRow, backend_flags};
use weir_abi::{Address, Port, ServiceId};

/// A backend that a service port has: a row of `service_backends`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceBackend {
    pub address: Address,
    pub port: Port,
    /// Bits of [`weir_abi::service::backend_flags`].
    pub flags: u8,
}

/// The bits in use fit into a byte, of which there are a hundred thousand.
const fn narrow(bit: u32) -> u8 {
    assert!(bit < 0x100);
    bit.to_le_bytes()[0]
}

impl ServiceBackend {
    /// See [`weir_abi::service::backend_flags`].
    pub const INTERNAL: u8 = narrow(backend_flags::INTERNAL);
    /// The same.
    pub const EXTERNAL: u8 = narrow(backend_flags::EXTERNAL);
    /// The same.
    pub const TERMINATING: u8 = narrow(backend_flags::TERMINATING);
    /// The same.
    pub const LOCAL: u8 = narrow(backend_flags::LOCAL);

    /// The key of its row.
    pub const fn key(&self, service: ServiceId) -> ServiceBackendKey {
        ServiceBackendKey {
            address: self.address,
            service,
            port: self.port,
            reserved: [0; 2],
        }
    }

    /// The row.
    pub fn row(&self) -> ServiceBackendRow {
        ServiceBackendRow {
            flags: u32::from(self.flags),
        }
    }

    const fn place(&self) -> (Address, Port) {
        (self.address, self.port)
    }
}

/// The `service_backends` map, by service port; each list in the order of addresses and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceBackends(BTreeMap<ServiceId, Arc<[ServiceBackend]>>);

impl ServiceBackends {
    /// The backends of a service port.
    pub fn of(&self, service: ServiceId) -> &[ServiceBackend] {
        self.0.get(&service).map_or(&[], |all| all)
    }

    /// The same, to share.
    pub(in crate::service) fn shared(&self, service: ServiceId) -> Option<&Arc<[ServiceBackend]>> {
        self.0.get(&service)
    }

    /// One backend.
    pub fn get(&self, key: &ServiceBackendKey) -> Option<&ServiceBackend> {
        let all = self.of(key.service);
        let found = all.binary_search_by(|one| one.place().cmp(&(key.address, key.port)));
        all.get(found.ok()?)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.0.values().map(|all| all.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every service port with its backends.
    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, &Arc<[ServiceBackend]>)> {
        self.0.iter().map(|(service, all)| (*service, all))
    }

    /// Puts a sorted list in the place of another.
    pub(in crate::service) fn replace(&mut self, service: ServiceId, all: Arc<[ServiceBackend]>) {
        if all.is_empty() {
            self.0.remove(&service);
        } else {
            self.0.insert(service, all);
        }
    }

    pub(super) fn upsert(&mut self, service: ServiceId, some: &[ServiceBackend]) {
        let old = self.of(service).iter().filter(|old| {
            let same = |new: &ServiceBackend| new.place() == old.place();
            !some.iter().any(same)
        });
        let mut all: Vec<_> = old.chain(some).copied().collect();
        all.sort_unstable();
        self.replace(service, all.into());
    }

    pub(super) fn remove(&mut self, service: ServiceId, some: &[ServiceBackend]) {
        let rest = self.of(service).iter().filter(|old| {
            let same = |gone: &ServiceBackend| gone.place() == old.place();
            !some.iter().any(same)
        });
        let rest = rest.copied().collect();
        self.replace(service, rest);
    }
}

/// Out of rows in any order, as a hash map hands them out.
impl FromIterator<(ServiceBackendKey, ServiceBackendRow)> for ServiceBackends {
    fn from_iter<I: IntoIterator<Item = (ServiceBackendKey, ServiceBackendRow)>>(rows: I) -> Self {
        let member = |(key, row): (ServiceBackendKey, ServiceBackendRow)| {
            let backend = ServiceBackend {
                address: key.address,
                port: key.port,
                // Bits that nobody knows are kept as one that no desired row has.
                flags: u8::try_from(row.flags).unwrap_or(u8::MAX),
            };
            (key.service, backend)
        };
        let mut all: Vec<_> = rows.into_iter().map(member).collect();
        all.sort_unstable();
        let groups = all.chunk_by(|one, other| one.0 == other.0);
        let groups = groups.filter_map(|group| {
            let service = group.first()?.0;
            Some((service, group.iter().map(|(_, backend)| *backend).collect()))
        });
        Self(groups.collect())
    }
}
