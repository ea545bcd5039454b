// SPDX-License-Identifier: Apache-2.0
//! Node-local numbers for label sets (ADR 0005).
//!
//! Two pods have one identity exactly when namespace, labels and named ports are equal. A number stays with its
//! set while anything uses it, and is not given to another set soon afterwards: numbers are handed
//! out in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use weir_abi::{Identity, Protocol};

use crate::{ContainerPort, Labels, Namespace, Pod};

/// A container port with a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedPort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// The named ports of a pod, in order; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NamedPorts(Arc<[NamedPort]>);

impl NamedPorts {
    /// Out of a pod's container ports; those without a name do not count.
    pub fn of(ports: &[ContainerPort]) -> Self {
        let named = ports.iter().filter_map(|port| {
            let name = port.name.clone()?;
            Some(NamedPort {
                name,
                protocol: port.protocol,
                port: port.port,
            })
        });
        named.collect()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &NamedPort> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers behind a name.
    pub fn numbers(&self, name: &str, protocol: Protocol) -> impl Iterator<Item = u16> {
        let found = move |port: &&NamedPort| port.name == name && port.protocol == protocol;
        self.0.iter().filter(found).map(|port| port.port)
    }
}

impl FromIterator<NamedPort> for NamedPorts {
    fn from_iter<I: IntoIterator<Item = NamedPort>>(ports: I) -> Self {
        let sorted: BTreeSet<_> = ports.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

/// What policy can tell pods apart by. Named ports are part of it, because a rule that names a port
/// means another number at each pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelSet {
    pub namespace: Namespace,
    pub labels: Labels,
    pub ports: NamedPorts,
}

impl LabelSet {
    /// The set of a pod.
    pub fn of(pod: &Pod) -> Self {
        Self {
            namespace: pod.reference.namespace.clone(),
            labels: pod.labels.clone(),
            ports: NamedPorts::of(&pod.container_ports),
        }
    }

    /// The labels as listings show them, the namespace among them.
    pub fn display_labels(&self) -> Vec<String> {
        let mut shown: Vec<_> = self
            .labels
            .iter()
            .map(|(key, value)| format!("k8s:{key}={value}"))
            .collect();
        shown.push(format!(
            "k8s:io.kubernetes.pod.namespace={}",
            self.namespace
        ));
        shown.sort();
        shown
    }
}

impl fmt::Display for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display_labels().join(","))
    }
}

/// Who has which number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityTable {
    numbers: BTreeMap<LabelSet, Identity>,
    sets: BTreeMap<Identity, LabelSet>,
    /// The number given last.
    last: Option<Identity>,
}

impl IdentityTable {
    /// The last number that is given out: the range that the field uses for cluster identities.
    pub const LAST: Identity = Identity(65_535);

    /// Takes over numbers from before a restart. A pair that contradicts another is left out.
    pub fn restore(pairs: impl IntoIterator<Item = (Identity, LabelSet)>) -> Self {
        let mut table = Self::default();
        for (number, set) in pairs {
            let legal = (Identity::FIRST_POD..=Self::LAST).contains(&number);
            if legal && !table.sets.contains_key(&number) && !table.numbers.contains_key(&set) {
                table.last = table.last.max(Some(number));
                table.numbers.insert(set.clone(), number);
                table.sets.insert(number, set);
            }
        }
        table
    }

    /// The number of a set, if it has one.
    pub fn get(&self, set: &LabelSet) -> Option<Identity> {
        self.numbers.get(set).copied()
    }

    /// The set behind a number.
    pub fn set(&self, number: Identity) -> Option<&LabelSet> {
        self.sets.get(&number)
    }

    /// All numbers with their sets.
    pub fn iter(&self) -> impl Iterator<Item = (Identity, &LabelSet)> {
        self.sets.iter().map(|(number, set)| (*number, set))
    }

    /// The labels behind any number, reserved ones too.
    pub fn display_labels(&self, number: Identity) -> Vec<String> {
        match (number.reserved_name(), self.sets.get(&number)) {
            (Some(name), _) => vec![format!("reserved:{name}")],
            (None, Some(set)) => set.display_labels(),
            (None, None) => Vec::new(),
        }
    }

    /// Numbers exactly these sets; those that are not among them lose their number. Tells whether
    /// anything changed. Sets for which no number is left come back.
    pub fn update(&mut self, in_use: &BTreeSet<LabelSet>) -> (bool, Vec<LabelSet>) {
        let before = self.numbers.len();
        self.numbers.retain(|set, _| in_use.contains(set));
        let Self {
            numbers,
            sets,
            last: _,
        } = &mut *self;
        sets.retain(|_, set| numbers.contains_key(set));
        let mut changed = self.numbers.len() != before;
        let mut refused = Vec::new();
        for set in in_use {
            if self.numbers.contains_key(set) {
                continue;
            }
            match self.free_number() {
                Some(number) => {
                    self.last = Some(number);
                    self.numbers.insert(set.clone(), number);
                    self.sets.insert(number, set.clone());
                    changed = true;
                }
                None => refused.push(set.clone()),
            }
        }
        (changed, refused)
    }

    /// The next number in the circle that nobody has.
    fn free_number(&self) -> Option<Identity> {
        let first = Identity::FIRST_POD.0;
        let count = Self::LAST.0 - first + 1;
        let start = self.last.map_or(0, |last| last.0 - first + 1);
        (0..count)
            .map(|step| Identity(first + (start + step) % count))
            .find(|number| !self.sets.contains_key(number))
    }
}

#[cfg(test)]
mod tests;
