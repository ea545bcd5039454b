// SPDX-License-Identifier: Apache-2.0
//! From the text of a file to single objects as raw values.
//!
//! Documents are read and parsed one by one: a mistake in one of them leaves the others alone, and a
//! file of ten thousand objects never stands in memory as a whole.

use std::io::{self, BufRead};

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

/// The documents of a stream. A line that starts with `---` is a marker wherever it stands (YAML
/// 1.2.2, section 9.1.2), so no parser is needed to find them.
#[derive(Debug)]
pub(crate) struct Documents<R> {
    input: R,
    /// Lines that were read.
    lines: usize,
    /// The document that is being read.
    text: Vec<u8>,
    /// The line that was read last.
    last: Vec<u8>,
    /// That line begins the next document.
    begun: bool,
}

impl<R: BufRead> Documents<R> {
    pub(crate) const fn new(input: R) -> Self {
        Self {
            input,
            lines: 0,
            text: Vec::new(),
            last: Vec::new(),
            begun: false,
        }
    }

    /// The next document that holds more than remarks, with its first line.
    pub(crate) fn next(&mut self) -> io::Result<Option<(usize, &[u8])>> {
        loop {
            self.text.clear();
            let mut first = self.lines + 1;
            if std::mem::take(&mut self.begun) {
                first = self.lines;
                // What stands behind a marker belongs to the document.
                self.text
                    .extend(self.last.get(MARKER.len()..).unwrap_or_default());
            }
            let more = self.fill()?;
            if holds_something(&self.text) {
                return Ok(Some((first, &self.text)));
            }
            if !more {
                return Ok(None);
            }
        }
    }

    /// Reads up to the next marker; false: the stream has ended.
    fn fill(&mut self) -> io::Result<bool> {
        loop {
            self.last.clear();
            if self.input.read_until(b'\n', &mut self.last)? == 0 {
                return Ok(false);
            }
            self.lines += 1;
            let behind = self.last.strip_prefix(MARKER);
            if behind.is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace)) {
                self.begun = true;
                return Ok(true);
            }
            self.text.extend(&self.last);
        }
    }
}

const MARKER: &[u8] = b"---";

fn holds_something(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let mut rest = line.iter().skip_while(|byte| byte.is_ascii_whitespace());
        rest.next().is_some_and(|byte| *byte != b'#')
    })
}

/// All objects of one document; List objects become their items.
pub(crate) fn objects(text: &str, line: usize) -> Vec<Raw> {
    let mut found = Vec::new();
    match parse(text) {
        Ok(value) => flatten(value, line, &mut found),
        Err(message) => found.push(Err(DocumentProblem {
            line,
            message: format!("not YAML: {message}"),
        })),
    }
    found
}

/// JSON is YAML, and its parser is ten times as fast: whoever writes many objects uses it.
fn parse(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    // YAML 1.2: `y` and `on` are texts, not booleans.
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let message = error.to_string();
        message.lines().next().unwrap_or_default().to_owned()
    })
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

    fn all(text: &str) -> Vec<Raw> {
        let mut documents = Documents::new(text.as_bytes());
        let mut found = Vec::new();
        while let Some((line, document)) = documents.next().unwrap() {
            found.extend(objects(std::str::from_utf8(document).unwrap(), line));
        }
        found
    }

    fn kinds(text: &str) -> Vec<String> {
        let kind = |raw: Raw| match raw {
            Ok(value) => value["kind"].as_str().unwrap_or("?").to_owned(),
            Err(problem) => format!("line {}: {}", problem.line, problem.message),
        };
        all(text).into_iter().map(kind).collect()
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
        assert_eq!(
            kinds("--- {kind: Flow}\r\n---\n{kind: Flow}"),
            ["Flow", "Flow"]
        );
        assert_eq!(kinds("kind: A\n----\n"), kinds("kind: A\n----"));
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
            let _ = (all(&text), all(&broken));
        }
    }
}
