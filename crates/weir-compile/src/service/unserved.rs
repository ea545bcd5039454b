// SPDX-License-Identifier: Apache-2.0
//! Why a service has no frontends at all.

use weir_model::{Exclusion, Service, ServiceRef, ServiceType, World};

use super::ServiceCompiler;

/// Why a service has no frontends at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unserved {
    #[error("it is headless: clients ask DNS for its pods")]
    Headless,
    #[error("it is of type ExternalName: only DNS knows it")]
    ExternalName,
    #[error("its label service.kubernetes.io/service-proxy-name says that `{0}` serves it")]
    OtherProxy(String),
    #[error("it has the label service.kubernetes.io/headless")]
    HeadlessLabel,
    #[error("it has no cluster IP yet")]
    NoAddress,
    #[error("it has no ports")]
    NoPorts,
}

impl Unserved {
    /// The reason, where there is one.
    pub fn of(service: &Service) -> Option<Self> {
        match (&service.exclusion, service.kind) {
            (Some(Exclusion::OtherProxy(proxy)), _) => Some(Self::OtherProxy(proxy.to_string())),
            (Some(Exclusion::HeadlessLabel), _) => Some(Self::HeadlessLabel),
            (None, ServiceType::ExternalName) => Some(Self::ExternalName),
            (None, _) if service.headless => Some(Self::Headless),
            (None, _) if service.cluster_ips.is_empty() => Some(Self::NoAddress),
            (None, _) if service.ports.is_empty() => Some(Self::NoPorts),
            (None, _) => None,
        }
    }
}

impl ServiceCompiler {
    /// Services without frontends, and why.
    pub fn unserved(world: &World) -> impl Iterator<Item = (&ServiceRef, Unserved)> {
        world
            .services()
            .filter_map(|service| Some((&service.reference, Unserved::of(service)?)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_model::Change;

    use super::*;
    use crate::service::tests::worlds::{service, service_ref};

    #[test]
    fn services_without_frontends_say_why() {
        let mut world = World::default();
        world.apply(Change::Service(Arc::new(Service {
            headless: true,
            ..service("web", "10.96.0.1")
        })));
        let found: Vec<_> = ServiceCompiler::unserved(&world).collect();
        assert_eq!(found, [(&service_ref("web"), Unserved::Headless)]);
    }
}
