// SPDX-License-Identifier: Apache-2.0
//! A flow entry that other processors and the agent read and change at the same time.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use weir_abi::{FlowEntry, Seconds};

/// A reference to an entry in its table.
///
/// Fields that never change are read through [`Self::fixed`]; the others only through the methods,
/// which use atomic loads, stores and additions without ordering: each field stands for itself.
#[derive(Clone, Copy, Debug)]
pub struct LiveFlow<'t> {
    entry: NonNull<FlowEntry>,
    table: PhantomData<&'t FlowEntry>,
}

macro_rules! live_field {
    ($flow:expr, $field:ident, $atomic:ty, $inner:ty) => {{
        // SAFETY: `new` promises a valid, aligned entry for 't; the field lies inside of it.
        let field = unsafe { &raw mut (*$flow.entry.as_ptr()).$field };
        // SAFETY: the field is aligned (checked by the layout of `FlowEntry`) and while it is
        // shared it is only touched by atomic accesses, here and in the kernel.
        unsafe { <$atomic>::from_ptr(field.cast::<$inner>()) }
    }};
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
        Seconds(live_field!(self, expires, AtomicU32, u32).load(Ordering::Relaxed))
    }

    /// Writes only where something changes, so that an idle cache line stays shared.
    #[inline(always)]
    pub fn set_expires(&self, at: Seconds) {
        let field = live_field!(self, expires, AtomicU32, u32);
        if field.load(Ordering::Relaxed) != at.0 {
            field.store(at.0, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub fn last_report(&self) -> Seconds {
        Seconds(live_field!(self, last_report, AtomicU32, u32).load(Ordering::Relaxed))
    }

    #[inline(always)]
    pub fn set_last_report(&self, at: Seconds) {
        live_field!(self, last_report, AtomicU32, u32).store(at.0, Ordering::Relaxed);
    }

    #[inline(always)]
    pub fn state(&self) -> u32 {
        live_field!(self, state, AtomicU32, u32).load(Ordering::Relaxed)
    }

    /// Sets bits; writes only where one is new.
    #[inline(always)]
    pub fn add_state(&self, bits: u32) {
        let field = live_field!(self, state, AtomicU32, u32);
        let old = field.load(Ordering::Relaxed);
        if old & bits != bits {
            field.store(old | bits, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    pub fn packets(&self) -> u64 {
        live_field!(self, packets, AtomicU64, u64).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub fn bytes(&self) -> u64 {
        live_field!(self, bytes, AtomicU64, u64).load(Ordering::Relaxed)
    }

    /// Counts one packet.
    #[inline(always)]
    pub fn account(&self, bytes: u32) {
        live_field!(self, packets, AtomicU64, u64).fetch_add(1, Ordering::Relaxed);
        live_field!(self, bytes, AtomicU64, u64).fetch_add(u64::from(bytes), Ordering::Relaxed);
    }
}
