// SPDX-License-Identifier: Apache-2.0
//! Answers one question: how does the host's network look, and how is it changed?
//!
//! The only place with `setns`, `unshare`, mounts and netlink. Knows nothing of Weir's own objects (endpoints,
//! services, policies) and never decides what the network should look like: callers say what they want.
//! Everything is synchronous; a [`Netlink`] handle talks to the namespace that it was opened in for as long as it
//! lives, so no caller has to switch namespaces in order to configure one.
//!
//! Start reading at [`Netlink`], then [`netns`].

pub mod cgroup;
mod error;
mod grace;
pub mod mount;
mod netlink;
pub mod netns;
pub mod offload;
mod sockets;
pub mod sysctl;
mod types;

pub use error::{Error, Result};
pub use grace::{Expedited, GracePeriods};
pub use netlink::{
    Netlink,
    address::Address,
    link::{Link, LinkChange, Veth, Vxlan},
    neighbour::{Neighbour, NeighbourState},
    route::{DefaultRoute, Route, RouteKind, RouteScope},
    watch::{Change, Watch},
};
pub use netns::NetNamespace;
pub use sockets::{SocketDiagnosis, UdpSocket};
pub use types::{Family, IfIndex, MacAddress};
