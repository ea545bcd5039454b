// SPDX-License-Identifier: Apache-2.0
//! Worlds of a few services that often collide, and what their rows must be.

mod cases;
mod evaluate;
mod limits;
mod restart;
mod steps;
pub(super) mod worlds;

use proptest::prelude::ProptestConfig;

/// Histories are long, so fewer of them; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = ProptestConfig::default().cases;
    ProptestConfig::with_cases(if asked == 256 { 48 } else { asked })
}
