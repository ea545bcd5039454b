// SPDX-License-Identifier: Apache-2.0
//! From bytes of the ring buffer to an event.
//!
//! Programs of another version may still be attached after an upgrade, and a ring buffer is memory
//! that anybody with enough rights can write: whatever the bytes are, the answer is an event or a
//! [`DecodeProblem`].
//!
//! Here bytes become a record. `event` says it in names; `policy` knows what policy decided on it.

mod event;
mod policy;

use crate::names::Names;
use event::packet_event;
use weir_abi::event::{EVENT_VERSION, EventRecord, kind, signal};
use weir_api::event::{Event, PacketEvent};
use zerocopy::{FromZeros as _, IntoBytes as _};

pub use policy::{denial, reached, verdicts};

/// What a record says.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every record is an event, and a box would be one more allocation for each"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decoded {
    Event(Event),
    Signal(Signal),
}

/// What the programs want from the agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Ports or entries run out.
    CollectGarbage,
}

/// Why a record says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeProblem {
    #[error("record of {length} bytes is too short")]
    Short { length: usize },
    #[error("record has version {version}, known is {EVENT_VERSION}")]
    Version { version: u8 },
    #[error("record has the unknown kind {kind}")]
    Kind { kind: u8 },
    #[error("record asks for the unknown thing {subtype}")]
    Signal { subtype: u8 },
}

/// How often each [`DecodeProblem`] was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Problems {
    pub short: u64,
    pub version: u64,
    pub kind: u64,
    pub signal: u64,
}

impl Problems {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.short + self.version + self.kind + self.signal
    }

    const fn count(&mut self, problem: DecodeProblem) {
        let counter = match problem {
            DecodeProblem::Short { .. } => &mut self.short,
            DecodeProblem::Version { .. } => &mut self.version,
            DecodeProblem::Kind { .. } => &mut self.kind,
            DecodeProblem::Signal { .. } => &mut self.signal,
        };
        *counter += 1;
    }
}

/// [`decode`], with its problems counted.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    problems: Problems,
}

impl Decoder {
    /// Nothing met yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The event or signal of a record; `None`: a problem, counted.
    pub fn decode(&mut self, record: &[u8], names: &impl Names) -> Option<Decoded> {
        match decode(record, names) {
            Ok(decoded) => Some(decoded),
            Err(problem) => {
                self.problems.count(problem);
                None
            }
        }
    }

    /// What could not be decoded so far.
    pub const fn problems(&self) -> Problems {
        self.problems
    }
}

/// The event or signal of a record. The record may end with the captured bytes.
pub fn decode(bytes: &[u8], names: &impl Names) -> Result<Decoded, DecodeProblem> {
    let head = Head::read(bytes)?;
    if head.kind == kind::SIGNAL {
        return match head.subtype {
            signal::COLLECT_GARBAGE => Ok(Decoded::Signal(Signal::CollectGarbage)),
            subtype => Err(DecodeProblem::Signal { subtype }),
        };
    }
    if !matches!(head.kind, kind::DROP | kind::TRACE | kind::POLICY_VERDICT) {
        return Err(DecodeProblem::Kind { kind: head.kind });
    }
    let record = read(bytes)?;
    let event = |make: fn(PacketEvent) -> Event| Decoded::Event(make(packet_event(&record, names)));
    match record.kind {
        kind::DROP => Ok(event(Event::Drop)),
        kind::TRACE => Ok(event(Event::Trace)),
        kind::POLICY_VERDICT => Ok(event(Event::PolicyVerdict)),
        kind => Err(DecodeProblem::Kind { kind }),
    }
}

/// What every record begins with; a signal has nothing more.
struct Head {
    kind: u8,
    subtype: u8,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, DecodeProblem> {
        let Some(&[kind, version, subtype]) = bytes.first_chunk() else {
            return Err(DecodeProblem::Short {
                length: bytes.len(),
            });
        };
        // Before anything else: the rest of another version is not ours to judge.
        if version != EVENT_VERSION {
            return Err(DecodeProblem::Version { version });
        }
        Ok(Self { kind, subtype })
    }
}

/// The numbers of a record about a packet, as they are.
pub fn record(bytes: &[u8]) -> Result<EventRecord, DecodeProblem> {
    let head = Head::read(bytes)?;
    if matches!(head.kind, kind::DROP | kind::TRACE | kind::POLICY_VERDICT) {
        read(bytes)
    } else {
        Err(DecodeProblem::Kind { kind: head.kind })
    }
}

fn read(bytes: &[u8]) -> Result<EventRecord, DecodeProblem> {
    if bytes.len() < core::mem::offset_of!(EventRecord, capture) {
        return Err(DecodeProblem::Short {
            length: bytes.len(),
        });
    }
    let mut record = EventRecord::new_zeroed();
    let most = bytes.len().min(size_of::<EventRecord>());
    if let (Some(to), Some(from)) = (record.as_mut_bytes().get_mut(..most), bytes.get(..most)) {
        to.copy_from_slice(from);
    }
    let there = most - core::mem::offset_of!(EventRecord, capture);
    record.captured = record.captured.min(u16::try_from(there).unwrap_or(0));
    Ok(record)
}
