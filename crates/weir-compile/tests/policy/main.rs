// SPDX-License-Identifier: Apache-2.0
//! Rows of policy against the definition of `NetworkPolicy`, in random clusters and in known cases.
//!
//! `WEIR_POLICY_FACTOR=100 cargo test --release --package weir-compile --test policy` asks as many
//! times more questions than the normal run.

#[cfg(test)]
mod cases;
#[cfg(test)]
mod evaluator;
#[cfg(test)]
mod kernel;
#[cfg(test)]
mod nearest;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod random;
#[cfg(test)]
mod yaml;
