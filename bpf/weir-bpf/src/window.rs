// SPDX-License-Identifier: Apache-2.0
//! The part of a packet that programs may read and write directly, whichever kind of program it is.

use core::arch::asm;
use core::ptr::{read_unaligned, read_volatile};
use weir_packet::WriteError;

/// What `bpf_skb_store_bytes` answers to an offset outside of the packet.
const OUTSIDE: WriteError = WriteError(-14);

/// Keeps the compiler from folding a pointer into later sums: the verifier ties a bounds check to
/// the very register that is dereferenced.
#[inline(always)]
pub fn opaque(value: usize) -> usize {
    let mut value = value;
    // An instruction, if an idle one: the kernel refuses line information of which two entries
    // point to the same place.
    // SAFETY: copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// A field of the context. Volatile, so that the compiler does not merge the load with another
/// one through a common pointer: the verifier wants every instruction to know what it points to.
#[inline(always)]
pub fn field(at: *const u32) -> u32 {
    // SAFETY: callers pass a field of the context, which is valid while the program runs.
    unsafe { read_volatile(at) }
}

/// A context that tells where its packet begins and ends.
pub trait Window {
    /// Where it begins.
    fn data(&self) -> usize;
    /// Where the directly accessible part ends.
    fn data_end(&self) -> usize;

    /// The address of a value at an offset, if it lies in the directly accessible part.
    #[inline(always)]
    fn at<V>(&self, offset: u32) -> Option<*mut V> {
        // The mask tells the verifier what callers know: offsets are small.
        let start = opaque(self.data() + (offset & 0x7fff) as usize);
        if start + size_of::<V>() > self.data_end() {
            None
        } else {
            Some(start as *mut V)
        }
    }

    /// `PacketRead::load`.
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // SAFETY: `at` checked the bounds; byte arrays need no alignment.
        self.at::<[u8; N]>(offset).map(|bytes| unsafe { *bytes })
    }

    /// `PacketRead::load_words`.
    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let words = self.at::<[u32; N]>(offset)?;
        // SAFETY: `at` checked the bounds; the packet aligns nothing.
        Some(unsafe { read_unaligned(words) })
    }

    /// `PacketWrite::store`.
    #[inline(always)]
    fn put<const N: usize>(&self, offset: u32, bytes: &[u8; N]) -> Result<(), WriteError> {
        let to = self.at::<[u8; N]>(offset).ok_or(OUTSIDE)?;
        // SAFETY: `at` checked the bounds; byte arrays need no alignment.
        unsafe { *to = *bytes };
        Ok(())
    }
}

/// A helper's answer.
#[inline(always)]
pub fn result(code: i64) -> Result<(), WriteError> {
    if code == 0 {
        Ok(())
    } else {
        Err(WriteError(code as i32))
    }
}
