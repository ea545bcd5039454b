// SPDX-License-Identifier: Apache-2.0
//! Starting the process of a sandbox and hearing from it until it is ready.

use std::{
    fs,
    io::{self, BufRead, BufReader, Lines},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};

use crate::{command, place::end_processes, protocol::Report, sandbox::Specification};

/// A namespace that takes longer than this to be made is not coming.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The time that a process which has given up gets to end by itself.
const END_LIMIT: Duration = Duration::from_secs(1);

/// A sandbox whose namespaces are in place.
#[derive(Debug)]
pub(super) struct Started {
    /// The process that holds the namespaces.
    pub(super) pid: u32,
    pub(super) socket: UnixStream,
    /// What it will report from now on.
    pub(super) lines: Lines<BufReader<UnixStream>>,
}

/// Starts a sandbox and waits until it is ready. After a failure nothing of it runs any more.
pub(super) fn start(specification: &Specification) -> Result<Started> {
    fs::create_dir_all(&specification.cgroup)?;
    let (socket, theirs) = UnixStream::pair()?;
    socket.set_read_timeout(Some(START_LIMIT))?;
    let mut lines = BufReader::new(socket.try_clone()?).lines();
    let mut first = command("/proc/self/exe")
        .arg0("weir")
        .args(["lab", "sandbox", &serde_json::to_string(specification)?])
        .stdin(OwnedFd::from(theirs))
        .spawn()?;
    let mut pid = first.id();
    let heard = hear_pid(&mut lines).and_then(|own| {
        pid = own;
        hear_ready(&mut lines)
    });
    // A sandbox with a PID namespace is a child of the process that was started, which has ended by now or is about to;
    // then the sandbox is a child of the daemon, which is a subreaper.
    let forked = (pid != first.id()).then_some(pid);
    if let Err(error) = heard {
        let fate = end(&mut first, forked, &specification.cgroup);
        return Err(error.context(fate));
    }
    if forked.is_some() {
        collect(first.id());
    }
    socket.set_read_timeout(None)?;
    Ok(Started { pid, socket, lines })
}

/// Ends what is left of a sandbox that cannot be made and says what became of it.
fn end(first: &mut Child, forked: Option<u32>, cgroup: &Path) -> String {
    // Whoever has hung up or told what is wrong ends by itself, with a status that says more than that of the killed.
    let deadline = Instant::now() + END_LIMIT;
    let mut fate = String::new();
    for pid in [Some(first.id()), forked].into_iter().flatten() {
        fate = collect_until(pid, deadline).unwrap_or_else(|| {
            // The complaint of the last call below is enough.
            end_processes(cgroup).ok();
            // The first is not in the cgroup if it failed to join it; an error says that it has ended.
            first.kill().ok();
            collect(pid)
        });
    }
    match end_processes(cgroup) {
        Ok(()) => fate,
        Err(left) => format!("{fate}, but something is left behind: {left:#}"),
    }
}

/// Waits for the end of a child and says what became of it.
pub(super) fn collect(pid: u32) -> String {
    words(pid, waitpid(Pid::from_raw(pid.cast_signed()), None))
}

/// The same, but gives up.
fn collect_until(pid: u32, deadline: Instant) -> Option<String> {
    loop {
        match waitpid(Pid::from_raw(pid.cast_signed()), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            Ok(WaitStatus::StillAlive) => return None,
            ended => return Some(words(pid, ended)),
        }
    }
}

fn words(pid: u32, ended: nix::Result<WaitStatus>) -> String {
    match ended {
        Ok(WaitStatus::Exited(_, code)) => format!("process {pid} ended with code {code}"),
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("process {pid} was ended by {signal}"),
        Ok(status) => format!("process {pid} changed to {status:?}"),
        Err(errno) => format!("what became of process {pid} is not known ({errno})"),
    }
}

/// Which process the sandbox is. Nothing else is taken for the answer: whoever guesses holds a process that ends.
fn hear_pid(lines: &mut impl Iterator<Item = io::Result<String>>) -> Result<u32> {
    match hear(lines)? {
        Report::Pid(pid) => Ok(pid),
        Report::Failed(error) => bail!(error),
        Report::Ready | Report::Reply { .. } | Report::Exited { .. } => {
            bail!("it speaks before it has told its process id")
        }
    }
}

fn hear_ready(lines: &mut impl Iterator<Item = io::Result<String>>) -> Result<()> {
    match hear(lines)? {
        Report::Ready => Ok(()),
        Report::Failed(error) => bail!(error),
        Report::Pid(_) | Report::Reply { .. } | Report::Exited { .. } => {
            bail!("it speaks before it is ready")
        }
    }
}

fn hear(lines: &mut impl Iterator<Item = io::Result<String>>) -> Result<Report> {
    match lines.next() {
        Some(Ok(line)) => serde_json::from_str(&line).with_context(|| format!("it says `{line}`")),
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("it says nothing for {} s", START_LIMIT.as_secs())
        }
        Some(Err(error)) => Err(error).context("it cannot be heard"),
        None => bail!("it hangs up before it is ready"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(said: &[&str], expected: Result<u32, &str>) {
        let mut lines = said.iter().map(|line| Ok((*line).to_owned()));
        let heard = hear_pid(&mut lines).and_then(|pid| hear_ready(&mut lines).map(|()| pid));
        match (heard, expected) {
            (Ok(pid), Ok(expected)) => assert_eq!(pid, expected),
            (Err(error), Err(expected)) => assert!(
                error.to_string().contains(expected),
                "{error:#} instead of {expected}"
            ),
            (heard, expected) => panic!("{heard:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn a_sandbox_is_known_before_it_is_ready() {
        check(&[r#"{"pid":7}"#, r#""ready""#], Ok(7));
        check(&[r#""ready""#, r#"{"pid":7}"#], Err("process id"));
        check(&[r#"{"failed":"no room"}"#], Err("no room"));
        check(&[r#"{"pid":7}"#, r#"{"failed":"no room"}"#], Err("no room"));
        check(&[r#"{"pid":7}"#, r#"{"pid":7}"#], Err("before it is ready"));
        check(&[r#"{"pid":7}"#], Err("hangs up"));
        check(&[], Err("hangs up"));
        check(&["?"], Err("it says `?`"));
    }

    #[test]
    fn the_end_of_a_process_is_told() {
        let check = |script: &str, expected: &str| {
            let mut child = command("sh").args(["-c", script]).spawn().unwrap();
            let fate = collect(child.id());
            assert_eq!(fate, format!("process {} {expected}", child.id()));
            assert!(child.wait().is_err(), "collected twice");
        };
        check("exit 7", "ended with code 7");
        check("kill -KILL $$", "was ended by SIGKILL");
    }

    #[test]
    fn a_process_that_does_not_end_is_not_waited_for() {
        let mut child = command("sleep").arg("60").spawn().unwrap();
        assert_eq!(collect_until(child.id(), Instant::now()), None);
        child.kill().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let fate = collect_until(child.id(), deadline).unwrap();
        assert!(fate.ends_with("was ended by SIGKILL"), "{fate}");
        assert!(child.wait().is_err(), "collected twice");
    }
}
