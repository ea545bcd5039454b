// SPDX-License-Identifier: Apache-2.0
//! ICMP errors: reading what they are about, translating them, making them; and the two answers a
//! gateway owes its pods, ARP and neighbour advertisements.

pub mod error;
pub mod inner;
pub mod neighbour;

pub use error::{ErrorKind, answer_with_error};
pub use inner::{Inner, translate_error};
pub use neighbour::{Neighbour, answer_arp, answer_solicitation};
