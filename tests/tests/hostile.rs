// SPDX-License-Identifier: Apache-2.0
//! A short, fixed run of bad input through every check; the fuzz targets do the same for hours.

use weir_tests::mutate::{Numbers, mutate};
use weir_tests::{api, packet, seeds};

/// Spoiled copies of each good input.
const COPIES: usize = 2000;

fn feed(good: &[Vec<u8>], check: impl Fn(&[u8])) {
    let mut numbers = Numbers::new(1);
    for bytes in good {
        check(bytes);
        for _ in 0..COPIES {
            check(&mutate(bytes, &mut numbers));
        }
    }
}

#[test]
fn frames_are_read_without_harm() {
    feed(&seeds::frames(), packet::check);
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
    feed(&seeds::documents(), api::check);
}
