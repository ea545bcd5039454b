// SPDX-License-Identifier: Apache-2.0
//! Asking the daemon of a lab.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::output::talk;
use crate::{
    place::Place,
    protocol::{Request, Response},
};

/// Asks, passes progress on to people, and hands every answer over.
pub(crate) fn ask(
    place: &Place,
    request: &Request,
    mut answer: impl FnMut(Value) -> Result<()>,
) -> Result<()> {
    let name = place.name();
    let stream = UnixStream::connect(place.socket())
        .with_context(|| format!("lab {name} is not up (hint: weir lab up --name {name})"))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    (&stream).write_all(&line)?;
    for line in BufReader::new(stream).lines() {
        match serde_json::from_str(&line?)? {
            Response::Progress(words) => talk(format_args!("{words}")),
            Response::Answer(value) => answer(value)?,
            Response::Done => return Ok(()),
            Response::Failed(error) => bail!(error),
        }
    }
    bail!(
        "the daemon of lab {name} ended (its log: {})",
        place.daemon_log().display()
    )
}

/// Asks something that has no answer.
pub(crate) fn call(place: &Place, request: &Request) -> Result<()> {
    ask(place, request, |_| Ok(()))
}

/// Asks something that has one answer.
pub(crate) fn ask_one(place: &Place, request: &Request) -> Result<Value> {
    let mut found = None;
    ask(place, request, |value| {
        found = Some(value);
        Ok(())
    })?;
    found.context("the daemon gave no answer")
}
