// SPDX-License-Identifier: Apache-2.0
//! Endpoint slices, by themselves and by the service that they are of.

use std::sync::Arc;

use super::World;
use crate::{EndpointSlice, ServiceRef, SliceRef, Touched};

impl World {
    pub(super) fn add_slice(&mut self, slice: Arc<EndpointSlice>, touched: &mut Touched) {
        let service = slice.service_ref();
        let all = self.slices_of.entry(service.clone()).or_default();
        let place = all.partition_point(|one| one.reference < slice.reference);
        all.insert(place, Arc::clone(&slice));
        self.slices.insert(slice.reference.clone(), slice);
        touched.services.insert(service);
    }

    pub(super) fn remove_slice(&mut self, name: &SliceRef, touched: &mut Touched) -> bool {
        let Some(slice) = self.slices.remove(name) else {
            return false;
        };
        let service = slice.service_ref();
        if let Some(all) = self.slices_of.get_mut(&service) {
            all.retain(|one| one.reference != *name);
            if all.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        touched.services.insert(service);
        true
    }

    /// All endpoint slices by namespace and name.
    pub fn endpoint_slices(&self) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        self.slices.values()
    }

    /// The endpoint slices of a service, by name; they may be there before the service is.
    pub fn slices_of(&self, service: &ServiceRef) -> &[Arc<EndpointSlice>] {
        self.slices_of.get(service).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Change;

    fn slice(name: &str, service: &str) -> Arc<EndpointSlice> {
        Arc::new(EndpointSlice {
            reference: SliceRef::new("shop", name).unwrap(),
            service: crate::ServiceName::new(service).unwrap(),
            family: crate::Family::V4,
            ports: Box::default(),
            endpoints: Box::default(),
        })
    }

    #[test]
    fn a_slice_that_moves_concerns_both_services() {
        let mut world = World::default();
        let service = |name| ServiceRef::new("shop", name).unwrap();
        let names = |world: &World, name| {
            let slices = world.slices_of(&service(name)).iter();
            slices
                .map(|slice| slice.reference.name.to_string())
                .collect::<Vec<_>>()
        };
        for name in ["b", "a"] {
            world.apply(Change::EndpointSlice(slice(name, "web")));
        }
        assert_eq!(names(&world, "web"), ["a", "b"]);

        let mut touched = Touched::default();
        assert!(world.apply_noting(Change::EndpointSlice(slice("a", "api")), &mut touched));
        assert_eq!(
            touched.services,
            BTreeSet::from([service("api"), service("web")])
        );
        assert_eq!(
            (names(&world, "web"), names(&world, "api")),
            (vec!["b".into()], vec!["a".into()])
        );

        let mut touched = Touched::default();
        assert!(!world.apply_noting(Change::EndpointSlice(slice("a", "api")), &mut touched));
        assert!(touched.is_empty());
        let gone = Change::EndpointSliceGone(SliceRef::new("shop", "a").unwrap());
        assert!(world.apply_noting(gone.clone(), &mut touched));
        assert!(!world.apply(gone));
        assert!(world.slices_of(&service("api")).is_empty());
    }
}
