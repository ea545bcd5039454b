// SPDX-License-Identifier: Apache-2.0
//! From the text of a file to single objects as raw values.
//!
//! Documents are parsed one by one, so that a mistake in one of them leaves the others alone.

use serde_json::Value;

/// A raw object or the reason why a document is none.
pub(crate) type Raw = Result<Value, DocumentProblem>;

/// A document that is not YAML, or no object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DocumentProblem {
    /// Its first line in the file, from 1.
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// All objects of a file; List objects become their items.
pub(crate) fn objects(text: &str) -> Vec<Raw> {
    let mut found = Vec::new();
    for (line, document) in documents(text) {
        // YAML 1.2: `y` and `on` are texts, not booleans.
        let options = serde_saphyr::options! { strict_booleans: true };
        match serde_saphyr::from_str_with_options::<Value>(&document, options) {
            Ok(value) => flatten(value, line, &mut found),
            Err(error) => {
                let message = error.to_string();
                let message = message.lines().next().unwrap_or_default().to_owned();
                found.push(Err(DocumentProblem {
                    line,
                    message: format!("not YAML: {message}"),
                }));
            }
        }
    }
    found
}

/// The documents of a stream with the line on which each begins. A line that starts with `---` is a
/// marker wherever it stands (YAML 1.2.2, section 9.1.2), so no parser is needed to find them.
fn documents(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (number, line) in (1..).zip(text.lines()) {
        let marker = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if let Some(rest) = marker {
            documents.push((number, format!("{rest}\n")));
        } else if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents.retain(|(_, document)| {
        document
            .lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    documents
}

/// Nested lists deeper than this are nobody's honest work.
const DEPTH: usize = 4;

fn flatten(value: Value, line: usize, found: &mut Vec<Raw>) {
    flatten_to(value, line, DEPTH, found);
}

fn flatten_to(value: Value, line: usize, depth: usize, found: &mut Vec<Raw>) {
    let problem = |message: &str| {
        Err(DocumentProblem {
            line,
            message: message.to_owned(),
        })
    };
    let Value::Object(mut object) = value else {
        if !value.is_null() {
            found.push(problem("not an object with apiVersion and kind"));
        }
        return;
    };
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let Some(item_kind) = kind
        .strip_suffix("List")
        .filter(|_| object.contains_key("items"))
    else {
        found.push(Ok(Value::Object(object)));
        return;
    };
    let version = object.get("apiVersion").cloned();
    let Some(Value::Array(items)) = object.remove("items") else {
        found.push(problem("the items of a list are not a list"));
        return;
    };
    if depth == 0 {
        found.push(problem("lists in lists in lists"));
        return;
    }
    for mut item in items {
        // Items of a typed list (PodList) leave kind and version out.
        if let Value::Object(fields) = &mut item
            && !item_kind.is_empty()
            && !fields.contains_key("kind")
        {
            fields.insert("kind".to_owned(), item_kind.into());
            fields.extend(
                version
                    .clone()
                    .map(|version| ("apiVersion".to_owned(), version)),
            );
        }
        flatten_to(item, line, depth - 1, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(text: &str) -> Vec<String> {
        let kind = |raw: Raw| match raw {
            Ok(value) => value["kind"].as_str().unwrap_or("?").to_owned(),
            Err(problem) => format!("line {}: {}", problem.line, problem.message),
        };
        objects(text).into_iter().map(kind).collect()
    }

    #[test]
    fn documents_and_lists_become_objects() {
        assert_eq!(kinds(""), [""; 0]);
        assert_eq!(kinds("# only a remark\n---\n\n---\n"), [""; 0]);
        assert_eq!(
            kinds("kind: A\n---\nkind: B\n--- \nkind: C\n"),
            ["A", "B", "C"]
        );
        assert_eq!(
            kinds("kind: List\nitems:\n- kind: A\n- kind: PodList\n  items: [{}, {}]\n"),
            ["A", "Pod", "Pod"]
        );
        assert_eq!(kinds("{\"kind\": \"Json\"}"), ["Json"]);
        assert_eq!(kinds("kind: y\n---\nkind: on\n"), ["y", "on"]);
    }

    #[test]
    fn a_bad_document_leaves_the_others_alone() {
        let found = kinds("kind: A\n---\n{ [ broken\n---\n- 1\n---\nkind: B\n");
        assert_eq!(found.len(), 4);
        assert_eq!((found[0].as_str(), found[3].as_str()), ("A", "B"));
        assert!(found[1].starts_with("line 2: not YAML"), "{}", found[1]);
        assert!(
            found[2].starts_with("line 4: not an object"),
            "{}",
            found[2]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_crash(text in "\\PC{0,200}", broken in "[-:{}\\[\\]&*!|>'\"%@` \n#a-c]{0,60}") {
            let _ = (objects(&text), objects(&broken));
        }
    }
}
