// SPDX-License-Identifier: Apache-2.0
//! Kernel parameters of the network namespace that the calling thread is in.
//!
//! `/proc/sys/net` shows the namespace of the task that opens the file, so [`crate::NetNamespace::run_in`] around
//! these functions is enough to reach another namespace.

use std::fs;

use crate::{Error, Result};

/// Reads a parameter named with dots or slashes (`net.ipv4.ip_forward`). Interface names that hold dots need the
/// form with slashes.
pub fn read(name: &str) -> Result<String> {
    let path = path(name);
    fs::read_to_string(&path)
        .map(|value| value.trim().to_owned())
        .map_err(|source| Error::kernel("read sysctl", path, source))
}

/// Writes a parameter.
pub fn write(name: &str, value: &str) -> Result<()> {
    let path = path(name);
    fs::write(&path, value).map_err(|source| Error::kernel("write sysctl", path, source))
}

/// Writes a parameter unless it has the value already; tells whether it wrote.
pub fn ensure(name: &str, value: &str) -> Result<bool> {
    if read(name)? == value {
        return Ok(false);
    }
    write(name, value)?;
    Ok(true)
}

fn path(name: &str) -> String {
    if name.contains('/') {
        format!("/proc/sys/{name}")
    } else {
        format!("/proc/sys/{}", name.replace('.', "/"))
    }
}
