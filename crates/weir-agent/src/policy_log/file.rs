// SPDX-License-Identifier: Apache-2.0
//! A file that makes room for a new one when it is full: `policy_action.log.1` is the youngest of the old ones.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The log on disk.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    /// Bytes after which a new file begins.
    largest: u64,
    backups: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    inode: u64,
    size: u64,
}

impl Rotating {
    pub(super) const fn new(path: PathBuf, largest: u64, backups: u32) -> Self {
        Self {
            path,
            largest,
            backups,
            open: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, with its directory. What somebody else moved away is left there.
    pub(super) fn ensure(&mut self) -> io::Result<()> {
        let there = fs::metadata(&self.path).map(|metadata| metadata.ino()).ok();
        let is_open = |open: &Open| there == Some(open.inode);
        if self.open.as_ref().is_some_and(is_open) {
            return Ok(());
        }
        self.open = None;
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&self.path)?;
        let metadata = file.metadata()?;
        self.open = Some(Open {
            file,
            inode: metadata.ino(),
            size: metadata.len(),
        });
        Ok(())
    }

    /// Writes one line, in one piece.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.ensure()?;
        let length = line.len() as u64;
        let full = |open: &Open| open.size > 0 && open.size + length > self.largest;
        if self.open.as_ref().is_some_and(full) {
            self.open = None;
            self.rotate()?;
            self.ensure()?;
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.file.write_all(line)?;
        open.size += length;
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        if self.backups == 0 {
            return fs::remove_file(&self.path);
        }
        for number in (1..self.backups).rev() {
            match fs::rename(self.backup(number), self.backup(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        fs::rename(&self.path, self.backup(1))
    }

    fn backup(&self, number: u32) -> PathBuf {
        let mut name: OsString = self.path.clone().into();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_full_file_makes_room() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("network/policy_action.log");
        let mut log = Rotating::new(path.clone(), 10, 2);
        for line in [
            "one\n",
            "two\n",
            "three\n",
            "four\n",
            "five\n",
            "a long one\n",
        ] {
            log.write(line.as_bytes()).unwrap();
        }
        assert_eq!(text(&path), "a long one\n");
        assert_eq!(text(&log.backup(1)), "four\nfive\n");
        assert_eq!(text(&log.backup(2)), "three\n");
        assert!(!log.backup(3).exists());
    }

    #[test]
    fn what_is_there_is_kept() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        for line in ["one\n", "two\n"] {
            let mut log = Rotating::new(path.clone(), 10, 5);
            log.write(line.as_bytes()).unwrap();
        }
        let mut log = Rotating::new(path.clone(), 10, 5);
        log.write(b"three\n").unwrap();
        assert_eq!(text(&path), "three\n");
        assert_eq!(text(&log.backup(1)), "one\ntwo\n");
    }

    #[test]
    fn a_file_that_is_moved_away_is_made_anew() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let mut log = Rotating::new(path.clone(), 100, 5);
        log.write(b"one\n").unwrap();
        fs::rename(&path, home.path().join("elsewhere")).unwrap();
        log.write(b"two\n").unwrap();
        assert_eq!(text(&path), "two\n");
    }

    #[test]
    fn without_backups_the_old_one_goes() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let mut log = Rotating::new(path.clone(), 4, 0);
        log.write(b"one\n").unwrap();
        log.write(b"two\n").unwrap();
        assert_eq!(text(&path), "two\n");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
