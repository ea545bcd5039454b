// SPDX-License-Identifier: Apache-2.0
//! Versions of the CNI specification, and which one a call is spoken in.

use std::fmt;

use serde::Deserialize;
use serde_json::{Value, json};

/// A version that the plugin speaks, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SpecVersion {
    /// Results with interfaces.
    V0_3_1,
    /// Brings CHECK.
    V0_4_0,
    /// Addresses without a version of their own.
    V1_0_0,
    /// Brings GC and STATUS, and the MTU of interfaces.
    V1_1_0,
}

impl SpecVersion {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];
    /// What is spoken where nothing is asked for.
    pub(crate) const NEWEST: Self = Self::V1_1_0;

    /// What a configuration without a version is of: the first days.
    pub(crate) const UNSAID: &str = "0.1.0";

    /// As it stands in documents.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version that a configuration asks for; none where it is not spoken here.
    pub(crate) fn negotiate(asked: Option<&str>) -> Option<Self> {
        let asked = asked.unwrap_or(Self::UNSAID);
        Self::ALL
            .into_iter()
            .find(|version| version.text() == asked)
    }

    /// The version that an answer to this input is given in, whatever else is wrong with it.
    pub(crate) fn spoken(input: &str) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Spoken {
            cni_version: Option<String>,
        }
        serde_json::from_str::<Spoken>(input)
            .ok()
            .and_then(|spoken| Self::negotiate(spoken.cni_version.as_deref()))
            .unwrap_or(Self::NEWEST)
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The answer to VERSION.
pub(crate) fn supported(spoken: SpecVersion) -> Value {
    json!({
        "cniVersion": spoken.text(),
        "supportedVersions": SpecVersion::ALL.map(SpecVersion::text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asked: Option<&str>, expected: Option<SpecVersion>) {
        assert_eq!(SpecVersion::negotiate(asked), expected);
    }

    #[test]
    fn the_version_asked_for_is_spoken_or_refused() {
        check(Some("1.1.0"), Some(SpecVersion::V1_1_0));
        check(Some("1.0.0"), Some(SpecVersion::V1_0_0));
        check(Some("0.3.1"), Some(SpecVersion::V0_3_1));
        for unknown in [Some("1.2.0"), Some("0.2.0"), Some("1.1"), Some(""), None] {
            check(unknown, None);
        }
    }

    #[test]
    fn an_answer_is_in_the_version_of_its_input() {
        assert_eq!(
            SpecVersion::spoken(r#"{"cniVersion": "0.4.0", "more": 1}"#),
            SpecVersion::V0_4_0
        );
        for nonsense in [
            "",
            "{",
            "[]",
            r#"{"cniVersion": 7}"#,
            r#"{"cniVersion": "9"}"#,
        ] {
            assert_eq!(SpecVersion::spoken(nonsense), SpecVersion::NEWEST);
        }
    }

    #[test]
    fn version_lists_what_is_spoken() {
        let expected = json!({
            "cniVersion": "1.0.0",
            "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
        });
        assert_eq!(supported(SpecVersion::V1_0_0), expected);
    }
}
