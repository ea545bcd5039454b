// SPDX-License-Identifier: Apache-2.0
//! The templates of the Helm chart, and as much of Helm as they use.

use super::settings::Settings;
use crate::error::CliError;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::str::FromStr;
use weir_model::Namespace;

/// In the order in which they are applied.
const TEMPLATES: [&str; 4] = [
    include_str!("../../../../../deploy/crds/nodepods.yaml"),
    include_str!("../../../../../deploy/helm/weir/templates/access.yaml"),
    include_str!("../../../../../deploy/helm/weir/templates/config.yaml"),
    include_str!("../../../../../deploy/helm/weir/templates/daemonset.yaml"),
];

/// What can be chosen.
pub(super) struct Values {
    pub(super) name: &'static str,
    pub(super) namespace: Namespace,
    pub(super) image: Image,
    pub(super) config: Settings,
}

impl Values {
    /// All objects, as one would write them to a file.
    pub(super) fn manifests(&self) -> Result<String, CliError> {
        let rendered: Result<Vec<String>, CliError> =
            TEMPLATES.iter().map(|text| self.render(text)).collect();
        Ok(rendered?.join("---\n"))
    }

    /// What names the objects, the last one first: agents end while they may still ask who they are.
    pub(super) fn objects(&self) -> Result<Vec<String>, CliError> {
        let mut objects = Vec::new();
        for document in self.manifests()?.split("\n---\n") {
            let object: Value =
                serde_saphyr::from_str(document).map_err(|error| CliError::yaml(&error))?;
            let mut metadata = json!({"name": object["metadata"]["name"]});
            let namespace = &object["metadata"]["namespace"];
            if !namespace.is_null() {
                metadata["namespace"] = namespace.clone();
            }
            let named = json!({
                "apiVersion": object["apiVersion"],
                "kind": object["kind"],
                "metadata": metadata,
            });
            objects.push(serde_saphyr::to_string(&named).map_err(|error| CliError::yaml(&error))?);
        }
        objects.reverse();
        Ok(objects)
    }

    /// Puts the values where Helm would put them. A template that uses more of Helm than this is found by the tests.
    fn render(&self, template: &str) -> Result<String, CliError> {
        let mut config = String::new();
        for line in self.config.yaml()?.lines() {
            let _ = write!(config, "\n    {line}");
        }
        let digest = Sha256::digest(self.config.json()?);
        let digest = digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok(template
            .replace("{{ .Values.name }}", self.name)
            .replace("{{ .Values.image }}", &self.image.0)
            .replace("{{ .Release.Namespace }}", self.namespace.as_str())
            .replace("{{ toJson .Values.config | sha256sum }}", &digest)
            // The dash takes away the line break before it.
            .replace("\n    {{- toYaml .Values.config | nindent 4 }}", &config))
    }
}

/// Name of a container image.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Image(String);

impl Default for Image {
    fn default() -> Self {
        Self("weir.dev/weir:dev".to_owned())
    }
}

impl FromStr for Image {
    type Err = String;

    /// Not what a registry would say, but nothing that could be anything else in a manifest.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
        if text.is_empty() || !text.chars().all(allowed) {
            return Err("write it as registry/name:tag".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(config: &[&str]) -> Values {
        let parsed = config.iter().map(|text| text.parse().unwrap()).collect();
        Values {
            name: "anetd",
            namespace: "net".parse().unwrap(),
            image: "a.example/weir:1@sha256:0f".parse().unwrap(),
            config: Settings::new(parsed).unwrap(),
        }
    }

    fn documents(text: &str) -> Vec<Value> {
        text.split("\n---\n")
            .map(|one| serde_saphyr::from_str(one).unwrap())
            .collect()
    }

    fn of_kind(objects: &[Value], kind: &str) -> Value {
        let mut found = objects.iter().filter(|object| object["kind"] == kind);
        let object = found.next().unwrap().clone();
        assert!(found.next().is_none(), "one {kind}");
        object
    }

    #[test]
    fn nothing_of_a_template_is_left() {
        let text = values(&["mtu=1400"]).manifests().unwrap();
        assert!(!text.contains("{{"), "{text}");
    }

    #[test]
    fn the_values_are_where_they_belong() {
        let objects = documents(&values(&["mtu=1400", "devices=eth0"]).manifests().unwrap());
        let set = of_kind(&objects, "DaemonSet");
        assert_eq!(set["metadata"]["name"], "anetd");
        assert_eq!(set["metadata"]["namespace"], "net");
        let pod = &set["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"]["k8s-app"], "cilium");
        let agent = &pod["spec"]["containers"][0];
        assert_eq!(agent["image"], "a.example/weir:1@sha256:0f");
        assert!(
            agent["args"]
                .as_array()
                .unwrap()
                .contains(&json!("--daemon-set=net/anetd"))
        );
        let config = of_kind(&objects, "ConfigMap");
        assert_eq!(config["metadata"]["name"], "weir-config");
        let file: Value =
            serde_saphyr::from_str(config["data"]["config.yaml"].as_str().unwrap()).unwrap();
        assert_eq!(file, json!({"mtu": 1400, "devices": ["eth0"]}));
    }

    #[test]
    fn everybody_is_who_the_others_say() {
        let objects = documents(&values(&[]).manifests().unwrap());
        let account = of_kind(&objects, "ServiceAccount");
        let set = of_kind(&objects, "DaemonSet");
        assert_eq!(
            set["spec"]["template"]["spec"]["serviceAccountName"],
            account["metadata"]["name"]
        );
        for (role, binding) in [
            ("Role", "RoleBinding"),
            ("ClusterRole", "ClusterRoleBinding"),
        ] {
            let (role, binding) = (of_kind(&objects, role), of_kind(&objects, binding));
            assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
            assert_eq!(binding["roleRef"]["kind"], role["kind"]);
            let subject = &binding["subjects"][0];
            assert_eq!(subject["name"], account["metadata"]["name"]);
            assert_eq!(subject["namespace"], account["metadata"]["namespace"]);
        }
        let pod = &set["spec"]["template"];
        let labels = pod["metadata"]["labels"].as_object().unwrap();
        for (label, value) in set["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(labels.get(label), Some(value));
        }
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        let mounts = pod["spec"]["containers"][0]["volumeMounts"]
            .as_array()
            .unwrap();
        let names = |list: &[Value]| {
            list.iter()
                .map(|one| one["name"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(volumes), names(mounts));
    }

    #[test]
    fn another_configuration_is_another_digest() {
        let digest = |config: &[&str]| {
            let set = of_kind(
                &documents(&values(config).manifests().unwrap()),
                "DaemonSet",
            );
            set["spec"]["template"]["metadata"]["annotations"]["weir.dev/config-digest"].clone()
        };
        assert_eq!(
            digest(&["mtu=1400", "devices=a"]),
            digest(&["devices=a", "mtu=1400"])
        );
        assert_ne!(digest(&["mtu=1400"]), digest(&["mtu=1401"]));
        // As Helm's `toJson | sha256sum` says it of {}.
        assert_eq!(
            digest(&[]),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    #[test]
    fn uninstalling_names_every_object_that_installing_makes() {
        let values = values(&["mtu=1400"]);
        let made = documents(&values.manifests().unwrap());
        let named: Vec<Value> = values
            .objects()
            .unwrap()
            .iter()
            .map(|one| serde_saphyr::from_str(one).unwrap())
            .collect();
        assert_eq!(named.len(), made.len());
        assert_eq!(named[0]["kind"], "DaemonSet");
        for (made, named) in made.iter().rev().zip(&named) {
            for field in ["apiVersion", "kind"] {
                assert_eq!(made[field], named[field]);
            }
            for field in ["name", "namespace"] {
                assert_eq!(made["metadata"][field], named["metadata"][field]);
            }
        }
    }

    #[test]
    fn the_chart_has_the_same_templates_and_defaults() {
        let chart = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/weir");
        let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
        let templates = std::fs::read_dir(chart.join("templates")).unwrap();
        let templates: Vec<String> = templates.map(|file| read(file.unwrap().path())).collect();
        assert_eq!(templates.len(), TEMPLATES.len());
        for template in templates {
            assert!(TEMPLATES.contains(&template.as_str()), "{template}");
        }
        let values: Value = serde_saphyr::from_str(&read(chart.join("values.yaml"))).unwrap();
        let image = Image::default().0;
        assert_eq!(
            values,
            json!({"name": "cilium", "image": image, "config": {}})
        );
    }

    #[test]
    fn names_of_images() {
        for text in ["weir", "weir.dev/weir:dev", "h:5000/a/b@sha256:00"] {
            assert!(text.parse::<Image>().is_ok(), "{text}");
        }
        for text in ["", "a b", "a\"", "a\nb", "{{x}}"] {
            assert!(text.parse::<Image>().is_err(), "{text}");
        }
    }
}
