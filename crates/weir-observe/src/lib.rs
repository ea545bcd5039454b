// SPDX-License-Identifier: Apache-2.0
//! What did the kernel report, in names instead of numbers?
//!
//! Records of the ring buffer become [`weir_api::event::Event`]s with names, reasons and hints; a
//! person's filter picks some of them; a formatter makes lines of them. All of it is computation
//! over its arguments.
//!
//! The crate must not know where records come from (`weir-datapath`), where names come from (the
//! agent implements [`Names`]) nor where lines go (`weir-cli`). It has no clock: [`BootClock`] is
//! given both clocks' readings.
//!
//! Start reading at [`decode`].

pub mod clock;
pub mod decode;
pub mod filter;
pub mod flow;
pub mod hex;
pub mod hint;
pub mod line;
pub mod names;
pub mod packet;

pub use clock::BootClock;
pub use decode::{DecodeProblem, Decoded, Decoder, Problems, Signal, decode, verdicts};
pub use filter::Filter;
pub use names::{Denial, Names};
