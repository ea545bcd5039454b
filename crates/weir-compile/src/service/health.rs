// SPDX-License-Identifier: Apache-2.0
//! What load balancers are told about a service's endpoints on this node.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use weir_model::{Family, Service, ServiceRef, World};

use super::{ServiceCompiler, ServiceSettings};

/// What a load balancer is told when it asks about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    /// Ready endpoints on this node, each address once.
    pub local_endpoints: usize,
}

impl ServiceCompiler {
    pub(super) fn check_health(
        &mut self,
        name: &ServiceRef,
        service: Option<&Service>,
        world: &World,
        settings: &ServiceSettings,
    ) {
        let found = service.and_then(|service| Some((service, service.health_check()?)));
        let Some((service, port)) = found else {
            self.health.remove(name);
            return;
        };
        let slices = world.slices_of(name).iter();
        let mut local: BTreeMap<Family, BTreeSet<IpAddr>> = BTreeMap::new();
        for one in slices.flat_map(|slice| slice.endpoints.iter()) {
            let ready = one.ready || service.publish_not_ready;
            if ready && one.node.as_ref() == Some(&settings.node) {
                let family = Family::of(one.address);
                local.entry(family).or_default().insert(one.address);
            }
        }
        let check = HealthCheck {
            port,
            // A pod has an address of each family, and is one endpoint.
            local_endpoints: local.values().map(BTreeSet::len).max().unwrap_or(0),
        };
        self.health.insert(name.clone(), check);
    }
}
