// SPDX-License-Identifier: Apache-2.0
//! `NetworkLogging` (`networking.gke.io/v1alpha1`): which decisions of policies are logged.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use weir_model::{LogScope, NetworkLogging};

use super::{FieldProblem, name, quoted, wrong};
use crate::object::Object;

/// The one name that counts.
const NAME: &str = "default";

#[derive(Debug, Deserialize)]
pub(super) struct Raw {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

/// Further fields (those of node policies) are somebody else's.
#[derive(Debug, Default, Deserialize)]
struct Spec {
    #[serde(default)]
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
struct Cluster {
    #[serde(default)]
    allow: Action,
    #[serde(default)]
    deny: Action,
}

#[derive(Debug, Default, Deserialize)]
struct Action {
    #[serde(default)]
    log: bool,
    #[serde(default)]
    delegate: bool,
}

pub(super) fn logging(raw: Raw) -> Result<Object, FieldProblem> {
    let found = name(&raw.metadata);
    if found != NAME {
        let message = format!(
            "{} is not used: only the one called `{NAME}` counts",
            quoted(found)
        );
        return Err(wrong("metadata.name", message));
    }
    let scope = |action: Action, field: &str| {
        LogScope::new(action.log, action.delegate).ok_or_else(|| {
            wrong(
                format!("spec.cluster.{field}.delegate"),
                "nothing can be delegated while `log` is false",
            )
        })
    };
    Ok(Object::NetworkLogging(NetworkLogging {
        allow: scope(raw.spec.cluster.allow, "allow")?,
        deny: scope(raw.spec.cluster.deny, "deny")?,
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::convert::{Converted, convert};

    fn object(name: &str, spec: &Value) -> Value {
        json!({"apiVersion": "networking.gke.io/v1alpha1", "kind": "NetworkLogging",
               "metadata": {"name": name}, "spec": spec})
    }

    #[test]
    fn the_table_of_scopes() {
        use LogScope::{Delegated, Everything, Nothing};
        let check = |spec: Value, expected: Result<(LogScope, LogScope), &str>| {
            let found = match convert(object("default", &spec)) {
                Ok(Converted::Object(Object::NetworkLogging(found))) => {
                    Ok((found.allow, found.deny))
                }
                Ok(other) => panic!("{other:?}"),
                Err(problem) => Err(problem.field),
            };
            assert_eq!(found, expected.map_err(ToOwned::to_owned), "{spec}");
        };
        let cluster =
            |allow: Value, deny: Value| json!({"cluster": {"allow": allow, "deny": deny}});
        let action = |log: bool, delegate: bool| json!({"log": log, "delegate": delegate});
        check(json!({}), Ok((Nothing, Nothing)));
        check(
            json!({"cluster": {"deny": {"log": true}}}),
            Ok((Nothing, Everything)),
        );
        check(
            cluster(action(false, false), action(true, true)),
            Ok((Nothing, Delegated)),
        );
        check(
            cluster(action(true, true), action(true, false)),
            Ok((Delegated, Everything)),
        );
        check(
            cluster(action(true, false), action(false, false)),
            Ok((Everything, Nothing)),
        );
        check(
            cluster(action(false, true), action(true, false)),
            Err("spec.cluster.allow.delegate"),
        );
        check(
            cluster(action(true, false), action(false, true)),
            Err("spec.cluster.deny.delegate"),
        );
        check(
            json!({"cluster": {"deny": {"log": "yes"}}}),
            Err("spec.cluster.deny.log"),
        );
    }

    #[test]
    fn another_name_is_not_used() {
        let problem = convert(object("mine", &json!({}))).unwrap_err();
        assert_eq!(problem.field, "metadata.name");
    }
}
