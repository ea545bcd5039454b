// SPDX-License-Identifier: Apache-2.0
//! Which number the labels of a pod have.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};

use weir_abi::Identity;
use weir_model::{ContainerPort, IdentityTable, LabelSet, Labels, NamedPorts, Namespace, Pod};

use super::{Compiler, LocalEndpoint};

/// Every label set of the world's pods with its number; none where there was none left.
pub(super) type Numbers<'a> = HashMap<PodKind<'a>, Option<Identity>, FixedSeed>;

/// What makes pods one of a kind, as it stands in the pod: pods of several kinds can have one label
/// set, never the other way round.
type PodKind<'a> = (&'a Namespace, &'a Labels, &'a [ContainerPort]);

pub(super) fn kind_of(pod: &Pod) -> PodKind<'_> {
    (&pod.reference.namespace, &pod.labels, &pod.container_ports)
}

/// Pods on the host's network have their node's addresses.
pub(super) fn has_own_addresses(pod: &Pod) -> bool {
    !pod.host_network && !pod.addresses.is_empty()
}

/// No randomness: the same world makes the same rows in the same time.
type FixedSeed = BuildHasherDefault<DefaultHasher>;

impl Compiler<'_> {
    /// Pods by the thousand share few label sets, so the sets are told apart by hash first.
    pub(super) fn number_identities(
        &mut self,
        endpoints: &[LocalEndpoint],
        identities: &mut IdentityTable,
    ) {
        let pods = self.world.pods().filter(|pod| has_own_addresses(pod));
        self.numbers = pods.map(|pod| (kind_of(pod), None)).collect();
        let owned = |(namespace, labels, ports): PodKind<'_>| LabelSet {
            namespace: namespace.clone(),
            labels: labels.clone(),
            ports: NamedPorts::of(ports),
        };
        let mut in_use: BTreeSet<_> = self.numbers.keys().copied().map(owned).collect();
        in_use.extend(
            endpoints
                .iter()
                .filter_map(|endpoint| self.labels_of(endpoint)),
        );
        identities.update(&in_use);
        for (set, number) in &mut self.numbers {
            *number = identities.get(&owned(*set));
        }
    }

    /// The labels of the pod object, or the last ones seen while there is no such object.
    pub(super) fn labels_of(&self, endpoint: &LocalEndpoint) -> Option<LabelSet> {
        let object = self.world.pod(&endpoint.pod).map(|pod| LabelSet::of(pod));
        object.or_else(|| endpoint.labels.clone())
    }
}
