// SPDX-License-Identifier: Apache-2.0
//! What a refused request answers.

use serde::{Deserialize, Serialize};

/// Body of every answer whose status is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What is wrong, with which object.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}
