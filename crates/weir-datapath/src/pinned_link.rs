// SPDX-License-Identifier: Apache-2.0
//! What pinned links have in common, whatever they are attached to: they outlive the agent, are updated in place, and
//! become stale when what they are attached to goes away.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::loader::{Activation, Program};
use crate::sys::{self, link};
use crate::{Error, Result, pins};

/// How a program came to be where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attached {
    /// It was not there before.
    New,
    /// Another program was there and was replaced without a gap.
    Updated,
    /// This very program was there already.
    Unchanged,
}

/// What programs are attached to.
pub(crate) trait Place {
    /// The kernel's number of the program that a link runs; none where the link is dead, or at another place.
    fn runs(&self, link: BorrowedFd<'_>) -> io::Result<Option<u32>>;

    /// The kernel does not want to.
    fn refused(&self, action: &'static str, source: io::Error) -> Error;
}

/// Puts a program at a place and pins the link. Whatever Weir had there is updated in place; otherwise `create` attaches.
pub(crate) fn put(
    pin: &Path,
    program: &Program,
    place: &impl Place,
    create: impl FnOnce(BorrowedFd<'_>) -> Result<OwnedFd>,
) -> Result<Attached> {
    if let Some(old) = open(pin)? {
        match replace(&old, program, place)? {
            Some(attached) => return Ok(attached),
            None => pins::unpin(pin)?,
        }
    }
    let new = create(program.as_fd())?;
    sys::pin::pin(new.as_fd(), pin).map_err(|source| Error::file("pin link at", pin, source))?;
    Ok(Attached::New)
}

/// Puts the new program into a pinned link, and tells what came of it; nothing where there is no such pin. Without a
/// program the link is removed: the old one would go on with maps that nobody fills.
pub(crate) fn take_over(
    pin: &Path,
    program: Option<&Program>,
    place: &impl Place,
    activation: &mut Activation,
) {
    let name = || {
        pin.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    match has_taken_over(pin, program, place) {
        Ok(Some(true)) => activation.updated.push(name()),
        Ok(Some(false)) => activation.removed.push(name()),
        Ok(None) => {}
        Err(error) => activation.failed.push(error),
    }
}

/// Whether the link runs the new program now; otherwise it was stale and is removed.
fn has_taken_over(
    pin: &Path,
    program: Option<&Program>,
    place: &impl Place,
) -> Result<Option<bool>> {
    let Some(old) = open(pin)? else {
        return Ok(None);
    };
    let replaced = match program {
        Some(program) => replace(&old, program, place)?,
        None => None,
    };
    if replaced.is_none() {
        pins::unpin(pin)?;
    }
    Ok(Some(replaced.is_some()))
}

/// Updates a link unless it is dead (then: none).
fn replace(old: &OwnedFd, program: &Program, place: &impl Place) -> Result<Option<Attached>> {
    let runs = place
        .runs(old.as_fd())
        .map_err(|source| place.refused("inspect", source))?;
    let Some(runs) = runs else {
        return Ok(None);
    };
    if runs == program.id() {
        return Ok(Some(Attached::Unchanged));
    }
    match link::update(old.as_fd(), program.as_fd()) {
        Ok(()) => Ok(Some(Attached::Updated)),
        // What it was attached to went away between the two calls.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(None),
        Err(source) => Err(place.refused("update", source)),
    }
}

/// The link behind a pin, if there is one.
pub(crate) fn open(pin: &Path) -> Result<Option<OwnedFd>> {
    match sys::pin::get(pin) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("open pinned link", pin, error)),
    }
}
