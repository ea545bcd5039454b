// SPDX-License-Identifier: Apache-2.0
//! What a container runtime does: it starts the plugin with variables and a configuration, and reads
//! what comes back. And the agent as a process, which can be killed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::node::Node;

/// Has this test's executable be an agent; the words of its command line, one in each line.
pub(crate) const AGENT_WORDS: &str = "WEIR_CNI_TEST_AGENT";

/// One container's interface, as its runtime knows it.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    program: PathBuf,
    container: String,
    interface: String,
    netns: String,
    args: String,
    config: Value,
}

/// What the plugin has answered.
#[derive(Debug)]
pub(crate) struct Ran {
    succeeded: bool,
    pub(crate) json: Value,
}

impl Runtime {
    pub(crate) fn new(socket: &Path, container: &str, pod: &str, netns: &str) -> Self {
        Self {
            program: env!("CARGO_BIN_EXE_weir-cni").into(),
            container: container.to_owned(),
            interface: "eth0".to_owned(),
            netns: netns.to_owned(),
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={pod};K8S_POD_UID=0"
            ),
            config: json!({
                "cniVersion": "1.1.0",
                "name": "weir",
                "type": "weir-cni",
                "socket": socket,
                "runtimeConfig": {"portMappings": []},
            }),
        }
    }

    /// With another field in the configuration.
    pub(crate) fn with(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    /// With another file of the plugin.
    pub(crate) fn program(mut self, program: &Path) -> Self {
        program.clone_into(&mut self.program);
        self
    }

    /// Another interface of the same container.
    pub(crate) fn interface(mut self, name: &str) -> Self {
        name.clone_into(&mut self.interface);
        self
    }

    /// Runs the plugin to its end.
    pub(crate) fn run(&self, command: &str) -> Ran {
        let mut plugin = start(&self.program)
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", &self.container)
            .env("CNI_IFNAME", &self.interface)
            .env("CNI_NETNS", &self.netns)
            .env("CNI_ARGS", &self.args)
            .env("CNI_PATH", "/opt/cni/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = plugin.stdin.take().unwrap();
        stdin.write_all(self.config.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = plugin.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        Ran {
            succeeded: output.status.success(),
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
        }
    }
}

impl Ran {
    /// It has succeeded.
    #[track_caller]
    pub(crate) fn fine(self) -> Self {
        assert!(self.succeeded, "{:#}", self.json);
        self
    }

    /// The code of its error object.
    pub(crate) fn code(&self) -> Option<u64> {
        assert_eq!(
            self.succeeded,
            self.json["code"].is_null(),
            "{:#}",
            self.json
        );
        self.json["code"].as_u64()
    }

    /// The message of its error object.
    pub(crate) fn message(&self) -> &str {
        self.json["msg"].as_str().unwrap_or_default()
    }
}

/// An agent of its own process, killed when it is dropped.
pub(crate) struct Agent(Child);

impl Agent {
    /// Starts it in the namespaces of the calling thread and waits until it answers.
    pub(crate) fn start(node: &Node, flags: &[&str]) -> Self {
        let own: PathBuf = std::env::current_exe().unwrap();
        let child = start(&own)
            .args(["--exact", "kernel::agent_process"])
            .env(AGENT_WORDS, node.words(flags).join("\n"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self(child);
        node.wait_for_agent();
        agent
    }

    /// As `kill -9` does it.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a plugin is a process, and only a process can be killed"
)]
fn start(program: &Path) -> Command {
    Command::new(program)
}
