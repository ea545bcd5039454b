// SPDX-License-Identifier: Apache-2.0
//! What would the programs do with a packet, had it been sent?
//!
//! The object is loaded once more with [`features::DRY_RUN`] over the pinned maps (ADR 0002): the same code decides
//! over the same rows, but writes nothing and sends nothing. Every packet takes the slow path, and what it found is
//! left in the memory that the programs of this load work in, which no other load shares.

use std::sync::{Mutex, PoisonError};

use weir_abi::config::features;
use weir_abi::event::EventRecord;
use weir_abi::observation::Hook;
use weir_abi::{DatapathConfig, IfIndex, map};
use zerocopy::FromBytes as _;

use crate::sys::map::Write;
use crate::{Error, Loader, Programs, RawTable, Result, TestRun};

/// Questions to the programs of one configuration. They are loaded at the first one.
#[derive(Debug)]
pub struct DryRun {
    loader: Loader,
    config: DatapathConfig,
    /// Held during a run: there is one place for answers.
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    programs: Programs,
    scratch: RawTable,
}

/// What became of a packet, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DryOutput {
    /// The program's answer (`TC_ACT_…`).
    pub verdict: i32,
    /// The packet as the program left it.
    pub packet: Vec<u8>,
    /// What an event would tell about it.
    pub record: EventRecord,
}

impl DryRun {
    /// Over the maps that the loader has pinned, as programs with this configuration see them.
    pub const fn new(loader: Loader, config: DatapathConfig) -> Self {
        Self {
            loader,
            config: DatapathConfig {
                features: config.features | features::DRY_RUN,
                ..config
            },
            loaded: Mutex::new(None),
        }
    }

    /// What the programs are told.
    pub const fn config(&self) -> &DatapathConfig {
        &self.config
    }

    /// Lets the packet meet the program at an interface of the calling thread's network namespace.
    pub fn run(&self, hook: Hook, interface: IfIndex, frame: &[u8]) -> Result<DryOutput> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match &mut *loaded {
            Some(loaded) => loaded,
            none => none.insert(self.load()?),
        };
        loaded.run(hook, interface, frame)
    }

    fn load(&self) -> Result<Loaded> {
        let programs = self.loader.load_programs(&self.config)?;
        let missing = Error::Incomplete {
            what: "map",
            name: map::SCRATCH.name,
        };
        let fd = programs.scratch().ok_or(missing)?;
        let fd = fd
            .try_clone_to_owned()
            .map_err(|error| failed("open", error))?;
        let scratch = RawTable::new(&map::SCRATCH, fd)?;
        Ok(Loaded { programs, scratch })
    }
}

fn failed(action: &'static str, source: std::io::Error) -> Error {
    Error::Row {
        action,
        map: map::SCRATCH.name,
        key: "0".to_owned(),
        source,
    }
}

impl Loaded {
    fn run(&self, hook: Hook, interface: IfIndex, frame: &[u8]) -> Result<DryOutput> {
        let key = 0_u32.to_ne_bytes();
        // The CPU that runs the program is not known beforehand: its place is the one that is filled.
        let mut values = vec![0; self.scratch.value_length()];
        let cleared = self.scratch.update(&key, &values, Write::Always);
        cleared.map_err(|error| failed("clear", error))?;
        let run = TestRun::new(frame).device(interface).ingress(interface);
        let output = run.run(self.programs.get(hook))?;
        let read = self.scratch.lookup(&key, &mut values);
        read.map_err(|error| failed("read", error))?;
        let of_cpu = self.scratch.info().value_size.next_multiple_of(8);
        let mut records = values
            .chunks_exact(of_cpu)
            .filter_map(|value| EventRecord::read_from_prefix(value).ok())
            .map(|(record, _)| record)
            .filter(|record| record.kind != 0);
        let record = records.next().ok_or(Error::NoAnswer {
            program: hook.name(),
        })?;
        Ok(DryOutput {
            verdict: output.verdict,
            packet: output.packet,
            record,
        })
    }
}
