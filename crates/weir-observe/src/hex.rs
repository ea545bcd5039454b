// SPDX-License-Identifier: Apache-2.0
//! Packet bytes as text and back.

use std::fmt::Write as _;

/// Bytes in a line of a dump.
const WIDTH: usize = 16;

/// Two digits for each byte, nothing between them.
pub fn encode(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The bytes of [`encode`]'s text; `None`: it is none.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| match *pair {
            [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
            _ => None,
        })
        .collect()
}

/// Offset, bytes and their letters, sixteen bytes for each line.
pub fn dump(bytes: &[u8]) -> Vec<String> {
    bytes
        .chunks(WIDTH)
        .enumerate()
        .map(|(line, chunk)| {
            let mut text = format!("{:08x} ", line * WIDTH);
            for place in 0..WIDTH {
                if place % 8 == 0 {
                    text.push(' ');
                }
                match chunk.get(place) {
                    Some(byte) => {
                        let _ = write!(text, "{byte:02x} ");
                    }
                    None => text.push_str("   "),
                }
            }
            text.push_str(" |");
            text.extend(chunk.iter().map(|&byte| match byte {
                b' '..=b'~' => char::from(byte),
                _ => '.',
            }));
            text.push('|');
            text
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_dump_is_what_people_know() {
        let lines = dump(b"GET / HTTP/1.1\r\nHost: a");
        assert_eq!(
            lines,
            [
                "00000000  47 45 54 20 2f 20 48 54  54 50 2f 31 2e 31 0d 0a  |GET / HTTP/1.1..|",
                "00000010  48 6f 73 74 3a 20 61                              |Host: a|",
            ]
        );
        assert!(dump(&[]).is_empty());
    }

    #[test]
    fn what_is_not_hexadecimal_is_refused() {
        for text in ["0", "0g", "é", "+1"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }
    }
}
