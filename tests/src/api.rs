// SPDX-License-Identifier: Apache-2.0
//! What a caller of the agent's socket may send: refused in words or understood, never anything else.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use weir_api::endpoint::{Endpoint, EndpointCreated, EndpointRequest};
use weir_api::event::Event;
use weir_api::status::Status;

/// Every document is refused, or is the same after it was written and read again.
pub fn check(bytes: &[u8]) {
    round_trip::<EndpointRequest>(bytes);
    round_trip::<EndpointCreated>(bytes);
    round_trip::<Endpoint>(bytes);
    round_trip::<Event>(bytes);
    round_trip::<Status>(bytes);
}

fn round_trip<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let text = serde_json::to_vec(&value).expect("what was read can be written");
    let again: T = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(value, again);
}
