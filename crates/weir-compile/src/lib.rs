// SPDX-License-Identifier: Apache-2.0
//! Which rows should the maps hold, and in which order do we get there?
//!
//! Pure: `compile` turns the desired world into [`Rows`] (and what could not be realized into
//! reports), [`plan()`] compares rows that were read back with those and says what to write, in
//! order. The crate must not know how rows get into the kernel (`weir-datapath`) nor where the world
//! comes from (`weir-cluster`).
//!
//! Start reading at [`Rows`], then [`plan()`].

pub mod plan;
pub mod prefix;
pub mod rows;

pub use plan::{Operation, Plan, plan};
pub use rows::Rows;
