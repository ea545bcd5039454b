// SPDX-License-Identifier: Apache-2.0
//! How services and their changes come to the sides: by the API server that everybody watches, or to each in its own way.

use anyhow::Result;

use super::objects::{self, Half, SERVICES, SLICES, answers};
use super::side::{Kind, Side, Still};
use super::source::{Objects, Source};
use super::{api, rules};

/// Adds services after the first `from` up to the number `last`, which alone is sure to be the last to be known.
pub(super) fn grow(source: &Source, from: u32, last: u32, sides: &[Side]) -> Result<()> {
    match &source.objects {
        Objects::Server(api) => {
            let family = source.family;
            let make = |number: u32| -> Result<()> {
                api.post(SERVICES, &objects::service(family, number))?;
                let slice = objects::slice(family, number, answers(number, last), None);
                api.post(SLICES, &slice).map(drop)
            };
            // The API server takes them in faster when not everybody writes rules for each few of them meanwhile; those
            // of iptables take so long that they are begun with at once.
            let still = Still::but(Kind::Iptables, sides)?;
            api::many(last - from, |offset| make(from + offset))?;
            drop(still);
            make(last)
        }
        Objects::Folder(folder) => {
            folder.write_services(last)?;
            sides.iter().try_for_each(|side| {
                side.write_rules(|kind| rules::all(kind, source.family, from == 0, last))
            })
        }
    }
}

/// Gives a service, the last one, that half of the backends, in the way that the side hears of it.
pub(super) fn change(source: &Source, side: &Side, service: u32, half: Half) -> Result<()> {
    match &source.objects {
        Objects::Server(api) => api.put(
            SLICES,
            &objects::slice(source.family, service, true, Some(half)),
        ),
        Objects::Folder(folder) if side.kind == Kind::Weir => folder.change(service, half),
        Objects::Folder(_) => {
            side.write_rules(|kind| rules::change(kind, source.family, service, half))
        }
    }
}

/// Tells the sides that [`change`] has not told.
pub(super) fn follow(
    source: &Source,
    told: Kind,
    sides: &[Side],
    service: u32,
    half: Half,
) -> Result<()> {
    match &source.objects {
        // Everybody watches.
        Objects::Server(_) => Ok(()),
        Objects::Folder(_) => sides
            .iter()
            .filter(|side| side.kind != told)
            .try_for_each(|side| change(source, side, service, half)),
    }
}
