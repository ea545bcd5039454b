// SPDX-License-Identifier: Apache-2.0
//! What loading and taking over found and did, for the log and for `status`.

use std::fmt;
use std::path::PathBuf;

use crate::Error;
use crate::shape::Shape;
use crate::table::Copied;

/// What [`crate::Loader::load`] did to the maps.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Maps that were not there.
    pub created: Vec<&'static str>,
    /// Maps that were pinned and fit.
    pub reused: Vec<&'static str>,
    /// Maps that got another size; their rows come along.
    pub resized: Vec<Resized>,
    /// Maps whose rows this version cannot use; they start empty.
    pub replaced: Vec<Replaced>,
    /// Rows that were copied already.
    pub migrated: Vec<Migrated>,
}

/// A map with a new size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resized {
    /// The map's name.
    pub map: &'static str,
    /// Its size until now.
    pub from: u32,
    /// Its size from now on.
    pub to: u32,
}

/// A map that had to start anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// The map's name.
    pub map: &'static str,
    /// The form that was pinned.
    pub found: Shape,
    /// The form that this version needs.
    pub wanted: Shape,
}

/// Rows that came along to a map of another size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migrated {
    /// The map's name.
    pub map: &'static str,
    /// How many came, how many found no room.
    pub copied: Copied,
}

/// What [`crate::Datapath::activate`] did.
#[derive(Debug, Default)]
pub struct Activation {
    /// Pinned links that run the new programs now, by the names of their pins.
    pub updated: Vec<String>,
    /// Pins that were removed: their interface is gone, or this version has no such program.
    pub removed: Vec<String>,
    /// Links that could not be updated and still run what they ran.
    pub failed: Vec<Error>,
    /// Rows that were copied.
    pub migrated: Vec<Migrated>,
    /// Directories of other versions' maps that were removed.
    pub removed_versions: Vec<PathBuf>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            created,
            reused,
            resized,
            replaced,
            migrated,
        } = self;
        write!(f, "{} maps reused, {} created", reused.len(), created.len())?;
        for Resized { map, from, to } in resized {
            write!(f, "; {map} resized from {from} to {to}")?;
        }
        for Replaced { map, found, wanted } in replaced {
            write!(
                f,
                "; {map} starts empty: pinned with {found}, this version needs {wanted}"
            )?;
        }
        migrated.iter().try_for_each(|one| write!(f, "; {one}"))
    }
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            map,
            copied: Copied { rows, left_out },
        } = self;
        write!(f, "{map}: {rows} rows taken along")?;
        if *left_out > 0 {
            write!(f, ", {left_out} found no room")?;
        }
        Ok(())
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            updated,
            removed,
            failed,
            migrated,
            removed_versions,
        } = self;
        write!(f, "{} links updated", updated.len())?;
        if !removed.is_empty() {
            write!(f, "; stale links removed: {}", removed.join(", "))?;
        }
        for error in failed {
            write!(f, "; {error}")?;
        }
        for one in migrated {
            write!(f, "; {one}")?;
        }
        for directory in removed_versions {
            write!(f, "; {} removed", directory.display())?;
        }
        Ok(())
    }
}
