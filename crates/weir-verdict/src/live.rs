// SPDX-License-Identifier: Apache-2.0
//! A flow entry that other processors and the agent read and change at the same time.

use core::marker::PhantomData;
use core::ptr::{NonNull, read_volatile, write_volatile};
use weir_abi::flow::state;
use weir_abi::{FlowEntry, Seconds};

/// A reference to an entry in its table.
///
/// Fields that never change are read through [`Self::fixed`]; the others only through the methods:
/// loads and stores of whole aligned words, which no processor tears, and additions that are atomic
/// in the kernel. Each field stands for itself; no order between them is promised or needed.
#[derive(Clone, Copy, Debug)]
pub struct LiveFlow<'t> {
    entry: NonNull<FlowEntry>,
    table: PhantomData<&'t FlowEntry>,
}

/// The address of a changing field.
macro_rules! place {
    ($flow:expr, $field:ident) => {
        // SAFETY: `new` promises a valid, aligned entry for 't; the field lies inside of it.
        unsafe { &raw mut (*$flow.entry.as_ptr()).$field }
    };
}

/// Adds to a counter that other processors add to as well.
#[cfg(target_arch = "bpf")]
///
/// # Safety
/// `counter` must be valid and aligned.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, amount: u64) {
    // Written out, because the compiler's target description knows no atomic operations.
    // SAFETY: the counter is valid and aligned; the instruction touches nothing else.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {amount}",
            counter = in(reg) counter,
            amount = in(reg) amount,
            options(nostack),
        );
    }
}

/// Adds to a counter; tables in memory belong to one thread.
#[cfg(not(target_arch = "bpf"))]
///
/// # Safety
/// `counter` must be valid and aligned.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, amount: u64) {
    // SAFETY: the counter is valid and aligned.
    let before = unsafe { read_volatile(counter) };
    // SAFETY: as above.
    unsafe { write_volatile(counter, before.wrapping_add(amount)) };
}

/// One load that the compiler neither splits nor repeats.
#[inline(always)]
fn load<V: Copy>(field: *const V) -> V {
    // SAFETY: callers pass a field of a valid entry.
    unsafe { read_volatile(field) }
}

/// One store that the compiler neither splits nor leaves out.
#[inline(always)]
fn store<V: Copy>(field: *mut V, value: V) {
    // SAFETY: callers pass a field of a valid entry.
    unsafe { write_volatile(field, value) };
}

impl<'t> LiveFlow<'t> {
    /// # Safety
    /// `entry` must point to an entry that stays allocated for `'t` (a map value until the program
    /// ends, an entry owned by a table in memory), and whose changing fields nobody accesses other
    /// than atomically meanwhile.
    #[inline(always)]
    pub const unsafe fn new(entry: NonNull<FlowEntry>) -> Self {
        Self {
            entry,
            table: PhantomData,
        }
    }

    /// The entry's place.
    #[inline(always)]
    pub const fn as_ptr(self) -> *const FlowEntry {
        self.entry.as_ptr()
    }

    /// The fields that do not change while the entry lives.
    ///
    /// The reference covers the changing fields too; they must be read through the methods.
    #[inline(always)]
    pub const fn fixed(&self) -> &'t FlowEntry {
        // SAFETY: valid and aligned by the promise made to `new`.
        unsafe { self.entry.as_ref() }
    }

    #[inline(always)]
    pub fn expires(&self) -> Seconds {
        load(place!(self, expires))
    }

    /// Writes only where something changes, so that an idle cache line stays shared.
    #[inline(always)]
    pub fn set_expires(&self, at: Seconds) {
        if self.expires().0 != at.0 {
            store(place!(self, expires), at);
        }
    }

    #[inline(always)]
    pub fn last_report(&self) -> Seconds {
        load(place!(self, last_report))
    }

    #[inline(always)]
    pub fn set_last_report(&self, at: Seconds) {
        store(place!(self, last_report), at);
    }

    #[inline(always)]
    pub fn state(&self) -> u32 {
        load(place!(self, state))
    }

    /// Whether the connection has been answered.
    #[inline(always)]
    pub fn is_answered(&self) -> bool {
        self.state() & state::ANSWERED != 0
    }

    /// Sets bits; writes only where one is new.
    #[inline(always)]
    pub fn add_state(&self, bits: u32) {
        let old = self.state();
        if old & bits != bits {
            store(place!(self, state), old | bits);
        }
    }

    #[inline(always)]
    pub fn packets(&self) -> u64 {
        load(place!(self, packets))
    }

    #[inline(always)]
    pub fn bytes(&self) -> u64 {
        load(place!(self, bytes))
    }

    /// Counts one packet.
    #[inline(always)]
    pub fn account(&self, bytes: u32) {
        let (count, total) = (place!(self, packets), place!(self, bytes));
        // SAFETY: fields of a valid, aligned entry.
        unsafe { add(count, 1) };
        // SAFETY: as above.
        unsafe { add(total, u64::from(bytes)) };
    }
}
