// SPDX-License-Identifier: Apache-2.0
//! Where the API server is, and as whom it is asked.
//!
//! Without kube-proxy, the service address that a pod finds in its environment leads nowhere until the
//! agent has made it work. So the agent of a node is given the server's own address, and takes only
//! the token and the certificate from its service account.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Config;
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};

use crate::SourceError;

/// Where the API server is, and as whom it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiAccess {
    /// A kubeconfig file; absent: what `KUBECONFIG` names, or else the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Address of the server, such as `https://10.0.0.1:6443`; absent: what the others say.
    pub server: Option<String>,
}

/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Somebody else must not be kept waiting for a server that is gone.
const CONNECT: Duration = Duration::from_secs(10);
/// The server sends a bookmark on every watch about once a minute. Where it is silent for longer than
/// this, the connection is dead, though nobody has said so.
const SILENCE: Duration = Duration::from_secs(150);

impl ApiAccess {
    pub(super) async fn config(&self) -> Result<Config, SourceError> {
        let failed = |source| SourceError::Kubeconfig {
            source: Box::new(source),
        };
        let file = match &self.kubeconfig {
            Some(path) => Some(Kubeconfig::read_from(path).map_err(failed)?),
            None => Kubeconfig::from_env().map_err(failed)?,
        };
        let account = Path::new(ACCOUNT);
        let mut config = match (file, &self.server) {
            (Some(file), _) => from_kubeconfig(file).await?,
            (None, _) if !account.join("token").exists() => return Err(SourceError::NoAccess),
            (None, Some(_)) => {
                let mut config = from_kubeconfig(of_account(account)).await?;
                // Certificates of authorities are replaced while the agent runs.
                config.root_cert_file = Some(account.join("ca.crt"));
                config
            }
            (None, None) => Config::incluster_env().map_err(|source| SourceError::Account {
                source: Box::new(source),
            })?,
        };
        if let Some(server) = &self.server {
            config.cluster_url = address(server)?;
        }
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        Ok(config)
    }
}

async fn from_kubeconfig(file: Kubeconfig) -> Result<Config, SourceError> {
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|source| SourceError::Kubeconfig {
            source: Box::new(source),
        })
}

/// The service account in the form of a kubeconfig file.
fn of_account(directory: &Path) -> Kubeconfig {
    let path = |name: &str| Some(directory.join(name).to_string_lossy().into_owned());
    let name = "account".to_owned();
    Kubeconfig {
        clusters: vec![NamedCluster {
            name: name.clone(),
            cluster: Some(Cluster {
                // Replaced by the address that was given.
                server: Some("https://kubernetes.default.svc".to_owned()),
                certificate_authority: path("ca.crt"),
                ..Cluster::default()
            }),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: name.clone(),
            auth_info: Some(AuthInfo {
                token_file: path("token"),
                ..AuthInfo::default()
            }),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: name.clone(),
            context: Some(Context {
                cluster: name.clone(),
                user: Some(name.clone()),
                ..Context::default()
            }),
            ..NamedContext::default()
        }],
        current_context: Some(name),
        ..Kubeconfig::default()
    }
}

/// `https` unless it says something else.
fn address(text: &str) -> Result<http::Uri, SourceError> {
    let text = text.trim();
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("https://{text}")
    };
    let problem = || SourceError::Server {
        text: text.chars().take(80).collect(),
    };
    let uri: http::Uri = whole.parse().map_err(|_| problem())?;
    let known = matches!(uri.scheme_str(), Some("https" | "http"));
    if known && uri.host().is_some_and(|host| !host.is_empty()) {
        Ok(uri)
    } else {
        Err(problem())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers() {
        for (text, expected) in [
            ("https://10.0.0.1:6443", Some("https://10.0.0.1:6443/")),
            ("10.0.0.1:6443", Some("https://10.0.0.1:6443/")),
            ("[fd00::1]:6443", Some("https://[fd00::1]:6443/")),
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080/")),
            ("k8s.example", Some("https://k8s.example/")),
            ("", None),
            ("ftp://a", None),
            ("https://", None),
            ("https://a b", None),
        ] {
            let found = address(text).ok().map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    fn config(access: &ApiAccess) -> Result<Config, SourceError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(access.config())
    }

    #[test]
    fn the_given_address_stands_above_the_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config");
        std::fs::write(
            &path,
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n\
             contexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a, user: {token: t}}]\n",
        )
        .unwrap();
        let mut access = ApiAccess {
            kubeconfig: Some(path),
            server: None,
        };
        let url = |access: &ApiAccess| config(access).unwrap().cluster_url.to_string();
        assert_eq!(url(&access), "http://127.0.0.1:1/");
        access.server = Some("10.0.0.1:6443".to_owned());
        assert_eq!(url(&access), "https://10.0.0.1:6443/");
        access.kubeconfig = Some(home.path().join("missing"));
        assert!(matches!(
            config(&access),
            Err(SourceError::Kubeconfig { .. })
        ));
    }

    #[test]
    fn a_service_account_is_read_from_its_files() {
        let account = of_account(Path::new("/x"));
        let cluster = account.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.certificate_authority.as_deref(), Some("/x/ca.crt"));
        let user = account.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(user.token_file.as_deref(), Some("/x/token"));
    }
}
