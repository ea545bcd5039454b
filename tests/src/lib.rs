// SPDX-License-Identifier: Apache-2.0
//! What must hold whatever a pod, a peer or a caller sends?
//!
//! Each check takes bytes from outside and panics where Weir breaks a promise about them. The short runs in `tests/`
//! feed the checks with a fixed series of bad input; the targets in `fuzz/` feed them for hours. The crate must not
//! know anything privileged: no kernel, no namespace, no socket. Start reading at [`packet`].

pub mod api;
pub mod mutate;
pub mod packet;
pub mod seeds;
pub mod verdict;
