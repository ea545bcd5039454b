// SPDX-License-Identifier: Apache-2.0
//! The time of day, for people.

/// Now, RFC 3339 with milliseconds.
pub(crate) fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
