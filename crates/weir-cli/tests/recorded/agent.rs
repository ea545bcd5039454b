// SPDX-License-Identifier: Apache-2.0
//! A socket that gives recorded answers, so that what is printed does not depend on a node.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde::Serialize;
use tempfile::TempDir;

/// Answers by `METHOD path`: status and body.
pub(crate) type Answers = BTreeMap<String, (u16, String)>;

pub(crate) struct Agent {
    folder: TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    pub(crate) fn start(answers: Answers) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("weir.sock")).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // The thread ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &answers, &seen);
            }
        });
        Self { folder, requests }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("weir.sock")
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// A command that asks this agent.
    pub(crate) fn command(&self, words: &str) -> std::process::Command {
        let mut command = command(env!("CARGO_BIN_EXE_weir"));
        command
            .args(split(words))
            .env("WEIR_SOCK", self.socket())
            .stdin(Stdio::null());
        command
    }

    /// What a command prints and how it ends, as one text.
    pub(crate) fn transcript(&self, words: &str) -> String {
        let output = self.command(words).output().unwrap();
        transcript(words, &output, &self.socket())
    }
}

pub(crate) fn transcript(words: &str, output: &Output, socket: &std::path::Path) -> String {
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec())
            .unwrap()
            .replace(&socket.display().to_string(), "SOCKET")
    };
    let mut all = format!("$ weir {words}\n{}", text(&output.stdout));
    for line in text(&output.stderr).lines() {
        let _ = writeln!(all, "(stderr) {line}");
    }
    all + &format!("(exit status {})", output.status.code().unwrap())
}

/// A process without what the caller's environment says about colours, width and sockets.
#[expect(
    clippy::disallowed_methods,
    reason = "the binary is what these tests are about"
)]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command
        .env_clear()
        .env("COLUMNS", "100")
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Words as a shell would split them; only single quotes.
pub(crate) fn split(words: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for c in words.chars() {
        match (c, parts.last_mut()) {
            ('\'', _) => quoted = !quoted,
            (' ', _) if !quoted => parts.push(String::new()),
            (c, Some(part)) => part.push(c),
            (_, None) => {}
        }
    }
    parts
}

pub(crate) fn json(value: &impl Serialize) -> (u16, String) {
    (200, serde_json::to_string(value).unwrap())
}

pub(crate) fn lines<T: Serialize>(values: &[T]) -> (u16, String) {
    let lines: Vec<String> = values
        .iter()
        .map(|value| serde_json::to_string(value).unwrap() + "\n")
        .collect();
    (200, lines.concat())
}

fn answer(stream: UnixStream, answers: &Answers, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut request = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if request.is_empty() {
            line.trim_end_matches(" HTTP/1.1").clone_into(&mut request);
        } else if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.take(length).read_to_end(&mut Vec::new()).unwrap();
    let (status, body) = answers.get(&request).cloned().unwrap_or_else(|| {
        let problem = format!(r#"{{"error":"no recorded answer to {request}"}}"#);
        (404, problem)
    });
    seen.lock().unwrap().push(request);
    let head = format!(
        "HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // A reader that goes away early is one of the tests.
    let mut stream = stream;
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body.as_bytes()));
}
