// SPDX-License-Identifier: Apache-2.0
//! The objects that rows are made of.

use serde_json::{Value, json};

/// A pod of the application `web` that answers on port 80 of every protocol.
pub(crate) fn server(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "ports": [
                {"name": "http", "containerPort": 80},
                {"name": "dgram", "containerPort": 80, "protocol": "UDP"},
                {"name": "stream", "containerPort": 80, "protocol": "SCTP"},
            ]}],
        },
    })
}

/// The service of the application `web`: port 80 of every protocol, both families.
pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": "web"},
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [
                {"name": "t", "port": 80, "targetPort": "http"},
                {"name": "u", "port": 80, "protocol": "UDP", "targetPort": "dgram"},
                {"name": "s", "port": 80, "protocol": "SCTP", "targetPort": "stream"},
            ],
        },
    })
}

/// The same of another type.
pub(crate) fn service_of(kind: &str, name: &str) -> Value {
    service(name).with("spec.type", kind)
}

/// An endpoint slice by hand.
pub(crate) fn slice(name: &str, service: &str, ports: &Value, endpoints: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    })
}

/// Objects as one manifest.
pub(crate) fn list(objects: impl IntoIterator<Item = Value>) -> String {
    let items: Vec<Value> = objects.into_iter().collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Changing an object on the way.
pub(crate) trait With {
    /// The same with another field, named by words with dots between them; numbers are places in lists.
    fn with(self, path: &str, value: impl Into<Value>) -> Self;

    /// The same with a label, annotation or whatever else has dots in its name.
    fn with_in(self, path: &str, key: &str, value: impl Into<Value>) -> Self;

    /// A pod that keeps serving for so many seconds after it was deleted.
    fn lingering(self, seconds: u32) -> Self;

    /// A pod that is not ready, although it serves.
    fn unready(self) -> Self;
}

impl With for Value {
    fn with(mut self, path: &str, value: impl Into<Self>) -> Self {
        *field(&mut self, path) = value.into();
        self
    }

    fn with_in(mut self, path: &str, key: &str, value: impl Into<Self>) -> Self {
        field(&mut self, path)[key] = value.into();
        self
    }

    fn lingering(self, seconds: u32) -> Self {
        self.with(
            "spec.containers.0.lifecycle",
            json!({"preStop": {"sleep": {"seconds": seconds}}}),
        )
        .with("spec.terminationGracePeriodSeconds", seconds + 5)
    }

    fn unready(self) -> Self {
        self.with_in("metadata.annotations", "lab.weir.dev/ready", "false")
    }
}

fn field<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.')
        .fold(value, |value, word| match word.parse::<usize>() {
            Ok(place) => {
                // One place behind the last adds to a list.
                if let Some(list) = value.as_array_mut().filter(|list| list.len() == place) {
                    list.push(Value::Null);
                }
                &mut value[place]
            }
            Err(_) => &mut value[word],
        })
}
