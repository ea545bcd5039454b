// SPDX-License-Identifier: Apache-2.0
//! The eBPF object that is built into the binary.

use crate::{Error, Result};

/// Empty where the crate was built without the object (see `build.rs`).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir.o"));

/// The embedded object.
pub fn embedded() -> Result<&'static [u8]> {
    if OBJECT.is_empty() {
        Err(Error::NoObject)
    } else {
        Ok(OBJECT)
    }
}
