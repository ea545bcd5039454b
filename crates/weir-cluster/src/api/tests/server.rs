// SPDX-License-Identifier: Apache-2.0
//! The little of an API server that watching needs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
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
    /// What is written waits.
    slow: bool,
    /// Kinds that are not there.
    unknown: Vec<&'static str>,
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
        shared.state.lock().unwrap().unknown = vec!["networkloggings"];
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

    pub(super) fn put(&self, plural: &str, object: Value) {
        self.change(|state| state.put(plural, object));
    }

    /// What clients have written, too.
    pub(super) fn objects(&self, plural: &str) -> Vec<Value> {
        let state = self.shared.state.lock().unwrap();
        let of_kind = state.objects.iter().filter(|((of, _), _)| of == plural);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    /// Kinds that have no definition (any more). Their watches end.
    pub(super) fn set_unknown(&self, kinds: &[&'static str]) {
        self.change(|state| {
            state.unknown = kinds.to_vec();
            state.epoch += 1;
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

    /// Whoever writes is not answered, and nothing is written, until this is taken back.
    pub(super) fn set_slow(&self, slow: bool) {
        self.change(|state| state.slow = slow);
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

impl State {
    fn put(&mut self, plural: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = (plural.to_owned(), name);
        let old = self.objects.insert(key, object.clone());
        let event = if old.is_some() { "MODIFIED" } else { "ADDED" };
        let event = json!({"type": event, "object": object});
        self.events.push((self.version, plural.to_owned(), event));
    }

    /// An answer to a request for, or with, one object.
    fn single(&mut self, method: &str, path: &str, body: &[u8]) -> (&'static str, Value) {
        let mut parts = path.rsplit('/');
        let (last, before) = (parts.next().unwrap(), parts.next().unwrap());
        let plural = if method == "POST" { last } else { before };
        if self.unknown.contains(&plural) {
            return ("404 Not Found", status(404, "not found"));
        }
        if method == "GET" {
            let found = self.objects.get(&(plural.to_owned(), last.to_owned()));
            let missing = || ("404 Not Found", status(404, "not found"));
            return found.map_or_else(missing, |found| ("200 OK", found.clone()));
        }
        let object: Value = serde_json::from_slice(body).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if method == "POST" && self.objects.contains_key(&(plural.to_owned(), name)) {
            return ("409 Conflict", status(409, "is there already"));
        }
        self.put(plural, object.clone());
        ("200 OK", object)
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
    let (mut line, mut length) = (String::new(), 0);
    while input.read_line(&mut line).is_ok_and(|length| length > 2) {
        let (name, value) = line.split_once(": ").unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    if input.read_exact(&mut body).is_err() {
        return;
    }
    let mut state = shared.state.lock().unwrap();
    if state.away || state.epoch != epoch {
        return;
    }
    let mut words = request.split(' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let plural = path.rsplit('/').next().unwrap_or_default();
    if method != "GET" {
        let slow = |state: &mut State| state.slow;
        state = shared.differs.wait_while(state, slow).unwrap();
    }
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
    } else if method != "GET" || path.matches('/').count() > 5 {
        let (code, object) = state.single(method, path, &body);
        shared.differs.notify_all();
        answer(stream, code, &object);
    } else if state.unknown.contains(&plural) {
        // No object, but a line of text, and the same for lists and watches.
        let text = "404 page not found\n";
        let length = text.len();
        let mut stream = stream;
        let _ = write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
        );
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
