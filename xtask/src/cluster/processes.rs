// SPDX-License-Identifier: Apache-2.0
//! The cluster's processes: started in the background and recorded, so that a later command finds and ends them.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::place::Place;
use crate::process::{append, command, display};

/// A process that was started once. Its id alone may have passed to a stranger; with the start time it names one
/// process for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Process {
    pub(crate) id: u32,
    started: u64,
}

impl Process {
    pub(super) fn of(id: u32) -> Result<Self> {
        let started = start_time(id).with_context(|| format!("process {id} has ended"))?;
        Ok(Self { id, started })
    }

    pub(super) fn lives(self) -> bool {
        start_time(self.id) == Some(self.started)
    }

    /// A process that was recorded under that name.
    pub(super) fn recorded(place: &Place, name: &str) -> Result<Self> {
        let file = place.processes().join(name);
        let text = fs::read_to_string(&file).with_context(|| {
            format!(
                "no process {name} is recorded in cluster {}: is it up?",
                place.name()
            )
        })?;
        Self::parse(&text).with_context(|| format!("{} holds no process", file.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, started) = text.trim().split_once(' ')?;
        Some(Self {
            id: id.parse().ok()?,
            started: started.parse().ok()?,
        })
    }

    pub(super) fn record(self, place: &Place, name: &str) -> Result<()> {
        let file = place.processes().join(name);
        fs::write(&file, format!("{} {}\n", self.id, self.started))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// When a process started, in ticks since the machine did; none for one that has ended, buried or not.
fn start_time(id: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    if fields.first() == Some(&"Z") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// Starts a command that outlives this program; what it prints goes to the log of that name.
pub(crate) fn start(place: &Place, name: &str, program: &mut Command) -> Result<Process> {
    let log = place.logs().join(format!("{name}.log"));
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // A session of its own: Ctrl-C at the terminal is not for the cluster.
    let mut detached = command("setsid");
    append(&mut detached, program)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let child = detached
        .spawn()
        .with_context(|| format!("cannot start `{}`", display(&detached)))?;
    let process =
        Process::of(child.id()).with_context(|| format!("{name}: see {}", log.display()))?;
    process.record(place, name)?;
    Ok(process)
}

/// Ends every recorded process, and what it has started that is of its group and still at work. Process 1 of a node takes
/// everything in the node with it, and so the node's mounts.
pub(super) fn end_all(place: &Place) -> Result<()> {
    let Ok(files) = fs::read_dir(place.processes()) else {
        return Ok(());
    };
    let processes: Vec<Process> = files
        .flatten()
        .filter_map(|file| Process::parse(&fs::read_to_string(file.path()).ok()?))
        .collect();
    for process in processes.iter().filter(|process| process.lives()) {
        // Its failure shows below: who is gone meanwhile needs no signal.
        let (id, group) = (process.id.to_string(), format!("-{}", process.id));
        let _ = run(command("kill").args(["-KILL", "--", &id, &group]));
    }
    wait_for("the cluster's processes to end", 20, || {
        processes.iter().all(|process| !process.lives())
    })
}

/// Waits until a condition holds.
#[expect(
    clippy::disallowed_methods,
    reason = "the one loop that waits for other programs, each time with a deadline"
)]
pub(crate) fn wait_for(what: &str, seconds: u64, mut holds: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        if Instant::now() > deadline {
            bail!("waited {seconds} s in vain for {what}");
        }
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// Runs a command to its end; what it printed is told when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    crate::process::stdout_of(command).map(drop)
}

/// Whether a command succeeds.
pub(super) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The mount points of the cgroup hierarchies: one for version 2 alone, several where version 1 is in use.
pub(crate) fn cgroup_hierarchies() -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let mut places: Vec<String> = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let place = fields.next()?;
            fields
                .next()
                .is_some_and(|kind| kind == "cgroup" || kind == "cgroup2")
                .then(|| place.to_owned())
        })
        .collect();
    places.sort();
    places.dedup();
    ensure!(!places.is_empty(), "no cgroup hierarchy is mounted");
    Ok(places)
}

/// Removes a cgroup with all groups below it; processes that are still ending hold it for a while.
pub(super) fn remove_cgroup(group: &Path) -> Result<()> {
    wait_for(
        &format!("cgroup {} to be empty", group.display()),
        10,
        || {
            remove_groups(group);
            !group.exists()
        },
    )
}

fn remove_groups(group: &Path) {
    let Ok(entries) = fs::read_dir(group) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    // What fails is tried again by the caller.
    let _ = fs::remove_dir(group);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.lives());
        let stranger = Process {
            started: own.started + 1,
            ..own
        };
        assert!(!stranger.lives());
        assert_eq!(
            Process::parse(&format!("{} {}\n", own.id, own.started)),
            Some(own)
        );
        assert_eq!(Process::parse("7"), None);
    }

    #[test]
    fn a_process_that_nobody_buried_has_ended() {
        let mut child = command("true").spawn().unwrap();
        wait_for("the child's end", 10, || start_time(child.id()).is_none()).unwrap();
        child.wait().unwrap();
    }
}
