// SPDX-License-Identifier: Apache-2.0
//! What is kept between changes, where everybody may look at it: the compiled services.
//!
//! It is not copied into snapshots, because ten thousand services would have to be copied for each that changes. The
//! loop writes, everybody else reads for a moment.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use weir_abi::service::FrontendKey;
use weir_abi::{Address, Port, Protocol, ServiceId};
use weir_compile::service::{FrontendOwner, ServiceCompiler};

/// Numbers of services, and what is behind them.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    services: RwLock<ServiceCompiler>,
}

impl Directory {
    /// To look at.
    pub(crate) fn services(&self) -> RwLockReadGuard<'_, ServiceCompiler> {
        self.services.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the loop alone.
    pub(crate) fn services_mut(&self) -> RwLockWriteGuard<'_, ServiceCompiler> {
        self.services
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// `shop/web`
    pub(crate) fn service_name(&self, service: ServiceId) -> Option<Arc<str>> {
        if service == ServiceId::NONE {
            return None;
        }
        let services = self.services();
        services
            .owner_of(service)
            .map(|owner| owner.to_string().into())
    }

    /// `svc:shop/web` for an address that is a service's alone.
    pub(crate) fn address_name(&self, address: Address) -> Option<String> {
        let services = self.services();
        let rows = services.rows();
        if !rows.addresses.contains(&address) {
            return None;
        }
        let first = FrontendKey::new(address, Port::NONE, Protocol(0));
        let (key, row) = rows.frontends.range(first..).next()?;
        let owner = services.owner_of(row.service)?;
        (key.address == address).then(|| reference(owner))
    }

    /// The service that answers at an address and port.
    pub(crate) fn frontend_name(
        &self,
        address: Address,
        port: Port,
        protocol: Protocol,
    ) -> Option<String> {
        let services = self.services();
        let owner = services.frontend_at(address, port, protocol)?;
        Some(owner.to_string())
    }
}

/// As commands take it.
fn reference(owner: &FrontendOwner) -> String {
    match owner {
        FrontendOwner::Service(service) => format!("svc:{service}"),
        FrontendOwner::Pod(pod) => pod.to_string(),
    }
}
