// SPDX-License-Identifier: Apache-2.0
//! Services: listed from what is compiled, compared by the loop.

use axum::extract::State;
use weir_api::service::ServicesCompared;

use super::{Answer, Api, ok};
use crate::core::Input;

pub(super) async fn compare(State(api): State<Api>) -> Answer<ServicesCompared> {
    ok(api.ask(Input::CompareServices).await?)
}
