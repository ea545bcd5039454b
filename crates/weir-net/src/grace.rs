// SPDX-License-Identifier: Apache-2.0
//! Grace periods of the kernel, made short while a pod waits for one.
//!
//! A program's first attachment to an interface ends with `synchronize_rcu`, under the lock of all
//! network configuration: 5 to 20 ms, one pod after the other. `/sys/kernel/rcu_expedited` has the
//! kernel ask every CPU at once instead of waiting until each has passed by. It concerns the whole
//! node, so it is on only for the few milliseconds that a pod's link takes. Where an administrator
//! has set `rcu_normal`, as on real-time nodes, the kernel ignores it.

use std::fs;
use std::path::{Path, PathBuf};

const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The node's switch, and the note that says that it was turned.
#[derive(Clone, Debug)]
pub struct GracePeriods {
    switch: PathBuf,
    note: PathBuf,
}

/// Grace periods are short while this lives.
#[derive(Debug)]
pub struct Expedited<'a> {
    of: &'a GracePeriods,
}

impl GracePeriods {
    /// `note`: a file that outlives the process. What a predecessor left turned, because it was
    /// killed in between, is turned back.
    pub fn new(note: PathBuf) -> Self {
        Self::with_switch(PathBuf::from(SWITCH), note)
    }

    fn with_switch(switch: PathBuf, note: PathBuf) -> Self {
        let periods = Self { switch, note };
        if periods.note.exists() {
            periods.restore();
        }
        periods
    }

    /// Makes them short. None where they are so already, or where the switch cannot be turned
    /// (sysfs may be mounted read-only); then everything takes longer and works as well.
    pub fn expedite(&self) -> Option<Expedited<'_>> {
        if fs::read_to_string(&self.switch).ok()?.trim() != "0" {
            return None;
        }
        // Noted first: who is killed after it turns nothing back that was not turned.
        fs::write(&self.note, "").ok()?;
        if !set(&self.switch, "1") {
            let _ = fs::remove_file(&self.note);
            return None;
        }
        Some(Expedited { of: self })
    }

    fn restore(&self) {
        if set(&self.switch, "0") {
            let _ = fs::remove_file(&self.note);
        }
    }
}

impl Drop for Expedited<'_> {
    fn drop(&mut self) {
        self.of.restore();
    }
}

fn set(switch: &Path, value: &str) -> bool {
    fs::write(switch, value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(value: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (switch, note) = (folder.path().join("switch"), folder.path().join("note"));
        fs::write(&switch, value).unwrap();
        (folder, switch, note)
    }

    #[test]
    fn the_switch_is_turned_back_with_the_guard() {
        let (_folder, switch, note) = files("0\n");
        let periods = GracePeriods::with_switch(switch.clone(), note.clone());
        let guard = periods.expedite().unwrap();
        assert_eq!(fs::read_to_string(&switch).unwrap(), "1");
        assert!(note.exists() && periods.expedite().is_none());
        drop(guard);
        assert_eq!(fs::read_to_string(&switch).unwrap(), "0");
        assert!(!note.exists());
    }

    #[test]
    fn what_an_administrator_has_set_stays() {
        let (_folder, switch, note) = files("1\n");
        let periods = GracePeriods::with_switch(switch.clone(), note.clone());
        assert!(periods.expedite().is_none());
        assert_eq!(fs::read_to_string(&switch).unwrap(), "1\n");
        assert!(!note.exists());
    }

    #[test]
    fn a_killed_predecessors_turn_is_taken_back() {
        let (_folder, switch, note) = files("0\n");
        let periods = GracePeriods::with_switch(switch.clone(), note.clone());
        std::mem::forget(periods.expedite());
        assert_eq!(fs::read_to_string(&switch).unwrap(), "1");
        let _next = GracePeriods::with_switch(switch.clone(), note.clone());
        assert_eq!(fs::read_to_string(&switch).unwrap(), "0");
        assert!(!note.exists());
    }

    #[test]
    fn a_node_without_the_switch_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("note");
        let periods = GracePeriods::with_switch(folder.path().join("none"), note.clone());
        assert!(periods.expedite().is_none() && !note.exists());
    }
}
