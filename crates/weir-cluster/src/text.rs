// SPDX-License-Identifier: Apache-2.0
//! Objects out of a text, for questions about what is not applied (yet).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};
use weir_model::{Change, Pod};

use crate::ObjectProblem;
use crate::convert::{Converted, convert, describe};
use crate::document::{Documents, objects};
use crate::object::Object;

/// What a manifest says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    pub changes: Vec<Change>,
    /// What is refused; `file` is empty.
    pub problems: Vec<ObjectProblem>,
    /// Kinds that the world does not hold, with how many of them there are.
    pub skipped: BTreeMap<String, u64>,
}

/// Reads all objects of a manifest.
pub fn read(text: &str) -> Text {
    let mut found = Text::default();
    for raw in values(text) {
        let raw = match raw {
            Ok(raw) => raw,
            Err((line, message)) => {
                found.problems.push(ObjectProblem {
                    file: PathBuf::new(),
                    object: format!("document at line {line}"),
                    field: String::new(),
                    message,
                    policy: None,
                });
                continue;
            }
        };
        let object = describe(&raw);
        match convert(raw) {
            Ok(Converted::Object(one)) => found.changes.extend(one.changes()),
            Ok(Converted::Ended | Converted::Unbalanced) => {}
            Ok(Converted::Skipped(kind)) => *found.skipped.entry(kind).or_default() += 1,
            Ok(Converted::Instead(_, problem)) | Err(problem) => {
                found.problems.push(ObjectProblem {
                    file: PathBuf::new(),
                    object,
                    field: problem.field,
                    message: problem.message,
                    policy: None,
                });
            }
        }
    }
    found
}

/// The first pod of a manifest, or a pod as the first object that makes pods would make it.
pub fn pod(text: &str) -> Result<Pod, String> {
    for raw in values(text) {
        let raw = raw.map_err(|(line, message)| format!("line {line}: {message}"))?;
        let Some(raw) = as_pod(raw) else {
            continue;
        };
        let described = describe(&raw);
        return match convert(raw) {
            Ok(Converted::Object(Object::Pod(pod))) => Ok(Pod::clone(&pod)),
            Ok(
                Converted::Object(_)
                | Converted::Instead(..)
                | Converted::Unbalanced
                | Converted::Skipped(_),
            ) => Err(format!("{described} is no pod")),
            Ok(Converted::Ended) => Err(format!("{described} has ended")),
            Err(problem) => Err(format!(
                "{described}: {}: {}",
                problem.field, problem.message
            )),
        };
    }
    Err("it has no Pod, and nothing with a pod template".to_owned())
}

/// The pod itself, or that of the template inside; none for other objects.
fn as_pod(raw: Value) -> Option<Value> {
    if raw.get("kind").and_then(Value::as_str) == Some("Pod") {
        return Some(raw);
    }
    let template = ["/spec/template", "/spec/jobTemplate/spec/template"]
        .iter()
        .find_map(|place| raw.pointer(place))?;
    let mut metadata = template.get("metadata").and_then(Value::as_object).cloned();
    let metadata = metadata.get_or_insert_with(Map::new);
    for field in ["name", "namespace"] {
        if let Some(value) = raw.pointer(&format!("/metadata/{field}")) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut pod = Map::new();
    pod.insert("apiVersion".to_owned(), "v1".into());
    pod.insert("kind".to_owned(), "Pod".into());
    pod.insert("metadata".to_owned(), Value::Object(metadata.clone()));
    pod.insert("spec".to_owned(), template.get("spec").cloned()?);
    Some(Value::Object(pod))
}

type Problem = (usize, String);

fn values(text: &str) -> Vec<Result<Value, Problem>> {
    let mut found = Vec::new();
    let mut documents = Documents::new(text.as_bytes());
    // Reading bytes that are in memory cannot fail.
    while let Ok(Some((line, document))) = documents.next() {
        let document = String::from_utf8_lossy(document).into_owned();
        let all = objects(&document, line).into_iter();
        found.extend(all.map(|raw| raw.map_err(|problem| (problem.line, problem.message))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_others_are_counted() {
        let text = read(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a, namespace: shop}\n\
             spec: {podSelector: {}}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\n{ [\n",
        );
        assert_eq!(text.changes.len(), 1);
        assert_eq!(text.skipped.get("Secret"), Some(&1));
        assert_eq!(text.problems.len(), 1);
    }

    #[test]
    fn a_pod_comes_out_of_whatever_makes_it() {
        let check = |text: &str| pod(text).unwrap().reference.to_string();
        let spec = "spec: {containers: [{name: c}]}";
        assert_eq!(
            check(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: shop}}\n{spec}"
            )),
            "shop/a"
        );
        let deployment = format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  template:\n    metadata: {{labels: {{app: web}}}}\n    {spec}"
        );
        assert_eq!(check(&deployment), "default/web");
        assert_eq!(pod(&deployment).unwrap().labels.get("app"), Some("web"));
        assert!(pod("kind: Secret\napiVersion: v1").is_err());
    }
}
