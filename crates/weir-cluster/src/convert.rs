// SPDX-License-Identifier: Apache-2.0
//! From raw values over Kubernetes' types to the model's proven ones.

mod endpoint_slice;
mod logging;
mod node;
mod node_pods;
mod pod;
mod policy;
mod service;

use std::fmt::Display;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::DeserializeOwned;
use serde_json::Value;
use weir_abi::Protocol;
use weir_model::logging::{LOG_DENIED, is_yes};
use weir_model::{Labels, Namespace, Uid};

pub(crate) use self::node_pods::Entry;
use crate::object::Object;

/// What a raw object turned out to be.
#[derive(Debug)]
pub(crate) enum Converted {
    Object(Object),
    /// What is put in the place of an object that is refused, where leaving it out would open
    /// something.
    Instead(Object, FieldProblem),
    /// A pod that has ended: its addresses belong to nobody.
    Ended,
    /// A slice with a label that says: nobody balances over its endpoints.
    Unbalanced,
    /// A kind that the world does not hold.
    Skipped(String),
}

/// A field that cannot be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldProblem {
    pub(crate) field: String,
    pub(crate) message: String,
}

fn wrong(field: impl Into<String>, message: impl Display) -> FieldProblem {
    FieldProblem {
        field: field.into(),
        message: message.to_string(),
    }
}

/// `Pod shop/web`, as far as the raw value says.
pub(crate) fn describe(raw: &Value) -> String {
    let text = |pointer: &str| {
        raw.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let kind = if text("/kind").is_empty() {
        "object"
    } else {
        text("/kind")
    };
    let name: String = text("/metadata/name").chars().take(64).collect();
    match text("/metadata/namespace") {
        "" => format!("{kind} {name}"),
        namespace => format!(
            "{kind} {}/{name}",
            namespace.chars().take(64).collect::<String>()
        ),
    }
}

/// Converts and proves one object.
pub(crate) fn convert(mut raw: Value) -> Result<Converted, FieldProblem> {
    forget_conditions(&mut raw);
    let text = |field: &str| {
        raw.get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    match (version.as_str(), kind.as_str()) {
        ("v1", "Node") => node::node(typed(raw)?).map(Converted::Object),
        ("v1", "Namespace") => namespace(&typed(raw)?).map(Converted::Object),
        ("v1", "Pod") => pod::pod(typed(raw)?),
        ("networking.k8s.io/v1", "NetworkPolicy") => policy::policy(&raw),
        ("networking.gke.io/v1alpha1", "NetworkLogging") => {
            logging::logging(typed(raw)?).map(Converted::Object)
        }
        ("weir.dev/v1alpha1", "NodePods") => {
            node_pods::node_pods(&typed(raw)?).map(Converted::Object)
        }
        ("v1", "Service") => service::service(typed(raw)?).map(Converted::Object),
        ("discovery.k8s.io/v1", "EndpointSlice") => endpoint_slice::endpoint_slice(typed(raw)?),
        ("", _) => Err(wrong("apiVersion", "missing")),
        (_, "") => Err(wrong("kind", "missing")),
        _ => Ok(Converted::Skipped(kind)),
    }
}

/// Nothing here reads them, and the API server takes in conditions without the time that
/// Kubernetes' own types ask for: such a one must not have the whole object refused.
fn forget_conditions(raw: &mut Value) {
    if let Some(status) = raw.get_mut("status").and_then(Value::as_object_mut) {
        status.remove("conditions");
    }
}

fn typed<T: DeserializeOwned>(raw: Value) -> Result<T, FieldProblem> {
    serde_path_to_error::deserialize(raw).map_err(|error| {
        let field = error.path().to_string();
        let field = if field == "." { String::new() } else { field };
        FieldProblem {
            field,
            message: error.into_inner().to_string(),
        }
    })
}

fn labels(metadata: &ObjectMeta) -> Result<Labels, FieldProblem> {
    Labels::new(metadata.labels.clone().unwrap_or_default())
        .map_err(|error| wrong("metadata.labels", error))
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// One that cannot be used is as good as none: nothing is ever found by it.
fn uid(metadata: &ObjectMeta) -> Option<Uid> {
    Uid::new(metadata.uid.as_deref()?).ok()
}

fn seconds(time: Option<&Time>) -> i64 {
    time.map_or(0, |time| time.0.as_second())
}

/// A wrong text as messages repeat it.
fn quoted(text: &str) -> String {
    format!("`{}`", text.chars().take(64).collect::<String>())
}

fn address(field: &str, text: &str) -> Result<IpAddr, FieldProblem> {
    unicast(field, text, "a pod or node")
}

/// An address that packets can be sent to.
fn unicast(field: &str, text: &str, owner: &str) -> Result<IpAddr, FieldProblem> {
    let ip = unmapped(field, text)?;
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        let message = format!("{} cannot be the address of {owner}", quoted(text));
        return Err(wrong(field, message));
    }
    Ok(ip)
}

fn unmapped(field: &str, text: &str) -> Result<IpAddr, FieldProblem> {
    let problem = |message| wrong(field, format!("{} {message}", quoted(text)));
    let ip: IpAddr = text.parse().map_err(|_| problem("is not an IP address"))?;
    match ip {
        // It would be taken for the IPv4 one in every map.
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(problem("cannot be used: write the IPv4 address"))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(ip),
    }
}

fn port_number(field: &str, number: i32) -> Result<u16, FieldProblem> {
    u16::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| wrong(field, format!("{number} is not a port")))
}

fn protocol(field: &str, text: Option<&str>) -> Result<Protocol, FieldProblem> {
    match text {
        None | Some("TCP" | "") => Ok(Protocol::TCP),
        Some("UDP") => Ok(Protocol::UDP),
        Some("SCTP") => Ok(Protocol::SCTP),
        Some(other) => Err(wrong(
            field,
            format!("{} is not TCP, UDP or SCTP", quoted(other)),
        )),
    }
}

fn namespace(namespace: &core::Namespace) -> Result<Object, FieldProblem> {
    let name =
        Namespace::new(name(&namespace.metadata)).map_err(|error| wrong("metadata.name", error))?;
    let labels = labels(&namespace.metadata)?;
    let annotations = namespace.metadata.annotations.iter().flatten();
    let logged = annotations
        .clone()
        .any(|(key, value)| key == LOG_DENIED && is_yes(value));
    Ok(Object::Namespace(name, labels, logged))
}

#[cfg(test)]
mod tests;
