// SPDX-License-Identifier: Apache-2.0
//! What crosses the line between the kernel programs and user space?
//!
//! Every map key and value, every event record, the load-time configuration, the drop reasons and
//! the observation points: declared once, compiled into the eBPF object and into every crate that
//! reads what the object wrote. Each type proves by `zerocopy` derives that it has no padding and
//! no invalid bit pattern, so a value read from a map is a value of the type.
//!
//! The crate must not know how maps are opened (`weir-datapath`), how packets are parsed
//! (`weir-packet`) or what is decided with the rows (`weir-verdict`).
//!
//! Start reading at [`flow`] (the heart of the datapath) and [`reason`] (why packets are dropped).
//!
//! Numbers of the network (addresses, ports) are byte arrays in network order, so their byte order
//! cannot be forgotten. Numbers of the machine are plain integers.
#![no_std]

pub mod address;
pub mod config;
pub mod counter;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod identity;
pub mod ipcache;
pub mod map;
pub mod node;
pub mod number;
pub mod observation;
pub mod policy;
pub mod reason;
pub mod service;

pub use address::{Address, MacAddress, Port, Protocol};
pub use config::DatapathConfig;
pub use endpoint::EndpointRow;
pub use flow::{FlowEntry, FlowKey};
pub use identity::Identity;
pub use number::{
    BlockGroup, EndpointId, FrontendId, Generation, IfIndex, NodeIndex, PolicyCookie, PolicySet,
    Seconds, ServiceId, Slot,
};
pub use observation::{ObservationPoint, TraceReason};
pub use reason::DropReason;

/// Version of every layout in this crate. Raised with any change to a map key, a map value or an
/// event record; pinned maps of another version are migrated or rebuilt (ADR 0006).
pub const ABI_VERSION: u16 = 2;
