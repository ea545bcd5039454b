// SPDX-License-Identifier: Apache-2.0
//! Where aya works: parsing, relocating, making maps, loading programs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread;

use aya::programs::{CgroupSockAddr, ProgramError, ProgramFd, ProgramInfo, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader};
use weir_abi::DatapathConfig;
use weir_abi::map::{self, MapInfo};
use weir_abi::observation::Hook;
use zerocopy::IntoBytes as _;

use super::pinned_maps;
use crate::shape::Shape;
use crate::socket_hook::SocketHook;
use crate::{Error, MapSizes, Result};

/// One verified program.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    fd: OwnedFd,
    id: u32,
    verified_instructions: u32,
}

impl Program {
    /// Its name in the object.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The kernel's number of the program.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// How many instructions the verifier looked at, over all paths.
    pub const fn verified_instructions(&self) -> u32 {
        self.verified_instructions
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The programs of one load, by hook. They stay in the kernel as long as this or a link holds them.
#[derive(Debug)]
pub struct Programs {
    from_container: Program,
    from_netdev: Program,
    to_netdev: Program,
    from_host: Program,
    at_driver: Program,
    /// Those of sockets that the object has.
    sockets: BTreeMap<SocketHook, Program>,
    /// What the programs of this load work in, if the object has it.
    scratch: Option<OwnedFd>,
}

impl Programs {
    /// The program of a hook.
    pub const fn get(&self, hook: Hook) -> &Program {
        match hook {
            Hook::FromContainer => &self.from_container,
            Hook::FromNetdev => &self.from_netdev,
            Hook::ToNetdev => &self.to_netdev,
            Hook::FromHost => &self.from_host,
        }
    }

    /// The name of the program at drivers of devices.
    pub const AT_DRIVER: &'static str = "at_driver";

    /// The program at drivers of devices.
    pub const fn at_driver(&self) -> &Program {
        &self.at_driver
    }

    /// The map that the programs of this load, and no others, work in.
    pub(crate) fn scratch(&self) -> Option<BorrowedFd<'_>> {
        self.scratch.as_ref().map(AsFd::as_fd)
    }

    /// The program of a socket call, if the object has one.
    pub fn socket(&self, hook: SocketHook) -> Option<&Program> {
        self.sockets.get(&hook)
    }

    /// All programs.
    pub fn iter(&self) -> impl Iterator<Item = &Program> {
        Hook::ALL
            .iter()
            .map(|&hook| self.get(hook))
            .chain([&self.at_driver])
            .chain(self.sockets.values())
    }
}

/// What the object and the configuration make of each pinned map.
pub(super) fn wanted_shapes(
    object: &[u8],
    sizes: &MapSizes,
) -> Result<BTreeMap<&'static str, Shape>> {
    let object = aya_obj::Object::parse(object)
        .map_err(|error| Error::Object(Box::new(EbpfError::ParseError(error))))?;
    let cpus = aya::util::nr_cpus().map_err(|(path, source)| Error::file("read", path, source))?;
    let cpus = u32::try_from(cpus).unwrap_or(u32::MAX);
    Ok(pinned_maps()
        .filter_map(|map| {
            let definition = object.maps.get(map.name)?;
            let size = size_of(map, definition, sizes);
            Some((map.name, Shape::wanted(map, definition, size, cpus)))
        })
        .collect())
}

/// The configured size, or the object's where it means something.
fn size_of(map: &MapInfo, definition: &aya_obj::Map, sizes: &MapSizes) -> u32 {
    if map.resizable {
        sizes.of(map)
    } else {
        definition.max_entries()
    }
}

/// Loads all programs over the maps at the given pins; maps that are not pinned yet are made.
pub(super) fn load(
    object: &[u8],
    config: &DatapathConfig,
    sizes: &MapSizes,
    path: &dyn Fn(&MapInfo) -> PathBuf,
) -> Result<Programs> {
    let mut loader = EbpfLoader::new();
    loader.override_global(DatapathConfig::SYMBOL, config.as_bytes(), true);
    for map in pinned_maps() {
        loader.map_pin_path(map.name, path(map));
        if map.resizable {
            loader.map_max_entries(map.name, sizes.of(map));
        }
    }
    let mut ebpf = loader
        .load(object)
        .map_err(|error| Error::Object(Box::new(error)))?;
    let mut verified = verify_all(&mut ebpf)?;
    let mut take = |name: &'static str| {
        verified.remove(name).ok_or(Error::Incomplete {
            what: "program",
            name,
        })
    };
    Ok(Programs {
        from_container: take(Hook::FromContainer.name())?,
        from_netdev: take(Hook::FromNetdev.name())?,
        to_netdev: take(Hook::ToNetdev.name())?,
        from_host: take(Hook::FromHost.name())?,
        at_driver: take(Programs::AT_DRIVER)?,
        sockets: SocketHook::ALL
            .iter()
            .filter_map(|hook| Some((*hook, verified.remove(hook.name())?)))
            .collect(),
        scratch: scratch(&ebpf)?,
    })
}

/// Has the kernel look at all programs that the object has, by name. It verifies for each caller on its own (only those
/// without privileges wait for one another), so each program has a thread and the largest one decides how long it takes.
fn verify_all(ebpf: &mut Ebpf) -> Result<BTreeMap<&'static str, Program>> {
    thread::scope(|scope| {
        let running: Vec<_> = ebpf
            .programs_mut()
            .filter_map(|(name, program)| {
                let (name, verify) = verifier_of(name)?;
                Some((name, scope.spawn(move || verify(name, program))))
            })
            .collect();
        let ended = running.into_iter().map(|(name, thread)| {
            let ended = thread.join();
            Ok((name, ended.unwrap_or_else(|panic| resume_unwind(panic))?))
        });
        ended.collect()
    })
}

/// Loads one program.
type Verify = fn(&'static str, &mut aya::programs::Program) -> Result<Program>;

/// The name that lasts of a program that is known, and how it is loaded.
fn verifier_of(name: &str) -> Option<(&'static str, Verify)> {
    let packets = Hook::ALL
        .iter()
        .map(|hook| (hook.name(), packets as Verify));
    let sockets = SocketHook::ALL
        .iter()
        .map(|hook| (hook.name(), sockets as Verify));
    packets
        .chain([(Programs::AT_DRIVER, driver as Verify)])
        .chain(sockets)
        .find(|(known, _)| *known == name)
}

fn scratch(ebpf: &Ebpf) -> Result<Option<OwnedFd>> {
    let Some(aya::maps::Map::PerCpuArray(data)) = ebpf.map(map::SCRATCH.name) else {
        return Ok(None);
    };
    let fd = data.fd().as_fd().try_clone_to_owned();
    fd.map(Some).map_err(|source| Error::Row {
        action: "open",
        map: map::SCRATCH.name,
        key: "*".to_owned(),
        source,
    })
}

fn failed(error: ProgramError) -> Error {
    Error::Object(Box::new(error.into()))
}

fn packets(name: &'static str, program: &mut aya::programs::Program) -> Result<Program> {
    let program: &mut SchedClassifier = program.try_into().map_err(failed)?;
    program.load().map_err(|error| refusal(name, error))?;
    verified(name, program.info(), program.fd())
}

fn driver(name: &'static str, program: &mut aya::programs::Program) -> Result<Program> {
    let program: &mut Xdp = program.try_into().map_err(failed)?;
    program.load().map_err(|error| refusal(name, error))?;
    verified(name, program.info(), program.fd())
}

fn sockets(name: &'static str, program: &mut aya::programs::Program) -> Result<Program> {
    let program: &mut CgroupSockAddr = program.try_into().map_err(failed)?;
    program.load().map_err(|error| refusal(name, error))?;
    verified(name, program.info(), program.fd())
}

fn verified(
    name: &'static str,
    info: std::result::Result<ProgramInfo, ProgramError>,
    fd: std::result::Result<&ProgramFd, ProgramError>,
) -> Result<Program> {
    let info = info.map_err(failed)?;
    let fd = fd
        .map_err(failed)?
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| Error::Verification {
            program: name,
            log: String::new(),
            source,
        })?;
    Ok(Program {
        name,
        fd,
        id: info.id(),
        verified_instructions: info.verified_instruction_count().unwrap_or_default(),
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "aya's list of errors is open"
)]
fn refusal(program: &'static str, error: ProgramError) -> Error {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => Error::Verification {
            program,
            log: verifier_log.to_string(),
            source: io_error,
        },
        ProgramError::SyscallError(error) => Error::Verification {
            program,
            log: String::new(),
            source: error.io_error,
        },
        ProgramError::IOError(source) => Error::Verification {
            program,
            log: String::new(),
            source,
        },
        other => Error::Verification {
            program,
            log: String::new(),
            source: io::Error::other(other),
        },
    }
}
