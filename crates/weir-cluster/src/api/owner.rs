// SPDX-License-Identifier: Apache-2.0
//! Is the agent that is being stopped to come back?
//!
//! Both a restart and the end of Weir on a cluster look like SIGTERM from inside. What differs is
//! the DaemonSet: the controller ends its pods one by one to start them again, and ends them all
//! when it is gone itself.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use kube::api::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Error};
use tokio::runtime::Builder;
use weir_model::{InvalidName, Namespace, PodName};

use super::ApiAccess;

/// A DaemonSet: `kube-system/cilium`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSetRef {
    namespace: Namespace,
    /// The same rules hold as for pods.
    name: PodName,
}

impl FromStr for DaemonSetRef {
    type Err = InvalidDaemonSet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').ok_or(InvalidDaemonSet::Form)?;
        Ok(Self {
            namespace: namespace.parse()?,
            name: name.parse()?,
        })
    }
}

impl fmt::Display for DaemonSetRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Why a text is no DaemonSet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDaemonSet {
    #[error("write it as NAMESPACE/NAME")]
    Form,
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// What becomes of the agents of a DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The DaemonSet is there: a pod that ends is made anew.
    Stays,
    /// It is gone or going, or its agents have no rights any more.
    Gone,
    /// Nobody could say.
    Unknown,
}

impl ApiAccess {
    /// Asks once, and waits no longer than `patience`: whoever asks is being stopped.
    pub fn fate(&self, of: &DaemonSetRef, patience: Duration) -> Fate {
        let Ok(runtime) = Builder::new_current_thread().enable_all().build() else {
            return Fate::Unknown;
        };
        let fate = runtime.block_on(async {
            tokio::time::timeout(patience, self.ask(of))
                .await
                .unwrap_or(Fate::Unknown)
        });
        // A look-up of a name may still be under way.
        runtime.shutdown_background();
        fate
    }

    async fn ask(&self, of: &DaemonSetRef) -> Fate {
        let Ok(config) = self.config().await else {
            return Fate::Unknown;
        };
        let Ok(client) = Client::try_from(config) else {
            return Fate::Unknown;
        };
        let kind = GroupVersionKind::gvk("apps", "v1", "DaemonSet");
        let resource = ApiResource::from_gvk_with_plural(&kind, "daemonsets");
        let sets: Api<DynamicObject> =
            Api::namespaced_with(client, of.namespace.as_str(), &resource);
        match sets.get_metadata(of.name.as_str()).await {
            Ok(set) if set.metadata.deletion_timestamp.is_none() => Fate::Stays,
            Ok(_) => Fate::Gone,
            // Who takes Weir off a cluster takes the account and its rights away in the same breath.
            Err(Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => Fate::Gone,
            Err(_) => Fate::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::thread;

    /// Asks a server that answers once.
    fn fate(code: u16, body: &'static str) -> (Fate, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut input = BufReader::new(stream.try_clone().unwrap());
            let mut request = String::new();
            input.read_line(&mut request).unwrap();
            let mut line = String::new();
            while input.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .unwrap();
            request
        });
        let fate = access(&address.to_string()).fate(&set(), Duration::from_secs(20));
        (fate, server.join().unwrap())
    }

    fn set() -> DaemonSetRef {
        "kube-system/cilium".parse().unwrap()
    }

    fn access(address: &str) -> ApiAccess {
        let (mut file, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
        write!(
            file,
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{{name: a, cluster: {{server: 'http://{address}'}}}}]\n\
             contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nusers: [{{name: a, user: {{}}}}]\n"
        )
        .unwrap();
        ApiAccess {
            kubeconfig: Some(path),
            server: None,
        }
    }

    #[test]
    fn the_daemon_set_tells() {
        const THERE: &str = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"cilium"}}"#;
        const GOING: &str = r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"cilium","deletionTimestamp":"2026-01-01T00:00:00Z"}}"#;
        const REFUSED: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":403,"message":"no","reason":"Forbidden"}"#;
        const MISSING: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":404,"message":"no","reason":"NotFound"}"#;
        const BUSY: &str = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":500,"message":"no","reason":"InternalError"}"#;
        for (code, body, expected) in [
            (200, THERE, Fate::Stays),
            (200, GOING, Fate::Gone),
            (404, MISSING, Fate::Gone),
            (403, REFUSED, Fate::Gone),
            (500, BUSY, Fate::Unknown),
        ] {
            let (fate, request) = fate(code, body);
            assert_eq!(fate, expected, "{body}");
            assert!(
                request.starts_with("GET /apis/apps/v1/namespaces/kube-system/daemonsets/cilium"),
                "{request}"
            );
        }
    }

    #[test]
    fn without_a_server_nobody_can_say() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Connected to, and never answered.
        let address = listener.local_addr().unwrap().to_string();
        let fate = access(&address).fate(&set(), Duration::from_millis(50));
        assert_eq!(fate, Fate::Unknown);
        drop(listener);
        let fate = access(&address).fate(&set(), Duration::from_secs(20));
        assert_eq!(fate, Fate::Unknown);
    }

    #[test]
    fn names_of_daemon_sets() {
        assert_eq!(set().to_string(), "kube-system/cilium");
        for text in ["cilium", "/cilium", "kube-system/", "Kube/x", "a/b/c"] {
            assert!(text.parse::<DaemonSetRef>().is_err(), "{text}");
        }
    }
}
