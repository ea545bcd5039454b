// SPDX-License-Identifier: Apache-2.0
//! Kubernetes objects as raw values: the lab looks at few fields and must lose none.

mod kind;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use kind::is_namespaced;
pub(crate) use kind::kind_of_word;

/// What makes an object one and the same: kind, namespace (empty for cluster-wide kinds) and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// An object with a kind, a name and (where the kind has one) a namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Object(Value);

impl Object {
    /// Takes a value that has the parts every object needs; a missing namespace becomes `default`.
    pub(crate) fn new(mut value: Value) -> Result<Self> {
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        ensure!(!kind.is_empty(), "an object has no kind");
        ensure!(
            value["apiVersion"].is_string(),
            "a {kind} has no apiVersion"
        );
        let name = value["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        ensure!(!name.is_empty(), "a {kind} has no metadata.name");
        ensure!(
            name.len() <= 253,
            "the name of {kind} {name} is longer than 253 characters"
        );
        ensure!(
            is_dns_name(&name) || kind.contains("Role"),
            "the name of {kind} `{name}` is not a DNS name in lower case"
        );
        for field in ["labels", "annotations"] {
            for (key, text) in value["metadata"][field].as_object().into_iter().flatten() {
                // YAML takes words like `true` and `1` for something else unless they are quoted.
                ensure!(
                    text.is_string(),
                    "{field} of {kind} {name}: `{key}` is not a string (quote it)"
                );
            }
        }
        if is_namespaced(&kind) {
            let namespace = value["metadata"]["namespace"]
                .as_str()
                .unwrap_or("default")
                .to_owned();
            ensure!(
                is_dns_label(&namespace),
                "`{namespace}` is not the name of a namespace"
            );
            value["metadata"]["namespace"] = namespace.into();
        } else if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("namespace");
        }
        Ok(Self(value))
    }

    /// Reads multi-document YAML (or JSON); List objects become their items.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>> {
        // YAML 1.2: `y` and `on` are words, as most writers of YAML take them.
        let options = serde_saphyr::options! { budget: None, strict_booleans: true };
        let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)?;
        let mut objects = Vec::new();
        for (document, number) in documents.into_iter().zip(1..) {
            collect(document, &mut objects).with_context(|| format!("document {number}"))?;
        }
        Ok(objects)
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(self.kind(), self.namespace(), self.name())
    }

    pub(crate) fn kind(&self) -> &str {
        self.text("/kind").unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.text("/metadata/namespace").unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name").unwrap_or_default()
    }

    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        self.get("/metadata/labels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    }

    /// A field by its JSON pointer.
    pub(crate) fn get(&self, pointer: &str) -> Option<&Value> {
        self.0.pointer(pointer).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, pointer: &str) -> Option<&str> {
        self.get(pointer)?.as_str()
    }

    pub(crate) fn list(&self, pointer: &str) -> &[Value] {
        self.get(pointer)
            .and_then(Value::as_array)
            .map_or(&[], Vec::as_slice)
    }

    /// The texts of a list.
    pub(crate) fn texts(&self, pointer: &str) -> Vec<String> {
        let list = self.list(pointer).iter();
        list.filter_map(|value| value.as_str().map(ToOwned::to_owned))
            .collect()
    }

    /// Whether a field says `true`.
    pub(crate) fn flag(&self, pointer: &str) -> bool {
        self.get(pointer).is_some_and(|value| value == true)
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.get("/metadata/annotations")?.get(name)?.as_str()
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    pub(crate) fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }
}

fn collect(document: Value, objects: &mut Vec<Object>) -> Result<()> {
    let kind = document["kind"].as_str().unwrap_or_default();
    match document {
        Value::Null => Ok(()),
        Value::Object(mut list) if kind.ends_with("List") && list.contains_key("items") => {
            // Items of a typed list (PodList) leave their kind out.
            let item_kind = list["kind"]
                .as_str()
                .unwrap_or_default()
                .trim_end_matches("List")
                .to_owned();
            let version = list.get("apiVersion").cloned().unwrap_or_default();
            let Some(Value::Array(items)) = list.remove("items") else {
                bail!("the items of a list are not a list");
            };
            for mut item in items {
                if item["kind"].is_null() && !item_kind.is_empty() {
                    item["kind"] = json!(item_kind);
                    item["apiVersion"] = version.clone();
                }
                collect(item, objects)?;
            }
            Ok(())
        }
        document @ (Value::Object(_)
        | Value::Array(_)
        | Value::String(_)
        | Value::Number(_)
        | Value::Bool(_)) => {
            objects.push(Object::new(document)?);
            Ok(())
        }
    }
}

/// A DNS label as RFC 1123 has it: what namespaces are named by.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|c| good(c) || c == '-')
        && text.starts_with(good)
        && text.ends_with(good)
}

/// A DNS subdomain as RFC 1123 has it: what most objects are named by.
pub(crate) fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}
