// SPDX-License-Identifier: Apache-2.0
//! Bad input in a fixed series: the same seed gives the same bytes on every machine.

/// A small generator of numbers (xorshift64*); good enough to spread mistakes, and it needs no dependency.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// A series of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below the limit; 0 where the limit is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next_number() % limit).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next_number().to_le_bytes()[7]
    }
}

/// Spoils good input in one to four places: flips bits, writes borders of ranges, cuts off, repeats, makes longer.
pub fn mutate(good: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len());
        match numbers.below(7) {
            0 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << numbers.below(8);
                }
            }
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)];
                }
            }
            2 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = numbers.byte();
                }
            }
            3 => bytes.truncate(at),
            4 => {
                let part = bytes[at..].to_vec();
                bytes.extend(part.iter().take(64));
            }
            5 => {
                let more = numbers.below(64);
                for _ in 0..more {
                    bytes.push(numbers.byte());
                }
            }
            _ => {
                if !bytes.is_empty() {
                    bytes.remove(at);
                }
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_the_same_every_time() {
        let series = |seed| {
            let mut numbers = Numbers::new(seed);
            (0..50)
                .map(|_| mutate(b"good input", &mut numbers))
                .collect::<Vec<_>>()
        };
        assert_eq!(series(1), series(1));
        assert_ne!(series(1), series(2));
    }

    #[test]
    fn nothing_can_be_spoiled_too() {
        let mut numbers = Numbers::new(3);
        for _ in 0..100 {
            mutate(b"", &mut numbers);
        }
    }
}
