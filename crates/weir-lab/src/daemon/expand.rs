// SPDX-License-Identifier: Apache-2.0
//! Workload controllers in their simplest form: the pods that Deployments, `ReplicaSets`, `StatefulSets` and `DaemonSets`
//! stand for, named `NAME-0`, `NAME-1` and so on.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::{Value, json};

use crate::object::{Key, Object};

const MADE_FROM: &str = "lab.weir.dev/made-from";
const TEMPLATE: &str = "lab.weir.dev/template";

/// What has to happen for the pods to be as the controllers say.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Expansion {
    pub(crate) create: Vec<Object>,
    pub(crate) delete: Vec<Key>,
}

/// Compares controllers with pods. A controller whose pods came with the objects (a dump of a real cluster) is left
/// alone.
pub(crate) fn expand(objects: &BTreeMap<Key, Object>, nodes: &[String]) -> Expansion {
    let mut wanted: BTreeMap<Key, Object> = BTreeMap::new();
    let kinds = ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"];
    for object in kinds.into_iter().flat_map(|kind| of_kind(objects, kind)) {
        if has_foreign_pods(objects, object) {
            continue;
        }
        let count = object
            .get("/spec/replicas")
            .and_then(Value::as_u64)
            .unwrap_or(1);
        let places: Vec<Option<&String>> = match object.kind() {
            "DaemonSet" => nodes.iter().map(Some).collect(),
            _ => (0..count).map(|_| None).collect(),
        };
        for (number, node) in places.into_iter().enumerate() {
            if let Some(pod) = pod_of(object, number, node) {
                wanted.insert(pod.key(), pod);
            }
        }
    }
    let mut expansion = Expansion::default();
    for pod in of_kind(objects, "Pod") {
        let key = pod.key();
        let made = pod.annotation(MADE_FROM).is_some();
        let template = wanted
            .get(&key)
            .and_then(|wanted| wanted.annotation(TEMPLATE));
        if made && template != pod.annotation(TEMPLATE) {
            expansion.delete.push(key);
        }
    }
    expansion.create = wanted
        .into_iter()
        .filter(|(key, _)| !objects.contains_key(key) || expansion.delete.contains(key))
        .map(|(_, pod)| pod)
        .collect();
    expansion
}

fn pod_of(owner: &Object, number: usize, node: Option<&String>) -> Option<Object> {
    let template = owner.get("/spec/template")?;
    let mut metadata = template["metadata"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let mut annotations = template["metadata"]["annotations"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    template.to_string().hash(&mut hasher);
    annotations.insert(
        MADE_FROM.to_owned(),
        json!(format!("{}/{}", owner.kind(), owner.name())),
    );
    annotations.insert(
        TEMPLATE.to_owned(),
        json!(format!("{:016x}", hasher.finish())),
    );
    metadata.insert("annotations".to_owned(), annotations.into());
    metadata.insert(
        "name".to_owned(),
        json!(format!("{}-{number}", owner.name())),
    );
    metadata.insert("namespace".to_owned(), json!(owner.namespace()));
    metadata.insert(
        "ownerReferences".to_owned(),
        json!([{
            "apiVersion": owner.text("/apiVersion"),
            "kind": owner.kind(),
            "name": owner.name(),
            "uid": owner.text("/metadata/uid").unwrap_or_default(),
            "controller": true,
        }]),
    );
    let mut spec = template["spec"].clone();
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    Object::new(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})).ok()
}

/// Whether pods (or, for a Deployment, `ReplicaSets`) that the lab did not make belong to a controller.
fn has_foreign_pods(objects: &BTreeMap<Key, Object>, owner: &Object) -> bool {
    ["Pod", "ReplicaSet"]
        .into_iter()
        .flat_map(|kind| of_kind(objects, kind))
        .any(|object| {
            object.namespace() == owner.namespace()
                && object.annotation(MADE_FROM).is_none()
                && object
                    .list("/metadata/ownerReferences")
                    .iter()
                    .any(|reference| {
                        reference["kind"] == owner.kind() && reference["name"] == owner.name()
                    })
        })
}

fn of_kind<'a>(
    objects: &'a BTreeMap<Key, Object>,
    kind: &'a str,
) -> impl Iterator<Item = &'a Object> {
    objects
        .range(Key::new(kind, "", "")..)
        .take_while(move |(key, _)| key.kind == kind)
        .map(|(_, object)| object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(text: &str) -> BTreeMap<Key, Object> {
        Object::parse_all(text)
            .unwrap()
            .into_iter()
            .map(|object| (object.key(), object))
            .collect()
    }

    fn names(expansion: &Expansion) -> (Vec<String>, Vec<String>) {
        (
            expansion
                .create
                .iter()
                .map(|pod| pod.key().to_string())
                .collect(),
            expansion.delete.iter().map(ToString::to_string).collect(),
        )
    }

    const WEB: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\n\
        spec: {replicas: 2, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c}]}}}\n";

    #[test]
    fn replicas_come_and_go() {
        let mut objects = store(WEB);
        let first = expand(&objects, &[]);
        assert_eq!(names(&first).0, ["Pod shop/web-0", "Pod shop/web-1"]);
        assert_eq!(first.create[0].labels()["app"], "web");
        objects.extend(first.create.into_iter().map(|pod| (pod.key(), pod)));
        assert_eq!(expand(&objects, &[]), Expansion::default());
        objects.extend(store(&WEB.replace("replicas: 2", "replicas: 1")));
        assert_eq!(
            names(&expand(&objects, &[])),
            (vec![], vec!["Pod shop/web-1".to_owned()])
        );
        objects.extend(store(&WEB.replace("app: web", "app: new")));
        assert_eq!(names(&expand(&objects, &[])).1.len(), 2);
        assert_eq!(names(&expand(&objects, &[])).0.len(), 2);
    }

    #[test]
    fn daemon_sets_have_a_pod_on_every_node() {
        let objects = store(&WEB.replace("Deployment", "DaemonSet"));
        let expansion = expand(
            &objects,
            &["n1".to_owned(), "n2".to_owned(), "n3".to_owned()],
        );
        assert_eq!(expansion.create.len(), 3);
        assert_eq!(expansion.create[2].text("/spec/nodeName"), Some("n3"));
    }

    #[test]
    fn dumped_pods_are_not_doubled() {
        let dump = format!(
            "{WEB}---\napiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {{name: web-5d, namespace: shop, ownerReferences: [{{kind: Deployment, name: web}}]}}\nspec: {{replicas: 1, template: {{spec: {{}}}}}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: web-5d-x, namespace: shop, ownerReferences: [{{kind: ReplicaSet, name: web-5d}}]}}\n"
        );
        assert_eq!(expand(&store(&dump), &[]), Expansion::default());
    }
}
