// SPDX-License-Identifier: Apache-2.0
//! `-o jsonpath=…`: the forms of `kubectl` that people use.
//!
//! `{.a.b}`, `{['a.b']}`, `{[0]}`, `{[-1]}`, `{[1:3]}`, `{[*]}`, `{..name}`, `{[0,2]}`,
//! `{[?(@.id==7)]}`, `{range …}…{end}`, `{"\n"}` and plain text. Results of one expression are
//! joined by spaces; what is missing is empty. Answers here are plain lists where `kubectl` wraps
//! them in an object, so `.items` of a list is the list.

mod parse;

use serde_json::Value;
use std::cmp::Ordering;
use std::str::FromStr;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JsonPath {
    parts: Vec<Part>,
}

/// What of a template cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("jsonpath: {what} at character {place}")]
pub(crate) struct JsonPathError {
    what: &'static str,
    place: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Path),
    Range(Path, Vec<Self>),
}

#[derive(Clone, Debug, PartialEq)]
struct Path {
    /// From the whole answer, not from the item of the range around it.
    from_root: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    All,
    Index(i64),
    Slice {
        from: Option<i64>,
        to: Option<i64>,
        every: Option<i64>,
    },
    /// Everything below, itself included.
    Descend,
    Union(Vec<Self>),
    Filter(Condition),
}

#[derive(Clone, Debug, PartialEq)]
struct Condition {
    left: Operand,
    right: Option<(Comparison, Operand)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Path(Path),
    Literal(Value),
}

impl FromStr for JsonPath {
    type Err = JsonPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse::template(text).map(|parts| Self { parts })
    }
}

impl JsonPath {
    /// The template filled in.
    pub(crate) fn render(&self, root: &Value) -> String {
        let mut text = String::new();
        render(&self.parts, root, root, &mut text);
        text
    }
}

fn render(parts: &[Part], root: &Value, item: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(literal) => text.push_str(literal),
            Part::Path(path) => {
                let found: Vec<String> = path.find(root, item).into_iter().map(plain).collect();
                text.push_str(&found.join(" "));
            }
            Part::Range(path, body) => {
                for item in path.find(root, item) {
                    render(body, root, item, text);
                }
            }
        }
    }
}

/// Strings as they are, anything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

impl Path {
    fn find<'a>(&self, root: &'a Value, item: &'a Value) -> Vec<&'a Value> {
        let start = if self.from_root { root } else { item };
        self.steps.iter().fold(vec![start], |found, step| {
            found
                .into_iter()
                .flat_map(|value| step.apply(root, value))
                .collect()
        })
    }
}

impl Step {
    fn apply<'a>(&self, root: &'a Value, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) if name == "items" && value.is_array() => vec![value],
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::All => children(value),
            Self::Index(index) => value
                .as_array()
                .and_then(|list| list.get(place(*index, list.len())?))
                .into_iter()
                .collect(),
            Self::Slice { from, to, every } => slice(value, *from, *to, *every),
            Self::Descend => {
                let mut found = vec![value];
                for child in children(value) {
                    found.extend(self.apply(root, child));
                }
                found
            }
            Self::Union(steps) => steps
                .iter()
                .flat_map(|step| step.apply(root, value))
                .collect(),
            Self::Filter(condition) => children(value)
                .into_iter()
                .filter(|item| condition.holds(root, item))
                .collect(),
        }
    }
}

impl Condition {
    fn holds(&self, root: &Value, item: &Value) -> bool {
        let left = self.left.find(root, item);
        let Some((comparison, right)) = &self.right else {
            return !left.is_empty();
        };
        let right = right.find(root, item);
        let (Some(left), Some(right)) = (left.first(), right.first()) else {
            return false;
        };
        comparison.holds(left, right)
    }
}

impl Operand {
    fn find<'a>(&'a self, root: &'a Value, item: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Path(path) => path.find(root, item),
            Self::Literal(value) => vec![value],
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> bool {
        let order = match (left, right) {
            (Value::Number(left), Value::Number(right)) => left
                .as_f64()
                .zip(right.as_f64())
                .and_then(|(left, right)| left.partial_cmp(&right)),
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            (left, right) if left == right => Some(Ordering::Equal),
            _ => None,
        };
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::NotEqual => order != Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => order.is_some_and(Ordering::is_le),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// A place in a list; negative numbers count from its end.
fn place(index: i64, length: usize) -> Option<usize> {
    if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

fn slice(value: &Value, from: Option<i64>, to: Option<i64>, every: Option<i64>) -> Vec<&Value> {
    let Some(list) = value.as_array() else {
        return Vec::new();
    };
    let end = |index: i64| place(index, list.len()).unwrap_or(0).min(list.len());
    let (from, to) = (from.map_or(0, end), to.map_or(list.len(), end));
    let every = every
        .and_then(|every| usize::try_from(every).ok())
        .filter(|&every| every > 0)
        .unwrap_or(1);
    list.get(from..to)
        .unwrap_or_default()
        .iter()
        .step_by(every)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[track_caller]
    fn check(template: &str, expected: &str) {
        let value = json!([
            {"id": 12, "status": {"state": "ready", "external-identifiers": {"pod-name": "shop/cli"}}, "a.b": true},
            {"id": 34, "status": {"state": "not-ready", "external-identifiers": {"pod-name": "shop/web"}}},
            {"id": 56, "status": {"state": "ready", "log": []}},
        ]);
        let path: JsonPath = template.parse().unwrap();
        assert_eq!(path.render(&value), expected, "{template}");
    }

    #[test]
    fn what_people_type_works() {
        check("{[0].status.state}", "ready");
        check("{[*].id}", "12 34 56");
        check("{.items[*].id}", "12 34 56");
        check("{$.items[1].id}", "34");
        check("{[-1].id}", "56");
        check("{[0:2].id}", "12 34");
        check("{[::2].id}", "12 56");
        check("{[0,2].id}", "12 56");
        check("{..pod-name}", "shop/cli shop/web");
        check("{[?(@.status.state=='ready')].id}", "12 56");
        check("{[?(@.id>12)].id}", "34 56");
        check("{[?(@.status.log)].id}", "56");
        check("{[?(@.id != 34)]['id']}", "12 56");
        check("{[0]['a.b']}", "true");
        check("{[0].a\\.b}", "true");
        check("{[0].status.external-identifiers.pod-name}", "shop/cli");
        check("{[2].status.log}", "[]");
        check("{[9].id}{[0].nothing.there}", "");
    }

    #[test]
    fn text_and_ranges_make_lines() {
        check("ids: {[*].id}!", "ids: 12 34 56!");
        check(
            "{range [*]}{.id}{\"\\t\"}{.status.state}{\"\\n\"}{end}",
            "12\tready\n34\tnot-ready\n56\tready\n",
        );
        check(
            "{range .items[?(@.id==12)]}{.status.state} {$[1].id}{end}",
            "ready 34",
        );
    }

    #[test]
    fn braces_may_be_left_out() {
        check(".items[0].id", "12");
        check("[0].id", "12");
    }

    #[test]
    fn what_is_not_understood_says_where() {
        for (template, place) in [("{[0}", 3), ("{.a", 3), ("{[?(@.a=)]}", 7), ("{end}", 1)] {
            let error = template.parse::<JsonPath>().unwrap_err();
            assert_eq!(error.place, place, "{template}: {error}");
        }
        for template in [
            "{",
            "{range [*]}",
            "{[x]}",
            "{['a]}",
            "{[1:2:3:4]}",
            "{[?(@.a~1)]}",
        ] {
            assert!(template.parse::<JsonPath>().is_err(), "{template}");
        }
    }

    proptest! {
        #[test]
        fn no_template_stops_it(template in "[\\[\\]{}.$@?()*:,'\"=<>!a-c0-2 \\\\-]{0,40}") {
            if let Ok(path) = template.parse::<JsonPath>() {
                let _ = path.render(&json!([{"a": [1, 2], "b": {"c": "x"}}]));
            }
        }
    }
}
