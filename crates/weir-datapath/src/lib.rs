// SPDX-License-Identifier: Apache-2.0
//! How do programs, links and rows get into the kernel and back out?
//!
//! Loads the eBPF object, pins its maps and links, carries out plans, reads back what is there, collects expired
//! flows, hands out events and runs loaded programs over test packets. The only crate that writes kernel state of the
//! datapath, and the only one that knows aya. It must not know what rows mean (`weir-compile`), how interfaces are
//! made (`weir-net`) or how events are named (`weir-observe`). Everything is synchronous.
//!
//! Start reading at [`Loader`], then [`Maps`].

pub mod clock;
pub mod collect;
mod drivers;
mod dry_run;
mod error;
mod events;
mod frame_run;
mod links;
mod loader;
mod maps;
mod object;
mod pinned_link;
mod pins;
mod read_back;
mod rows;
mod shape;
mod sizes;
mod socket_hook;
mod sockets;
mod sys;
pub mod table;
mod test_run;

pub use drivers::{Acceleration, DriverLink};
pub use dry_run::{DryOutput, DryRun};
pub use error::{Error, Result};
pub use events::EventSource;
pub use frame_run::FrameOutput;
pub use links::LinkState;
pub use loader::{
    Activation, Datapath, LoadReport, Loader, Migrated, Program, Programs, Replaced, Resized,
};
pub use maps::{MapUsage, Maps};
pub use object::embedded as embedded_object;
pub use pinned_link::Attached;
pub use pins::PinRoot;
pub use rows::{Failure, Outcome, carry_out, execute};
pub use shape::Shape;
pub use sizes::MapSizes;
pub use socket_hook::SocketHook;
pub use sockets::SocketLink;
pub use table::{Copied, KeySet, PerCpu, RawTable, Table, TableInfo};
pub use test_run::{SkBuff, TestOutput, TestRun, per_packet};
pub use weir_abi::observation::Hook;
