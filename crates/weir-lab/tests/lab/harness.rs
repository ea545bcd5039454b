// SPDX-License-Identifier: Apache-2.0
//! A lab for one test: goes down when it is dropped.

use std::{
    ffi::OsString,
    io::Write,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// Whether tests that make namespaces can run. Fails when they have to.
pub(crate) fn can_run() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(
        root || std::env::var_os("WEIR_REQUIRE_KERNEL").is_none(),
        "WEIR_REQUIRE_KERNEL is set, but this is not root"
    );
    root
}

/// Whether tests that need the whole program can run. Fails when they have to.
pub(crate) fn can_run_weir() -> bool {
    let program = std::env::var_os("WEIR_BIN").is_some();
    assert!(
        program || std::env::var_os("WEIR_REQUIRE_KERNEL").is_none(),
        "WEIR_REQUIRE_KERNEL is set, but WEIR_BIN is not"
    );
    can_run() && program
}

pub(crate) struct Lab {
    name: String,
    folder: TempDir,
    program: OsString,
}

impl Lab {
    /// Builds a lab; its name must be its test's own.
    pub(crate) fn up(name: &str, arguments: &[&str], manifest: &str) -> Self {
        let program = std::env::var_os("WEIR_BIN");
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_weir-lab").into());
        Self::up_by(program, name, arguments, manifest)
    }

    /// Builds a lab of another program than the one that is tested.
    pub(crate) fn up_by(program: OsString, name: &str, arguments: &[&str], manifest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lab = Self {
            name: format!("test-{name}-{}", std::process::id()),
            folder,
            program,
        };
        let all = [&["up", "-f", "-"], arguments].concat();
        let output = lab.run_with_input(&all, manifest);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        lab
    }

    /// Builds a lab from a configuration file's text.
    pub(crate) fn up_with_config(name: &str, config: &str, manifest: &str) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config).unwrap();
        Self::up(name, &["--config", file.path().to_str().unwrap()], manifest)
    }

    /// Runs a verb.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// What a verb prints; fails when the verb does.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {words}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(arguments)).unwrap()
    }

    /// The answer to one probe, whatever it is.
    pub(crate) fn probe(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["probe"], arguments].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    pub(crate) fn probe_batch(&self, requests: &[Value]) -> Vec<Value> {
        let lines: Vec<String> = requests.iter().map(ToString::to_string).collect();
        let output = self.run_with_input(&["probe", "--batch", "-"], &lines.join("\n"));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    pub(crate) fn apply(&self, manifest: &str) {
        self.change("apply", manifest);
    }

    pub(crate) fn delete(&self, manifest: &str) {
        self.change("delete", manifest);
    }

    pub(crate) fn delete_with(&self, flags: &[&str], manifest: &str) {
        let output = self.run_with_input(&[&["delete", "-f", "-"], flags].concat(), manifest);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
    }

    /// Gives the last link before the world another MTU, which hosts behind its router have to find out. The world
    /// itself keeps to it, because a link that is narrow at one end drops what it gets from the other without a word;
    /// it asks for segments of full size all the same.
    pub(crate) fn set_mtu_of_world(&self, mtu: u16) {
        let mtu = mtu.to_string();
        self.text(&[
            "underlay",
            "--",
            "ip",
            "link",
            "set",
            "external0",
            "mtu",
            &mtu,
        ]);
        for family in ["-4", "-6"] {
            let route = self.text(&["world", "--", "ip", family, "route", "show", "default"]);
            let route = route.split(" mtu ").next().unwrap().split_whitespace();
            let mut change = vec!["world", "--", "ip", family, "route", "replace"];
            change.extend(route.chain(["mtu", &mtu, "advmss", "1440"]));
            self.text(&change);
        }
    }

    /// Starts a verb and leaves it running.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The cgroup of a process by its command line, as the machine sees it, from the lab's own one on.
    pub(crate) fn cgroup_of(&self, command_line: &str) -> Option<String> {
        let lab = self.cgroup();
        let lab = lab.file_name().unwrap().to_str().unwrap();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            // A process may end while it is looked at.
            let read = |file: &str| std::fs::read_to_string(entry.path().join(file));
            if read("cmdline").is_ok_and(|line| line == command_line) {
                let groups = read("cgroup").ok()?;
                return groups
                    .lines()
                    .find_map(|line| line.split_once(&format!("{lab}/")))
                    .map(|(_, group)| group.to_owned());
            }
        }
        None
    }

    fn change(&self, verb: &str, manifest: &str) {
        let output = self.run_with_input(&[verb, "-f", "-"], manifest);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Value {
        self.json(&["get", "pod", name, "-n", namespace, "-o", "json"])
    }

    pub(crate) fn objects(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let list = self.json(&["get", kind, "-n", namespace, "-o", "json"]);
        list["items"].as_array().unwrap().clone()
    }

    pub(crate) fn names(&self, kind: &str, namespace: &str) -> Vec<String> {
        let objects = self.objects(kind, namespace);
        objects
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Kills the daemon as a crash would.
    pub(crate) fn kill_daemon(&self) {
        let procs = self.cgroup().join("daemon/cgroup.procs");
        for pid in std::fs::read_to_string(procs).unwrap().lines() {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }

    /// The processes of a node's agent.
    pub(crate) fn agent_processes(&self, node: &str) -> Vec<u32> {
        let procs = self.cgroup().join(node).join("cgroup.procs");
        let text = std::fs::read_to_string(procs).unwrap();
        let is_agent = |process: &u32| {
            let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"agent")
        };
        let all = text.lines().map(|line| line.parse().unwrap());
        all.filter(is_agent).collect()
    }

    /// Kills everything in a pod without the daemon's doing.
    pub(crate) fn kill_pod(&self, node: &str, pod: &str) {
        let pod = self.cgroup().join(node).join("pods").join(pod);
        std::fs::write(pod.join("cgroup.kill"), "1").unwrap();
    }

    /// Whether anything of the lab is left on the machine.
    pub(crate) fn leaves_traces(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let folder = self.folder.path().join(&self.name);
        self.cgroup().exists() || folder.exists() || mounts.contains(folder.to_str().unwrap())
    }

    fn cgroup(&self) -> std::path::PathBuf {
        let root = weir_net::cgroup::mount_point().unwrap();
        let prefix = format!("weir-lab-{}@", self.name);
        let mut entries = std::fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap());
        let found = entries.find(|entry| entry.file_name().to_str().unwrap().starts_with(&prefix));
        found.map_or_else(|| root.join(prefix), |entry| entry.path())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "tests start the program that they test"
    )]
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("lab")
            .arg(arguments[0])
            .arg("--name")
            .arg(&self.name);
        command
            .args(&arguments[1..])
            .env("WEIR_LAB_DIR", self.folder.path());
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.run(&["down"]);
    }
}
