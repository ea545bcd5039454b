// SPDX-License-Identifier: Apache-2.0
//! What many objects cost a node: how long it takes from an object to the kernel's row, and what the agent needs for it.
//!
//! These measure and are run by name with `--ignored`. `WEIR_TEST_PROGRAM` names the `weir` that is measured, rather
//! than this executable.

#[cfg(test)]
#[path = "support/node.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod node;
#[cfg(test)]
#[path = "scale/policies.rs"]
mod policies;
#[cfg(test)]
#[path = "scale/process.rs"]
mod process;
#[cfg(test)]
#[path = "scale/services.rs"]
mod services;
