// SPDX-License-Identifier: Apache-2.0
//! From the embedded object to verified programs over pinned maps.
//!
//! Loading and taking over are two steps. [`Loader::load`] opens or makes the maps and has the programs verified;
//! packets notice nothing. The caller then brings the rows up to date. [`Datapath::activate`] puts the new programs
//! into all pinned links and finishes what a changed map size started.

mod migration;
mod programs;
mod report;

pub use programs::{Program, Programs};
pub use report::{Activation, LoadReport, Migrated, Replaced, Resized};

use std::sync::Arc;

use weir_abi::DatapathConfig;
use weir_abi::map::{self, MapInfo};

use crate::{MapSizes, Maps, PinRoot, Result, object};
use migration::{Place, Prepared};

/// Loads the object.
#[derive(Clone, Debug)]
pub struct Loader {
    root: PinRoot,
    sizes: MapSizes,
    /// None: the embedded one.
    object: Option<Arc<[u8]>>,
}

/// Verified programs over open maps.
#[derive(Debug)]
pub struct Datapath {
    /// The pinned maps, shared with every other load over the same pins.
    pub maps: Arc<Maps>,
    /// The programs of this load.
    pub programs: Programs,
    /// What happened to the maps.
    pub report: LoadReport,
    pub(crate) root: PinRoot,
    pending: Vec<Prepared>,
}

impl Loader {
    /// A loader of the embedded object that pins below `root`.
    pub fn new(root: PinRoot) -> Self {
        Self {
            root,
            sizes: MapSizes::default(),
            object: None,
        }
    }

    /// Other map sizes than the default ones.
    #[must_use]
    pub fn with_sizes(mut self, sizes: MapSizes) -> Self {
        self.sizes = sizes;
        self
    }

    /// Another object than the embedded one.
    #[must_use]
    pub fn with_object(mut self, object: impl Into<Arc<[u8]>>) -> Self {
        self.object = Some(object.into());
        self
    }

    /// Where maps and links are pinned.
    pub const fn root(&self) -> &PinRoot {
        &self.root
    }

    /// Opens or makes the maps and has the programs verified; attaches nothing.
    pub fn load(&self, config: &DatapathConfig) -> Result<Datapath> {
        let object = self.object()?;
        self.root.prepare()?;
        let (prepared, mut report) = migration::prepare(&self.root, &self.sizes, object)?;
        let programs = programs::load(object, config, &self.sizes, &|map| {
            prepared
                .iter()
                .find(|prepared| prepared.map.name == map.name)
                .map_or_else(
                    || self.root.map(map.name),
                    |prepared| prepared.path(&self.root),
                )
        })?;
        let path = |map: &MapInfo| {
            let place = prepared
                .iter()
                .find(|prepared| prepared.map.name == map.name);
            place.map_or_else(
                || self.root.map(map.name),
                |prepared| prepared.path(&self.root),
            )
        };
        let maps = Maps::open_at(&path, config.maglev_size)?;
        let pending: Vec<_> = prepared
            .into_iter()
            .filter(|prepared| prepared.place == Place::Successor)
            .collect();
        // The agent's own rows first: it reads them back before it takes over.
        for prepared in pending
            .iter()
            .filter(|prepared| !prepared.is_written_by_programs())
        {
            report
                .migrated
                .extend(migration::copy(&self.root, &maps, prepared)?);
        }
        Ok(Datapath {
            maps: Arc::new(maps),
            programs,
            report,
            root: self.root.clone(),
            pending,
        })
    }

    /// Has the programs verified once more over maps that are there, for test runs: with
    /// [`weir_abi::config::features::DRY_RUN`] they write nothing. They are attached nowhere.
    pub fn load_programs(&self, config: &DatapathConfig) -> Result<Programs> {
        let root = &self.root;
        programs::load(self.object()?, config, &self.sizes, &|map| {
            let successor = root.successor(map.name);
            if successor.exists() {
                successor
            } else {
                root.map(map.name)
            }
        })
    }

    fn object(&self) -> Result<&[u8]> {
        match &self.object {
            Some(object) => Ok(object),
            None => object::embedded(),
        }
    }
}

impl Datapath {
    /// Puts the programs into every pinned link, finishes migrations and removes what is stale. A second call does
    /// nothing new.
    pub fn activate(&mut self) -> Result<Activation> {
        let mut activation = Activation::default();
        let dynamic = || {
            self.pending
                .iter()
                .filter(|prepared| prepared.is_written_by_programs())
        };
        for prepared in dynamic() {
            activation
                .migrated
                .extend(migration::copy(&self.root, &self.maps, prepared)?);
        }
        self.take_over_links(&mut activation)?;
        // What the old programs wrote while their links were replaced one after the other.
        for prepared in dynamic() {
            activation
                .migrated
                .extend(migration::copy(&self.root, &self.maps, prepared)?);
        }
        for prepared in self.pending.drain(..) {
            migration::finish(&self.root, &prepared)?;
        }
        activation.removed_versions = migration::remove_other_versions(&self.root)?;
        Ok(activation)
    }
}

/// The maps that are pinned by name.
pub(crate) fn pinned_maps() -> impl Iterator<Item = &'static MapInfo> {
    map::ALL.iter().filter(|map| map.pinned)
}
