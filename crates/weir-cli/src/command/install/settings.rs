// SPDX-License-Identifier: Apache-2.0
//! From `--set KEY=VALUE` to a configuration that the agent accepts.

use crate::error::CliError;
use serde_json::{Map, Value};
use std::str::FromStr;
use weir_agent::config::Config;

/// One `KEY=VALUE`; whether there is such a field is for [`Settings`] to say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setting {
    /// `mapSizes`, `flows`
    path: Vec<String>,
    text: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text
            .split_once('=')
            .ok_or("write KEY=VALUE, such as routingMode=native")?;
        let path: Vec<String> = key.split('.').map(|part| part.trim().to_owned()).collect();
        if path.iter().any(String::is_empty) {
            return Err(format!("`{key}` is not the name of a field"));
        }
        Ok(Self {
            path,
            text: value.trim().to_owned(),
        })
    }
}

/// Fields of the agent's configuration, as far as they were set.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settings(Map<String, Value>);

impl Settings {
    /// Proves each setting by itself, so that the refusal names it, and then all of them together.
    pub(super) fn new(settings: Vec<Setting>) -> Result<Self, CliError> {
        let mut all = Map::new();
        for setting in settings {
            let value = proven(&setting)?;
            merge(&mut all, &setting.path, value);
        }
        let config = config(&all).map_err(|message| refused("the settings", &message))?;
        config
            .check()
            .map_err(|error| refused("the settings", &error.to_string()))?;
        Ok(Self(all))
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// As the file `config.yaml`.
    pub(super) fn yaml(&self) -> Result<String, CliError> {
        if self.0.is_empty() {
            return Ok("{}".to_owned());
        }
        let text = serde_saphyr::to_string(&self.0).map_err(|error| CliError::yaml(&error))?;
        Ok(text.trim_end().to_owned())
    }

    /// The same for the same settings, in whatever order they were given.
    pub(super) fn json(&self) -> Result<String, CliError> {
        Ok(serde_json::to_string(&self.0)?)
    }
}

fn refused(what: &str, message: &str) -> CliError {
    CliError::typed(
        format!("{what}: {message}"),
        "the fields are those of the agent's configuration, see `weir agent --help`",
    )
}

fn config(fields: &Map<String, Value>) -> Result<Config, String> {
    serde_json::from_value(Value::Object(fields.clone())).map_err(|error| error.to_string())
}

/// The value in the form in which the agent takes it.
fn proven(setting: &Setting) -> Result<Value, CliError> {
    let name = setting.path.join(".");
    let accepted = |value: &Value| {
        let mut alone = Map::new();
        merge(&mut alone, &setting.path, value.clone());
        config(&alone)
    };
    let value: Value = serde_saphyr::from_str(&setting.text)
        .map_err(|error| refused(&name, &format!("`{}` is no YAML: {error}", setting.text)))?;
    let Err(message) = accepted(&value) else {
        return Ok(value);
    };
    // A field that takes a list says so only by refusing anything else; a text stays one, whatever it looks like.
    let elements = setting.text.split(',').map(|element| element.trim().into());
    let others = [
        Value::Array(elements.collect()),
        Value::String(setting.text.clone()),
    ];
    others
        .into_iter()
        .find(|other| accepted(other).is_ok())
        .ok_or_else(|| refused(&name, &message))
}

fn merge(into: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            into.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let below = into
                .entry(first.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            if let Value::Object(below) = below {
                merge(below, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(texts: &[&str]) -> Result<Settings, String> {
        let parsed: Result<Vec<Setting>, String> = texts.iter().map(|text| text.parse()).collect();
        Settings::new(parsed?).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(texts: &[&str], expected: &Value) {
        let found = settings(texts).unwrap();
        assert_eq!(&Value::Object(found.0), expected, "{texts:?}");
    }

    #[test]
    fn values_take_the_form_of_their_field() {
        check(&[], &json!({}));
        check(&["routingMode=native"], &json!({"routingMode": "native"}));
        check(
            &["mtu=1400", "masquerade=false"],
            &json!({"mtu": 1400, "masquerade": false}),
        );
        check(
            &["devices=eth0,eth1"],
            &json!({"devices": ["eth0", "eth1"]}),
        );
        check(&["devices=[eth0]"], &json!({"devices": ["eth0"]}));
        check(
            &["nonMasqueradeCIDRs=10.0.0.0/8, fc00::/7"],
            &json!({"nonMasqueradeCIDRs": ["10.0.0.0/8", "fc00::/7"]}),
        );
        check(
            &[
                "mapSizes.flows=65536",
                "mapSizes.fragments=65536",
                "mapSizes.flows=131072",
            ],
            &json!({"mapSizes": {"flows": 131_072, "fragments": 65536}}),
        );
        check(
            &["apiServer=https://[fd00::1]:6443"],
            &json!({"apiServer": "https://[fd00::1]:6443"}),
        );
        check(&["apiServer=10"], &json!({"apiServer": "10"}));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("routingmode=native", &["routingmode", "routingMode"][..]),
            ("routingMode=flood", &["routingMode", "flood", "native"]),
            ("mtu=many", &["mtu"]),
            ("mtu=100", &["mtu", "1280"]),
            ("mtu.size=1400", &["mtu"]),
            ("mapSizes.flow=65536", &["flow"]),
            ("mapSizes.flows=-1", &["mapSizes.flows"]),
            ("nodePortRange=5-4", &["nodePortRange", "5-4"]),
            ("devices=a/b", &["devices", "a/b"]),
            ("routingMode", &["KEY=VALUE"]),
            (".x=1", &[".x"]),
            ("mtu=[1", &["mtu", "YAML"]),
        ] {
            let error = settings(&[text]).unwrap_err();
            for word in words {
                assert!(error.contains(word), "{text}: {error}");
            }
        }
    }
}
