// SPDX-License-Identifier: Apache-2.0
//! Labels: keys and values with the syntax of Kubernetes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Why a label is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLabel {
    #[error("label key `{key}`: {reason}")]
    Key { key: String, reason: &'static str },
    #[error("value `{value}` of label `{key}`: {reason}")]
    Value {
        key: String,
        value: String,
        reason: &'static str,
    },
}

/// A set of labels, in the order of the keys; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(Arc<BTreeMap<String, String>>);

impl Labels {
    /// Proves every key and value.
    pub fn new<K: Into<String>, V: Into<String>>(
        labels: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, InvalidLabel> {
        let labels: BTreeMap<String, String> = labels
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        for (key, value) in &labels {
            check_key(key).map_err(|reason| InvalidLabel::Key {
                key: shown(key),
                reason,
            })?;
            check_value(value).map_err(|reason| InvalidLabel::Value {
                key: key.clone(),
                value: shown(value),
                reason,
            })?;
        }
        Ok(Self(Arc::new(labels)))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All labels, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Characters of a wrong text that an error message repeats.
const SHOWN: usize = 80;

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

pub(crate) fn check_key(key: &str) -> Result<(), &'static str> {
    let name = match key.split_once('/') {
        None => key,
        Some((prefix, name)) => {
            if prefix.len() > 253 || crate::NodeName::new(prefix).is_err() {
                return Err("the part before the slash must be a DNS subdomain");
            }
            name
        }
    };
    if name.is_empty() {
        return Err("the name must not be empty");
    }
    check_value(name)
}

pub(crate) fn check_value(value: &str) -> Result<(), &'static str> {
    if value.len() > 63 {
        return Err("at most 63 bytes are allowed");
    }
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    if !value
        .chars()
        .all(|c| alphanumeric(c) || matches!(c, '-' | '_' | '.'))
    {
        return Err("only letters, digits, `-`, `_` and `.` are allowed");
    }
    let edges = value.starts_with(alphanumeric) && value.ends_with(alphanumeric);
    if value.is_empty() || edges {
        Ok(())
    } else {
        Err("must begin and end with a letter or digit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_the_syntax_of_kubernetes() {
        let good = [
            ("app", "web"),
            ("app.kubernetes.io/name", "Web_1.x"),
            ("empty", ""),
        ];
        let labels = Labels::new(good).unwrap();
        assert_eq!(labels.get("app"), Some("web"));
        assert_eq!(labels.len(), 3);
        let long = "x".repeat(64);
        for (key, value) in [
            ("", "a"),
            ("a b", "a"),
            ("a", "-"),
            ("a", long.as_str()),
            ("/a", "b"),
            ("a/", "b"),
            ("a/b/c", "d"),
        ] {
            assert!(Labels::new([(key, value)]).is_err(), "{key}={value}");
        }
    }
}
