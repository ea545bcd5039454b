// SPDX-License-Identifier: Apache-2.0
//! Which rows should the maps hold, and in which order do we get there?
//!
//! Pure: [`compile()`] turns the desired world into [`Rows`] and routes (and what could not be
//! realized into [`Problem`]s), [`plan()`] compares rows that were read back with those and says what
//! to write, in order. The crate must not know how rows get into the kernel (`weir-datapath`) nor
//! where the world comes from (`weir-cluster`).
//!
//! Start reading at [`compile()`], then [`plan()`].

pub mod compile;
pub mod exempt;
pub mod indices;
pub mod plan;
pub mod policy;
pub mod prefix;
pub mod problem;
pub mod routes;
pub mod rows;
pub mod service;

pub use compile::{Compiled, LocalEndpoint, Owner, RoutingMode, Settings, compile};
pub use indices::NodeIndices;
pub use plan::{Operation, Plan, plan, plan_delta};
pub use policy::{PolicyCompiler, PolicyDelta, PolicyInput, PolicyLimits};
pub use problem::Problem;
pub use routes::{DesiredRoute, RoutePath};
pub use rows::Rows;
