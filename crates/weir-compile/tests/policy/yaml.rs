// SPDX-License-Identifier: Apache-2.0
//! Worlds out of manifests, read as the agent reads them.

use std::fs;

use weir_cluster::Folder;
use weir_model::{Change, World};

/// What the objects of a file come to; refused ones are what is put in their place.
pub(crate) fn changes(text: &str) -> Vec<Change> {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("objects.yaml"), text).unwrap();
    Folder::new(home.path()).read().unwrap().changes
}

pub(crate) fn world(text: &str) -> World {
    let mut world = World::default();
    for change in changes(text) {
        world.apply(change);
    }
    world
}
