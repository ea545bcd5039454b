// SPDX-License-Identifier: Apache-2.0
//! As much of the ELF format as tells whether a program starts by itself.

use anyhow::{Context as _, Result};

/// Type of the program header that names the dynamic linker (`PT_INTERP`).
const INTERPRETER: u32 = 3;

/// The dynamic linker that a 64-bit little-endian program asks for.
pub(super) fn interpreter(program: &[u8]) -> Result<Option<String>> {
    let cut = || "the program is cut off";
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        anyhow::bail!("the program is not 64-bit little-endian ELF");
    }
    // Offsets as in the structures Elf64_Ehdr and Elf64_Phdr.
    let headers = number(program, 0x20, 8).with_context(cut)?;
    let size = number(program, 0x36, 2).with_context(cut)?;
    let count = number(program, 0x38, 2).with_context(cut)?;
    for index in 0..count {
        let header = headers + index * size;
        if number(program, header, 4).with_context(cut)? != u64::from(INTERPRETER) {
            continue;
        }
        let start = number(program, header + 0x08, 8).with_context(cut)?;
        let length = number(program, header + 0x20, 8).with_context(cut)?;
        let name = bytes(program, start, length).with_context(cut)?;
        let name = String::from_utf8_lossy(name);
        return Ok(Some(name.trim_end_matches('\0').to_owned()));
    }
    Ok(None)
}

fn bytes(program: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    program.get(start..end)
}

fn number(program: &[u8], start: u64, length: u64) -> Option<u64> {
    let bytes = bytes(program, start, length)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_names_its_linker() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = interpreter(&own).unwrap();
        assert!(found.unwrap().contains("ld-linux"));
    }

    #[test]
    fn a_program_without_headers_names_none_and_a_cut_one_is_refused() {
        let mut program = vec![0; 64];
        program[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert_eq!(interpreter(&program).unwrap(), None);
        program[0x38] = 1;
        program[0x20] = 200;
        assert!(interpreter(&program).is_err());
        assert!(interpreter(b"#!/bin/sh").is_err());
    }
}
