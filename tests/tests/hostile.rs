// SPDX-License-Identifier: Apache-2.0
//! A short, fixed run of bad input through every check; the fuzz targets do the same for hours.

use weir_tests::mutate::{Numbers, mutate};
use weir_tests::{api, packet, seeds, verdict};

/// Makes the run longer: so many times the usual number of copies.
const LONGER: &str = "WEIR_HOSTILE_FACTOR";

/// Checks each good input and that many spoiled copies of it.
fn feed(good: &[Vec<u8>], copies: usize, check: impl Fn(&[u8])) {
    let factor: usize = std::env::var(LONGER)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let mut numbers = Numbers::new(factor.try_into().unwrap_or(1));
    for bytes in good {
        check(bytes);
        for _ in 0..copies * factor {
            check(&mutate(bytes, &mut numbers));
        }
    }
}

#[test]
fn frames_are_read_without_harm() {
    feed(&seeds::frames(), 2000, packet::check);
}

#[test]
fn frames_cut_off_at_every_byte_are_read_without_harm() {
    for frame in seeds::frames() {
        for length in 0..frame.len() {
            packet::check(&frame[..length]);
        }
    }
}

#[test]
fn documents_on_the_socket_are_understood_or_refused() {
    feed(&seeds::documents(), 2000, api::check);
}

#[test]
fn frames_are_decided_without_harm_at_every_hook() {
    feed(&seeds::frames(), 500, verdict::check);
}
