// SPDX-License-Identifier: Apache-2.0
//! SCTP packets with one chunk, as bytes.

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) source: u16,
    pub(super) destination: u16,
    /// The verification tag: the one that the receiver has named, 0 in an INIT.
    pub(super) tag: u32,
    pub(super) chunk: Chunk,
}

/// The chunks that are needed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    Init { tag: u32 },
    InitAck { tag: u32, cookie: Vec<u8> },
    Abort,
}

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const STATE_COOKIE: u16 = 7;
/// The common header, and the fixed part of an INIT or INIT ACK chunk with its own header.
const HEADER: usize = 12;
const FIXED: usize = 20;
const CHECKSUM: std::ops::Range<usize> = 8..12;

impl Packet {
    /// Reads a packet; none when its checksum is wrong or its first chunk is another one.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut unsigned = bytes.to_vec();
        unsigned.get_mut(CHECKSUM)?.fill(0);
        if bytes.get(CHECKSUM)? != checksum(&unsigned) {
            return None;
        }
        let short = |at: usize| -> Option<u16> {
            Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
        };
        let long = |at: usize| -> Option<u32> {
            Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
        };
        let chunk = match *bytes.get(HEADER)? {
            INIT => Chunk::Init {
                tag: long(HEADER + 4)?,
            },
            INIT_ACK => {
                let parameter = HEADER + FIXED;
                let length = usize::from(short(parameter + 2)?);
                if short(parameter)? != STATE_COOKIE {
                    return None;
                }
                let cookie = bytes.get(parameter + 4..parameter + length)?.to_vec();
                Chunk::InitAck {
                    tag: long(HEADER + 4)?,
                    cookie,
                }
            }
            ABORT => Chunk::Abort,
            _ => return None,
        };
        Some(Self {
            source: short(0)?,
            destination: short(2)?,
            tag: long(4)?,
            chunk,
        })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = [self.source.to_be_bytes(), self.destination.to_be_bytes()].concat();
        bytes.extend(self.tag.to_be_bytes());
        bytes.extend([0; 4]);
        let (kind, body) = match &self.chunk {
            Chunk::Init { tag } => (INIT, opening(*tag)),
            Chunk::InitAck { tag, cookie } => {
                let mut body = opening(*tag);
                body.extend(STATE_COOKIE.to_be_bytes());
                body.extend(length(cookie.len() + 4));
                body.extend(cookie);
                (INIT_ACK, body)
            }
            Chunk::Abort => (ABORT, Vec::new()),
        };
        bytes.extend([kind, 0]);
        bytes.extend(length(body.len() + 4));
        bytes.extend(body);
        // Chunks end at a multiple of four.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let sum = checksum(&bytes);
        if let Some(place) = bytes.get_mut(CHECKSUM) {
            place.copy_from_slice(&sum);
        }
        bytes
    }
}

/// Tag, window, one stream each way, and the first number.
fn opening(tag: u32) -> Vec<u8> {
    let mut body = tag.to_be_bytes().to_vec();
    body.extend(65536_u32.to_be_bytes());
    body.extend([0, 1, 0, 1]);
    body.extend(tag.to_be_bytes());
    body
}

fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// CRC-32C, which SCTP writes in the order of its bits (RFC 9260, appendix A).
fn checksum(bytes: &[u8]) -> [u8; 4] {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(sum & 1));
        }
    }
    (!sum).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_were_written() {
        for chunk in [
            Chunk::Init { tag: 7 },
            Chunk::InitAck {
                tag: 8,
                cookie: b"hello".to_vec(),
            },
            Chunk::Abort,
        ] {
            let packet = Packet {
                source: 4000,
                destination: 80,
                tag: 9,
                chunk,
            };
            let mut bytes = packet.to_bytes();
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(Packet::parse(&bytes), Some(packet));
            bytes[3] ^= 1;
            assert_eq!(Packet::parse(&bytes), None);
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        // The check value of CRC-32C for "123456789".
        assert_eq!(checksum(b"123456789"), 0xe306_9283_u32.to_le_bytes());
    }
}
