// SPDX-License-Identifier: Apache-2.0
//! YAML as people write it: taken apart, refused, and written again.

use super::*;

fn keys(text: &str) -> Vec<String> {
    Object::parse_all(text)
        .unwrap()
        .iter()
        .map(|object| object.key().to_string())
        .collect()
}

fn check_error(text: &str, expected: &str) {
    let error = format!("{:#}", Object::parse_all(text).unwrap_err());
    assert!(error.contains(expected), "{error}");
}

#[test]
fn documents_and_lists_are_taken_apart() {
    assert_eq!(
        keys(
            "---\n# nothing\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n1, namespace: x}\n"
        ),
        ["Pod default/a", "Node n1"]
    );
    assert_eq!(
        keys(
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: shop}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}"
        ),
        ["Pod shop/a", "Namespace shop"]
    );
    assert_eq!(
        keys(r#"{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"b"}}]}"#),
        ["Pod default/b"]
    );
    assert_eq!(keys(""), Vec::<String>::new());
}

#[test]
fn mistakes_are_named() {
    check_error("apiVersion: v1\nkind: Pod\n", "metadata.name");
    check_error("apiVersion: v1\nmetadata: {name: a}\n", "no kind");
    check_error("kind: Pod\nmetadata: {name: a}\n", "apiVersion");
    check_error(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: A_b}\n",
        "not a DNS name",
    );
    check_error(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: a.b}\n",
        "namespace",
    );
    let long = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\n",
        "a".repeat(300)
    );
    check_error(&long, "longer than 253");
    check_error("kind: [", "");
}

#[test]
fn words_that_yaml_takes_for_something_else_survive() {
    let words = [
        "y",
        "n",
        "on",
        "No",
        "true",
        "null",
        "~",
        "1",
        "0x1f",
        "1e3",
        "1_000",
        ".5",
        "12:30",
        "2026-01-01",
        "",
        " x",
        "a: b",
        "#c",
        "- d",
        "é\n",
    ];
    for word in words {
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": word}}
        });
        let object = Object::new(text).unwrap();
        let again = Object::parse_all(&serde_saphyr::to_string(object.value()).unwrap()).unwrap();
        assert_eq!(
            again.first().unwrap().text("/metadata/labels/x"),
            Some(word),
            "{word:?}"
        );
    }
    check_error(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {x: true}}\n",
        "quote it",
    );
    assert_eq!(
        keys("apiVersion: v1\nkind: Pod\nmetadata: {name: y, namespace: no, labels: {x: on}}\n"),
        ["Pod no/y"]
    );
}
