// SPDX-License-Identifier: Apache-2.0
//! Which pods are behind a service.

use std::fmt;

use crate::Labels;
use crate::labels::InvalidLabel;

/// Which pods are behind a service: all of these labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSelector(Box<[(Box<str>, Box<str>)]>);

impl ServiceSelector {
    /// Proves every key and value.
    pub fn new<K: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, InvalidLabel> {
        let proven = Labels::new(pairs)?;
        let pairs = proven
            .iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        Ok(Self(pairs))
    }

    /// Whether a pod with these labels is behind the service. An empty selector selects nothing:
    /// somebody else writes the endpoints.
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.0.is_empty()
            && self
                .0
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every key with the value that it must have.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

impl fmt::Display for ServiceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_wants_every_label_and_an_empty_one_selects_nothing() {
        let labels = Labels::new([("app", "web"), ("tier", "front")]).unwrap();
        let selector = |pairs: &[(&str, &str)]| ServiceSelector::new(pairs.to_vec()).unwrap();
        assert!(selector(&[("app", "web")]).matches(&labels));
        assert!(!selector(&[("app", "web"), ("tier", "back")]).matches(&labels));
        assert!(!selector(&[]).matches(&labels));
        assert_eq!(selector(&[("b", "2"), ("a", "1")]).to_string(), "a=1,b=2");
        assert!(ServiceSelector::new([("a b", "c")]).is_err());
    }
}
