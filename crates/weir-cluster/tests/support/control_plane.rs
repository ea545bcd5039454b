// SPDX-License-Identifier: Apache-2.0
//! A store and an API server of a test's own. No kubelet, no controllers.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, io, thread};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use weir_cluster::ApiAccess;

/// How long a server may take to start, and to answer while it does.
const PATIENCE: Duration = Duration::from_mins(3);

/// Both programs, and a way between them and the reader that can be cut.
pub(crate) struct ControlPlane {
    /// Where the server listens.
    address: &'static str,
    home: tempfile::TempDir,
    assets: PathBuf,
    store: u16,
    port: u16,
    way: Arc<Way>,
    etcd: Child,
    server: Option<Child>,
    runtime: Runtime,
}

/// Where the reader's connections go through.
#[derive(Default)]
struct Way {
    cut: Mutex<bool>,
    open: Mutex<Vec<TcpStream>>,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.kill_server();
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

impl ControlPlane {
    /// None: the programs are not there.
    pub(crate) fn start() -> Option<Self> {
        Self::start_at("127.0.0.1")
    }

    /// The same with a server that others on the network reach.
    pub(crate) fn start_at(address: &'static str) -> Option<Self> {
        let assets = PathBuf::from(env::var_os("KUBEBUILDER_ASSETS")?);
        let home = tempfile::tempdir().unwrap();
        fs::write(
            home.path().join("tokens"),
            "secret,admin,admin,\"system:masters\"\n",
        )
        .unwrap();
        let (store, peer, port) = (free_port(), free_port(), free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = start(
            home.path(),
            &assets,
            "etcd",
            &[
                format!("--data-dir={}", home.path().join("store").display()),
                format!("--listen-client-urls={}", url(store)),
                format!("--advertise-client-urls={}", url(store)),
                format!("--listen-peer-urls={}", url(peer)),
                format!("--initial-advertise-peer-urls={}", url(peer)),
                format!("--initial-cluster=default={}", url(peer)),
            ],
        );
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let way = Arc::<Way>::default();
        let mut plane = Self {
            address,
            home,
            assets,
            store,
            port,
            way,
            etcd,
            server: None,
            runtime,
        };
        plane.start_server();
        Some(plane)
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn start_server(&mut self) {
        let home = self.home.path();
        self.server = Some(start(
            home,
            &self.assets,
            "kube-apiserver",
            &[
                format!("--etcd-servers=http://127.0.0.1:{}", self.store),
                format!("--secure-port={}", self.port),
                format!("--bind-address={}", self.address),
                // It makes itself a certificate there.
                format!("--cert-dir={}", home.display()),
                format!("--token-auth-file={}", home.join("tokens").display()),
                "--authorization-mode=RBAC".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--service-account-issuer=https://test".to_owned(),
                format!(
                    "--service-account-key-file={}",
                    home.join("apiserver.key").display()
                ),
                format!(
                    "--service-account-signing-key-file={}",
                    home.join("apiserver.key").display()
                ),
            ],
        ));
        // Every part of it is there, the objects that it makes for itself too.
        self.until_answered("GET", "/readyz", &Value::Null);
        self.until_answered("GET", "/api/v1/namespaces/default", &Value::Null);
    }

    pub(crate) fn kill_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// Has the store forget every version but the last one.
    pub(crate) fn forget_versions(&self) {
        let status = self.ask_store("/v3/maintenance/status", &json!({}));
        let revision = status["header"]["revision"].as_str().unwrap().to_owned();
        let answer = self.ask_store(
            "/v3/kv/compaction",
            &json!({"revision": revision, "physical": true}),
        );
        assert!(answer["header"].is_object(), "{answer}");
    }

    fn ask_store(&self, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.store)).unwrap();
        let body = body.to_string();
        write!(
            stream,
            "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    /// For a reader, whose connections can be cut.
    pub(crate) fn access(&self) -> ApiAccess {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (way, server) = (Arc::clone(&self.way), self.port);
        thread::spawn(move || {
            for stream in listener.incoming() {
                way.lead(stream.unwrap(), server);
            }
        });
        ApiAccess {
            kubeconfig: Some(self.kubeconfig()),
            server: Some(format!("https://127.0.0.1:{port}")),
        }
    }

    pub(crate) fn hold_up_reader(&self) {
        *self.way.cut.lock().unwrap() = true;
        for stream in self.way.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn let_reader_go(&self) {
        *self.way.cut.lock().unwrap() = false;
    }

    /// Has the server know a kind; returns when it does.
    pub(crate) fn define(&self, definition: &str, path: &str) {
        let definition: Value = serde_saphyr::from_str(definition).unwrap();
        self.post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            &definition,
        );
        self.until_answered("GET", path, &Value::Null);
    }

    /// Posts many objects, or patches them, several at a time.
    pub(crate) fn send_all(&self, method: &str, objects: &[(String, Value)]) {
        let send = |client: Client, path: String, body: Vec<u8>| async move {
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header("content-type", content_type(method));
            client.request_text(request.body(body).unwrap()).await
        };
        self.runtime.block_on(async {
            let client = self.client().await.unwrap();
            for some in objects.chunks(50) {
                let sent = some.iter().map(|(path, object)| {
                    send(
                        client.clone(),
                        path.clone(),
                        object.to_string().into_bytes(),
                    )
                });
                for answer in futures::future::join_all(sent).await {
                    answer.unwrap();
                }
            }
        });
    }

    async fn client(&self) -> Result<Client, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let file = Kubeconfig::read_from(self.kubeconfig()).map_err(|error| text(&error))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        Client::try_from(config.map_err(|error| text(&error))?).map_err(|error| text(&error))
    }

    /// An object as it is.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.until_answered("GET", path, &Value::Null)
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let home = self.home.path();
        let path = home.join("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {
                "server": format!("https://{}:{}", self.address, self.port),
                "certificate-authority": home.join("apiserver.crt"),
            }}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "users": [{"name": "a", "user": {"token": "secret"}}],
        });
        fs::write(&path, text.to_string()).unwrap();
        path
    }

    pub(crate) fn post(&self, path: &str, object: &Value) -> Value {
        self.until_answered("POST", path, object)
    }

    pub(crate) fn patch(&self, path: &str, patch: &Value) {
        self.until_answered("PATCH", path, patch);
    }

    /// At once: nobody runs the pod.
    pub(crate) fn delete(&self, path: &str) {
        self.until_answered("DELETE", path, &json!({"gracePeriodSeconds": 0}));
    }

    /// Gives a pod an address, as a kubelet would.
    pub(crate) fn address(&self, pod: &str, address: &str) {
        let status = json!({"podIP": address, "podIPs": [{"ip": address}], "phase": "Running"});
        self.patch(&format!("{pod}/status"), &json!({"status": status}));
    }

    fn until_answered(&self, method: &str, path: &str, body: &Value) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ask(method, path, body) {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < deadline, "{method} {path}: {error}"),
            }
            thread::park_timeout(Duration::from_millis(200));
        }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type(method));
        self.runtime.block_on(async {
            let text = |error: &dyn std::error::Error| error.to_string();
            let client = self.client().await?;
            let request = request.body(body).map_err(|error| text(&error))?;
            let answer = client.request_text(request).await;
            let answer = answer.map_err(|error| text(&error))?;
            // `/readyz` says no more than that it is.
            Ok(serde_json::from_str(&answer).unwrap_or(Value::Null))
        })
    }
}

impl Way {
    fn lead(&self, from: TcpStream, port: u16) {
        // Held for as long as connections are added: none may slip through a cut.
        let cut = self.cut.lock().unwrap();
        let Ok(to) = TcpStream::connect(("127.0.0.1", port)) else {
            return;
        };
        if *cut {
            return;
        }
        let mut open = self.open.lock().unwrap();
        open.extend([from.try_clone().unwrap(), to.try_clone().unwrap()]);
        let pairs = [(from.try_clone(), to.try_clone()), (Ok(to), Ok(from))];
        for (from, to) in pairs {
            let (mut from, mut to) = (from.unwrap(), to.unwrap());
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}

fn content_type(method: &str) -> &'static str {
    if method == "PATCH" {
        "application/merge-patch+json"
    } else {
        "application/json"
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the servers are what the test is about"
)]
fn start(home: &Path, assets: &Path, program: &str, arguments: &[String]) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(home.join(format!("{program}.log")))
        .unwrap();
    std::process::Command::new(assets.join(program))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
