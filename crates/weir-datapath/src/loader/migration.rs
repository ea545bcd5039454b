// SPDX-License-Identifier: Apache-2.0
//! Pinned maps that do not fit any more.
//!
//! A map's size cannot change, so a new map is pinned beside the old one as its successor, filled, and renamed over
//! it once every link runs programs that use it. A process that is killed in between leaves both pins; the next one
//! goes on with the successor if that has the wanted form, else takes its rows back first.
//!
//! Rows are copied as they are. A version of `weir-abi` that changes the layout of `flows` has another pin directory
//! and gets its converter here (ADR 0006); there is no older version yet.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use weir_abi::map::{self, MapInfo};

use super::report::{LoadReport, Migrated, Replaced, Resized};
use super::{pinned_maps, programs};
use crate::shape::Shape;
use crate::table::RawTable;
use crate::{Error, MapSizes, Maps, PinRoot, Result, pins, sys};

/// Under which pin a map is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Its own.
    Own,
    /// Beside the old one, until the take-over.
    Successor,
}

/// Where a map will be, and whether old rows can come along.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepared {
    pub(super) map: &'static MapInfo,
    pub(super) place: Place,
    takes_rows: bool,
}

impl Prepared {
    pub(super) fn path(&self, root: &PinRoot) -> PathBuf {
        match self.place {
            Place::Own => root.map(self.map.name),
            Place::Successor => root.successor(self.map.name),
        }
    }

    /// Rows of these maps come and go with packets: they are copied when the programs take over, not before.
    pub(super) fn is_written_by_programs(&self) -> bool {
        [
            map::FLOWS,
            map::FRAGMENTS,
            map::TUNNEL_MTU,
            map::AFFINITY,
            map::SOCKET_SERVICES,
            map::POLICY_HITS,
            map::METRICS,
            map::COUNTERS,
        ]
        .iter()
        .any(|dynamic| dynamic.name == self.map.name)
    }
}

/// Compares what is pinned with what the object and the configuration want.
pub(super) fn prepare(
    root: &PinRoot,
    sizes: &MapSizes,
    object: &[u8],
) -> Result<(Vec<Prepared>, LoadReport)> {
    let wishes = programs::wanted_shapes(object, sizes)?;
    let mut report = LoadReport::default();
    let mut prepared = Vec::new();
    for map in pinned_maps() {
        let Some(&wanted) = wishes.get(map.name) else {
            return Err(Error::Incomplete {
                what: "map",
                name: map.name,
            });
        };
        let (place, takes_rows) = place(root, map, wanted, &mut report)?;
        prepared.push(Prepared {
            map,
            place,
            takes_rows,
        });
    }
    Ok((prepared, report))
}

fn place(
    root: &PinRoot,
    map: &'static MapInfo,
    wanted: Shape,
    report: &mut LoadReport,
) -> Result<(Place, bool)> {
    let own = root.map(map.name);
    let successor = root.successor(map.name);
    let found = shape_of(map, &own)?;
    if let Some(left_behind) = shape_of(map, &successor)? {
        match found {
            // The take-over was interrupted: go on.
            Some(found) if left_behind == wanted && found != wanted => {
                return Ok((Place::Successor, found.same_rows(&wanted)));
            }
            Some(found) => {
                if found.same_rows(&left_behind) {
                    let old = RawTable::new(map, open(&own)?)?;
                    let newer = RawTable::new(map, open(&successor)?)?;
                    old.copy_from(&newer)
                        .map_err(|source| old.iteration_failed(source))?;
                }
                pins::unpin(&successor)?;
            }
            None => rename(&successor, &own)?,
        }
    }
    Ok(match shape_of(map, &own)? {
        None => {
            report.created.push(map.name);
            (Place::Own, false)
        }
        Some(found) if found == wanted => {
            report.reused.push(map.name);
            (Place::Own, false)
        }
        Some(found) if found.same_rows(&wanted) && found.size != wanted.size => {
            report.resized.push(Resized {
                map: map.name,
                from: found.size,
                to: wanted.size,
            });
            (Place::Successor, map.shape != map::MapShape::RingBuffer)
        }
        Some(found) => {
            report.replaced.push(Replaced {
                map: map.name,
                found,
                wanted,
            });
            (Place::Successor, found.same_rows(&wanted))
        }
    })
}

/// Copies the rows of a map that will be replaced; rows that are in the successor already stay.
pub(super) fn copy(root: &PinRoot, maps: &Maps, prepared: &Prepared) -> Result<Option<Migrated>> {
    let Some(new) = maps
        .by_name(prepared.map.name)
        .filter(|_| prepared.takes_rows)
    else {
        return Ok(None);
    };
    let old = RawTable::new(prepared.map, open(&root.map(prepared.map.name))?)?;
    let copied = new
        .copy_from(&old)
        .map_err(|source| new.iteration_failed(source))?;
    let anything = copied.rows > 0 || copied.left_out > 0;
    Ok(anything.then_some(Migrated {
        map: prepared.map.name,
        copied,
    }))
}

/// Puts the successor in the place of the old map.
pub(super) fn finish(root: &PinRoot, prepared: &Prepared) -> Result<()> {
    rename(
        &root.successor(prepared.map.name),
        &root.map(prepared.map.name),
    )
}

pub(super) fn remove_other_versions(root: &PinRoot) -> Result<Vec<PathBuf>> {
    let directories = root.other_versions()?;
    for directory in &directories {
        fs::remove_dir_all(directory)
            .map_err(|source| Error::file("remove directory", directory, source))?;
    }
    Ok(directories)
}

fn shape_of(map: &MapInfo, path: &PathBuf) -> Result<Option<Shape>> {
    if !path.exists() {
        return Ok(None);
    }
    let map_fd = open(path)?;
    sys::map::info(map_fd.as_fd())
        .map(|info| Some(Shape::found(&info)))
        .map_err(|source| Error::Row {
            action: "inspect",
            map: map.name,
            key: "*".to_owned(),
            source,
        })
}

fn open(path: &PathBuf) -> Result<std::os::fd::OwnedFd> {
    sys::pin::get(path).map_err(|source| Error::file("open pinned map", path, source))
}

fn rename(from: &PathBuf, to: &PathBuf) -> Result<()> {
    fs::rename(from, to).map_err(|source| Error::file("rename pin", from, source))
}
