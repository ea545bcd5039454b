// SPDX-License-Identifier: Apache-2.0
//! Bytes for large transfers: a pattern that both sides can make and a checksum over what arrived.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const CHUNK: usize = 64 * 1024;

/// The bytes of a pattern: a different word at every place, so that a lost, doubled or moved piece shows.
#[derive(Debug)]
struct Pattern {
    state: u64,
}

impl Pattern {
    fn new(seed: u64) -> Self {
        Self { state: seed | 1 }
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            // xorshift64*
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            let bytes = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}

/// A checksum that depends on every byte and its place, whatever pieces the bytes arrive in.
#[derive(Debug, Default)]
pub(crate) struct Checksum {
    hash: u64,
    rest: Vec<u8>,
}

impl Checksum {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        if !self.rest.is_empty() {
            let (head, tail) = bytes.split_at(bytes.len().min(8 - self.rest.len()));
            self.rest.extend_from_slice(head);
            bytes = tail;
            if self.rest.len() < 8 {
                return;
            }
            let word = std::mem::take(&mut self.rest);
            self.words(&word);
        }
        let (words, rest) = bytes.split_at(bytes.len() - bytes.len() % 8);
        self.words(words);
        self.rest.extend_from_slice(rest);
    }

    pub(crate) fn finish(mut self) -> String {
        let mut rest = std::mem::take(&mut self.rest);
        rest.resize(8, 0);
        self.words(&rest);
        format!("{:016x}", self.hash)
    }

    fn words(&mut self, bytes: &[u8]) {
        for word in bytes.chunks_exact(8) {
            let word = word.try_into().map_or(0, u64::from_le_bytes);
            self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Sends so many bytes of the pattern of a seed and returns their checksum.
pub(crate) async fn send(
    mut to: impl AsyncWrite + Unpin,
    mut count: u64,
    seed: u64,
) -> std::io::Result<String> {
    let mut pattern = Pattern::new(seed);
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; CHUNK];
    while count > 0 {
        let length = usize::try_from(count).map_or(CHUNK, |count| count.min(CHUNK));
        let piece = &mut buffer[..length];
        pattern.fill(piece);
        checksum.update(piece);
        to.write_all(piece).await?;
        count -= length as u64;
    }
    to.flush().await?;
    Ok(checksum.finish())
}

/// Takes so many bytes and returns their checksum.
pub(crate) async fn receive(
    mut from: impl AsyncRead + Unpin,
    mut count: u64,
) -> std::io::Result<String> {
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; CHUNK];
    while count > 0 {
        let length = usize::try_from(count).map_or(CHUNK, |count| count.min(CHUNK));
        let taken = from.read(&mut buffer[..length]).await?;
        if taken == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        checksum.update(&buffer[..taken]);
        count -= taken as u64;
    }
    Ok(checksum.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(pieces: &[&[u8]]) -> String {
        let mut checksum = Checksum::default();
        for piece in pieces {
            checksum.update(piece);
        }
        checksum.finish()
    }

    #[test]
    fn checksums_depend_on_bytes_and_places_but_not_on_pieces() {
        let mut bytes = vec![0; 1000];
        Pattern::new(7).fill(&mut bytes);
        let whole = checksum(&[&bytes]);
        assert_eq!(
            whole,
            checksum(&[&bytes[..3], &bytes[3..4], &bytes[4..999], &bytes[999..]])
        );
        let mut swapped = bytes.clone();
        swapped.swap(10, 20);
        assert_ne!(whole, checksum(&[&swapped]));
        assert_ne!(whole, checksum(&[&bytes[..999]]));
    }
}
