// SPDX-License-Identifier: Apache-2.0
//! `down`: needs nothing from the daemon, so it works after any crash.

use anyhow::{Result, bail};

use super::output::talk;
use crate::{args::Down, place::Place};

pub(crate) fn down(place: &Place, down: &Down) -> Result<()> {
    let places = if down.all {
        Place::all()?
    } else {
        vec![place.clone()]
    };
    let mut failed = Vec::new();
    for place in places {
        match place.remove() {
            Ok(true) => talk(format_args!("lab {} is gone", place.name())),
            Ok(false) => talk(format_args!("there is no lab {}", place.name())),
            Err(error) => failed.push(format!("lab {}: {error:#}", place.name())),
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!(failed.join("\n"))
    }
}
