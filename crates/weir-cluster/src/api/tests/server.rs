// SPDX-License-Identifier: Apache-2.0
//! The little of an API server that watching needs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::ApiAccess;

#[derive(Default)]
struct State {
    version: u64,
    /// Versions below are forgotten.
    oldest: u64,
    objects: BTreeMap<(String, String), Value>,
    events: Vec<(u64, String, Value)>,
    away: bool,
    /// Connections of an earlier one are to end.
    epoch: u64,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    differs: Condvar,
}

/// A server on loopback; its threads end with the process.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let accepted = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&accepted);
                thread::spawn(move || serve(&stream.unwrap(), &shared));
            }
        });
        Self { address, shared }
    }

    /// A kubeconfig file that is read once.
    pub(super) fn access(&self) -> ApiAccess {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{{name: a, cluster: {{server: 'http://{}'}}}}]\n\
             contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nusers: [{{name: a, user: {{}}}}]\n",
            self.address
        );
        let (_, path) = tempfile::NamedTempFile::new().unwrap().keep().unwrap();
        std::fs::write(&path, text).unwrap();
        ApiAccess {
            kubeconfig: Some(path),
            server: None,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.differs.notify_all();
    }

    pub(super) fn put(&self, plural: &str, mut object: Value) {
        self.change(|state| {
            state.version += 1;
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let old = state
                .objects
                .insert((plural.to_owned(), name), object.clone());
            let event = if old.is_some() { "MODIFIED" } else { "ADDED" };
            let event = json!({"type": event, "object": object});
            state.events.push((state.version, plural.to_owned(), event));
        });
    }

    pub(super) fn remove(&self, plural: &str, name: &str) {
        self.change(|state| {
            state.version += 1;
            let key = (plural.to_owned(), name.to_owned());
            let mut object = state.objects.remove(&key).unwrap();
            object["metadata"]["resourceVersion"] = json!(state.version.to_string());
            let event = json!({"type": "DELETED", "object": object});
            state.events.push((state.version, plural.to_owned(), event));
        });
    }

    /// Ends every connection.
    pub(super) fn hang_up(&self) {
        self.change(|state| state.epoch += 1);
    }

    /// From now on nobody is answered.
    pub(super) fn set_away(&self, away: bool) {
        self.change(|state| {
            state.away = away;
            state.epoch += 1;
        });
    }

    /// No watch can be taken up at a version from before.
    pub(super) fn forget(&self) {
        self.change(|state| {
            state.version += 1;
            state.oldest = state.version;
            state.events.clear();
        });
    }
}

fn serve(stream: &TcpStream, shared: &Shared) {
    let epoch = shared.state.lock().unwrap().epoch;
    let mut input = BufReader::new(stream);
    // Each connection answers once or watches; the client makes another one.
    let mut request = String::new();
    if input.read_line(&mut request).is_err() {
        return;
    }
    let mut line = String::new();
    while input.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
    let state = shared.state.lock().unwrap();
    if state.away || state.epoch != epoch {
        return;
    }
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let plural = path.rsplit('/').next().unwrap_or_default();
    let parameters: BTreeMap<&str, &str> = query
        .split('&')
        .filter_map(|one| one.split_once('='))
        .collect();
    if path == "/version" {
        let empty = [
            "major",
            "minor",
            "gitCommit",
            "gitTreeState",
            "buildDate",
            "goVersion",
            "compiler",
            "platform",
        ];
        let mut version: BTreeMap<&str, &str> = empty.map(|name| (name, "")).into();
        version.insert("gitVersion", "v9");
        answer(stream, "200 OK", &json!(version));
    } else if plural == "networkloggings" {
        answer(stream, "404 Not Found", &status(404, "not found"));
    } else if parameters.get("watch") == Some(&"true") {
        let from = parameters
            .get("resourceVersion")
            .copied()
            .unwrap_or_default();
        let (from, plural) = (from.parse().unwrap(), plural.to_owned());
        drop(state);
        watch(stream, shared, epoch, &plural, from);
    } else {
        let items = state.objects.iter().filter(|((of, _), _)| of == plural);
        let items: Vec<&Value> = items.map(|(_, object)| object).collect();
        let version = state.version.max(1).to_string();
        let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items});
        answer(stream, "200 OK", &list);
    }
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
           "message": message, "reason": "Expired"})
}

fn answer(mut stream: &TcpStream, code: &str, body: &Value) {
    let body = body.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn watch(mut stream: &TcpStream, shared: &Shared, epoch: u64, plural: &str, mut from: u64) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
    if stream.write_all(head.as_bytes()).is_err() {
        return;
    }
    let mut state = shared.state.lock().unwrap();
    while state.epoch == epoch {
        if from < state.oldest {
            let expired =
                json!({"type": "ERROR", "object": status(410, "too old resource version")});
            let _ = writeln!(stream, "{expired}");
            return;
        }
        for (version, of, event) in &state.events {
            if *version > from && of == plural && writeln!(stream, "{event}").is_err() {
                return;
            }
            from = from.max(*version);
        }
        let waited = shared.differs.wait_timeout(state, Duration::from_secs(1));
        state = waited.unwrap().0;
    }
}
