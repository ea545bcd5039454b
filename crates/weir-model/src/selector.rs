// SPDX-License-Identifier: Apache-2.0
//! Label selectors: which label sets are meant.
//!
//! `matchLabels` is the same as `In` with one value, so both become requirements; an empty selector
//! has none and means everything. That a selector is absent is its owner's business.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::labels::{InvalidLabel, Labels, check_key};
use crate::name::Namespace;

/// The label that every namespace has without being given it.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// What a selector asks of one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The label is there and has one of the values.
    In(String, BTreeSet<String>),
    /// The label is not there or has another value.
    NotIn(String, BTreeSet<String>),
    /// The label is there.
    Exists(String),
    /// The label is not there.
    DoesNotExist(String),
}

impl Requirement {
    /// The label that is asked for.
    pub fn key(&self) -> &str {
        match self {
            Self::In(key, _)
            | Self::NotIn(key, _)
            | Self::Exists(key)
            | Self::DoesNotExist(key) => key,
        }
    }

    /// Whether a value of the label (none: it is not there) will do.
    pub fn accepts(&self, value: Option<&str>) -> bool {
        match self {
            Self::In(_, values) => value.is_some_and(|value| values.contains(value)),
            Self::NotIn(_, values) => value.is_none_or(|value| !values.contains(value)),
            Self::Exists(_) => value.is_some(),
            Self::DoesNotExist(_) => value.is_none(),
        }
    }
}

impl fmt::Display for Requirement {
    /// As `kubectl get -l` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| {
            let values: Vec<_> = values.iter().map(String::as_str).collect();
            values.join(",")
        };
        match self {
            Self::In(key, values) if values.len() == 1 => write!(f, "{key}={}", list(values)),
            Self::In(key, values) => write!(f, "{key} in ({})", list(values)),
            Self::NotIn(key, values) if values.len() == 1 => write!(f, "{key}!={}", list(values)),
            Self::NotIn(key, values) => write!(f, "{key} notin ({})", list(values)),
            Self::Exists(key) => f.write_str(key),
            Self::DoesNotExist(key) => write!(f, "!{key}"),
        }
    }
}

/// All of its requirements must be met; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LabelSelector(Arc<[Requirement]>);

impl LabelSelector {
    /// A selector out of proven requirements; their order does not matter.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Result<Self, InvalidLabel> {
        let sorted: BTreeSet<_> = requirements.into_iter().collect();
        for requirement in &sorted {
            check_key(requirement.key()).map_err(|reason| InvalidLabel::Key {
                key: requirement.key().chars().take(80).collect(),
                reason,
            })?;
        }
        Ok(Self(sorted.into_iter().collect()))
    }

    /// What it asks for.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// Whether it means everything.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a label set is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.unmet(labels).next().is_none()
    }

    /// The requirements that a label set does not meet.
    pub fn unmet<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a Requirement> {
        let unmet = |one: &&Requirement| !one.accepts(labels.get(one.key()));
        self.0.iter().filter(unmet)
    }

    /// Whether a namespace is meant: its name is one of its labels.
    pub fn matches_namespace(&self, name: &Namespace, labels: Option<&Labels>) -> bool {
        self.unmet_by_namespace(name, labels).next().is_none()
    }

    /// The requirements that a namespace does not meet.
    pub fn unmet_by_namespace<'a>(
        &'a self,
        name: &'a Namespace,
        labels: Option<&'a Labels>,
    ) -> impl Iterator<Item = &'a Requirement> {
        self.0.iter().filter(move |one| {
            let value = match one.key() {
                NAMESPACE_NAME_LABEL => Some(name.as_str()),
                key => labels.and_then(|labels| labels.get(key)),
            };
            !one.accepts(value)
        })
    }
}

impl fmt::Display for LabelSelector {
    /// The requirements with commas between them; `<all>` where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("<all>");
        }
        for (place, requirement) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|value| (*value).to_owned()).collect()
    }

    fn check(requirement: Requirement, shown: &str, matched: [bool; 3]) {
        let sets: [&[(&str, &str)]; 3] = [&[("app", "web")], &[("app", "")], &[("tier", "front")]];
        let selector = LabelSelector::new([requirement]).unwrap();
        assert_eq!(selector.to_string(), shown);
        let found = sets.map(|set| selector.matches(&Labels::new(set.iter().copied()).unwrap()));
        assert_eq!(found, matched, "{shown}");
    }

    #[test]
    fn every_operator_means_what_kubernetes_says() {
        let app = || "app".to_owned();
        let one = || values(&["web"]);
        let two = || values(&["web", "api"]);
        check(
            Requirement::In(app(), one()),
            "app=web",
            [true, false, false],
        );
        check(
            Requirement::In(app(), two()),
            "app in (api,web)",
            [true, false, false],
        );
        check(
            Requirement::NotIn(app(), one()),
            "app!=web",
            [false, true, true],
        );
        check(
            Requirement::NotIn(app(), two()),
            "app notin (api,web)",
            [false, true, true],
        );
        check(Requirement::Exists(app()), "app", [true, true, false]);
        check(
            Requirement::DoesNotExist(app()),
            "!app",
            [false, false, true],
        );
    }

    #[test]
    fn an_empty_selector_means_everything() {
        let all = LabelSelector::default();
        assert!(all.matches(&Labels::default()) && all.is_everything());
        assert_eq!(all.to_string(), "<all>");
        assert!(LabelSelector::new([Requirement::Exists("a b".to_owned())]).is_err());
    }

    #[test]
    fn a_namespace_has_its_name_as_a_label() {
        let shop = Namespace::new("shop").unwrap();
        let named = |name: &str| {
            let name = values(&[name]);
            LabelSelector::new([Requirement::In(NAMESPACE_NAME_LABEL.to_owned(), name)]).unwrap()
        };
        assert!(named("shop").matches_namespace(&shop, None));
        let lie = Labels::new([(NAMESPACE_NAME_LABEL, "other")]).unwrap();
        assert!(named("shop").matches_namespace(&shop, Some(&lie)));
        assert!(!named("other").matches_namespace(&shop, Some(&lie)));
    }
}
