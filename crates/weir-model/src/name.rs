// SPDX-License-Identifier: Apache-2.0
//! Names of objects, as Kubernetes allows them (RFC 1123).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::labels::{InvalidLabel, check_value};

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidName {
    #[error("a name must not be empty")]
    Empty,
    #[error("a name has at most {max} bytes, this one has {length}: `{start}…`")]
    TooLong {
        max: usize,
        length: usize,
        start: String,
    },
    #[error("`{name}` holds `{character}`: only lower-case letters, digits, `-`{dots} are allowed")]
    Character {
        name: String,
        character: char,
        dots: &'static str,
    },
    #[error("`{name}` must begin and end with a letter or digit")]
    Edge { name: String },
}

/// Bytes of a name that an error message repeats.
const SHOWN: usize = 40;

fn check(name: &str, max: usize, dots_allowed: bool) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    if name.len() > max {
        let start = name.chars().take(SHOWN).collect();
        return Err(InvalidName::TooLong {
            max,
            length: name.len(),
            start,
        });
    }
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let wrong = name
        .chars()
        .find(|&c| !(alphanumeric(c) || c == '-' || (dots_allowed && c == '.')));
    if let Some(character) = wrong {
        let dots = if dots_allowed { " and `.`" } else { "" };
        return Err(InvalidName::Character {
            name: name.to_owned(),
            character,
            dots,
        });
    }
    if name
        .split('.')
        .all(|part| part.starts_with(alphanumeric) && part.ends_with(alphanumeric))
    {
        Ok(())
    } else {
        Err(InvalidName::Edge {
            name: name.to_owned(),
        })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $max:literal, $dots:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Proves a name.
            pub fn new(name: &str) -> Result<Self, InvalidName> {
                check(name, $max, $dots)?;
                Ok(Self(name.into()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(name: &str) -> Result<Self, InvalidName> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Name of a node: a DNS subdomain.
    NodeName, 253, true
}
name! {
    /// Name of a namespace: a DNS label.
    Namespace, 63, false
}
name! {
    /// Name of a pod: a DNS subdomain.
    PodName, 253, true
}
name! {
    /// Name of a service: a DNS label.
    ServiceName, 63, false
}
name! {
    /// Name of an endpoint slice: a DNS subdomain.
    SliceName, 253, true
}

/// Name of a zone, as the label `topology.kubernetes.io/zone` holds it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(Arc<str>);

impl Zone {
    /// The label of nodes.
    pub const LABEL: &str = "topology.kubernetes.io/zone";

    /// Proves a name: a label's value that is not empty.
    pub fn new(name: &str) -> Result<Self, InvalidLabel> {
        let problem = |reason| InvalidLabel::Value {
            key: Self::LABEL.to_owned(),
            value: name.chars().take(SHOWN).collect(),
            reason,
        };
        if name.is_empty() {
            return Err(problem("must not be empty"));
        }
        check_value(name).map_err(problem)?;
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
name! {
    /// Name of a network policy: a DNS subdomain.
    PolicyName, 253, true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_follow_the_rules_of_their_kind() {
        for good in ["a", "web-1", "0", "web-1.zone.example"] {
            assert!(PodName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "", "-a", "a-", "A", "a_b", "a..b", ".a", "a.", "ä", "a b", "a/b",
        ] {
            assert!(PodName::new(bad).is_err(), "{bad}");
        }
        assert!(Namespace::new("a.b").is_err());
        assert!(Namespace::new(&"a".repeat(63)).is_ok());
        let error = Namespace::new(&"a".repeat(64)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("at most 63 bytes, this one has 64"),
            "{error}"
        );
        assert!(NodeName::new(&"a".repeat(254)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_a_clear_error(text: String) {
            match PodName::new(&text) {
                Ok(name) => prop_assert_eq!(name.as_str(), text),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
