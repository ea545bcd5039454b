// SPDX-License-Identifier: Apache-2.0
//! `NodePods` (`weir.dev/v1alpha1`): which addresses a node has given to its pods.
//!
//! The same shape is read and written. One wrong entry refuses the whole object, as agents alone write it:
//! what stands there is either right or not from one of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use weir_model::{Given, NodeName, NodePods, PodRef, Uid};

use super::{FieldProblem, address, name, wrong};
use crate::object::Object;

#[derive(Debug, Deserialize)]
pub(super) struct Raw {
    metadata: ObjectMeta,
    #[serde(default)]
    pods: Vec<Entry>,
}

/// One pod.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    namespace: String,
    name: String,
    uid: String,
    addresses: Vec<String>,
}

impl Entry {
    /// The entries of everything that a node announces.
    pub(crate) fn of(all: &NodePods) -> Vec<Self> {
        let entry = |(pod, given): (&PodRef, &Given)| Self {
            namespace: pod.namespace.to_string(),
            name: pod.name.to_string(),
            uid: given.uid.to_string(),
            addresses: given.addresses.iter().map(IpAddr::to_string).collect(),
        };
        all.pods.iter().map(entry).collect()
    }

    fn prove(&self, place: &str) -> Result<(PodRef, Given), FieldProblem> {
        let pod = PodRef::new(&self.namespace, &self.name).map_err(|error| wrong(place, error))?;
        let uid = Uid::new(&self.uid).map_err(|error| wrong(format!("{place}.uid"), error))?;
        let addresses = self.addresses.iter().enumerate();
        let addresses = addresses
            .map(|(index, text)| address(&format!("{place}.addresses[{index}]"), text))
            .collect::<Result<_, _>>()?;
        Ok((pod, Given { uid, addresses }))
    }
}

pub(super) fn node_pods(raw: &Raw) -> Result<Object, FieldProblem> {
    let node = NodeName::new(name(&raw.metadata)).map_err(|error| wrong("metadata.name", error))?;
    let mut pods = BTreeMap::new();
    for (index, entry) in raw.pods.iter().enumerate() {
        let place = format!("pods[{index}]");
        let (pod, given) = entry.prove(&place)?;
        if pods.contains_key(&pod) {
            return Err(wrong(place, format!("pod {pod} stands there twice")));
        }
        pods.insert(pod, given);
    }
    Ok(Object::NodePods(Arc::new(NodePods { node, pods })))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::convert::{Converted, convert};

    fn object(pods: &Value) -> Value {
        json!({"apiVersion": "weir.dev/v1alpha1", "kind": "NodePods",
               "metadata": {"name": "n1"}, "pods": pods})
    }

    fn converted(pods: &Value) -> Result<Arc<NodePods>, FieldProblem> {
        let Converted::Object(Object::NodePods(all)) = convert(object(pods))? else {
            panic!("not taken for what it is: {pods}");
        };
        Ok(all)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let pods = json!([
            {"namespace": "shop", "name": "a", "uid": "u1", "addresses": ["10.1.0.1", "fd00::1"]},
            {"namespace": "shop", "name": "b", "uid": "u2", "addresses": ["10.1.0.2"]},
        ]);
        let all = converted(&pods).unwrap();
        assert_eq!((all.node.as_str(), all.pods.len()), ("n1", 2));
        let again = serde_json::to_value(Entry::of(&all)).unwrap();
        assert_eq!(again, pods);
        assert_eq!(converted(&again).unwrap(), all);
        assert!(converted(&json!([])).unwrap().pods.is_empty());
    }

    #[test]
    fn an_entry_that_cannot_be_true_is_refused_by_its_field() {
        let entry =
            json!({"namespace": "shop", "name": "a", "uid": "u", "addresses": ["10.1.0.1"]});
        let check = |field: &str, value: Value, expected: &str| {
            let mut wrong = entry.clone();
            wrong[field] = value;
            let problem = converted(&json!([entry, wrong])).unwrap_err();
            assert_eq!(problem.field, expected, "{}", problem.message);
        };
        check("name", json!("A"), "pods[1]");
        check("namespace", json!(""), "pods[1]");
        check("uid", json!(""), "pods[1].uid");
        check(
            "addresses",
            json!(["10.1.0.1", "127.0.0.1"]),
            "pods[1].addresses[1]",
        );
        check("addresses", json!(["x"]), "pods[1].addresses[0]");
        check("uid", json!("another"), "pods[1]");
        check("addresses", json!("10.1.0.1"), "pods[1].addresses");
    }
}
