// SPDX-License-Identifier: Apache-2.0
//! Transport headers.

use super::{array, icmp_name, number16, number32};
use std::fmt;
use std::net::Ipv6Addr;
use weir_abi::Protocol;

/// The header behind the IP header, as far as it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    Tcp {
        source_port: u16,
        destination_port: u16,
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        window: u16,
    },
    Udp {
        source_port: u16,
        destination_port: u16,
        length: u16,
    },
    Sctp {
        source_port: u16,
        destination_port: u16,
        /// The first chunk's type.
        chunk: Option<u8>,
    },
    Icmp {
        protocol: Protocol,
        kind: u8,
        code: u8,
        /// Identifier and sequence number, of echo messages.
        echo: Option<(u16, u16)>,
        /// Who is asked for, in neighbour discovery.
        target: Option<Ipv6Addr>,
        /// The largest packet that fits, where the message says so.
        mtu: Option<u32>,
    },
}

/// The flags in the order that people say them: `SYN, ACK`.
pub fn tcp_flags(flags: u8) -> String {
    const NAMES: [(u8, &str); 8] = [
        (0x02, "SYN"),
        (0x01, "FIN"),
        (0x04, "RST"),
        (0x08, "PSH"),
        (0x10, "ACK"),
        (0x20, "URG"),
        (0x40, "ECE"),
        (0x80, "CWR"),
    ];
    NAMES
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| *name)
        .collect::<Vec<_>>()
        .join(", ")
}

impl Transport {
    pub(super) fn parse(protocol: Protocol, bytes: &[u8]) -> Option<Self> {
        match protocol {
            Protocol::TCP => Some(Self::Tcp {
                source_port: number16(bytes, 0)?,
                destination_port: number16(bytes, 2)?,
                sequence: number32(bytes, 4)?,
                acknowledgement: number32(bytes, 8)?,
                flags: *bytes.get(13)?,
                window: number16(bytes, 14)?,
            }),
            Protocol::UDP => Some(Self::Udp {
                source_port: number16(bytes, 0)?,
                destination_port: number16(bytes, 2)?,
                length: number16(bytes, 4)?,
            }),
            Protocol::SCTP => Some(Self::Sctp {
                source_port: number16(bytes, 0)?,
                destination_port: number16(bytes, 2)?,
                chunk: bytes.get(12).copied(),
            }),
            Protocol::ICMP | Protocol::ICMPV6 => Self::parse_icmp(protocol, bytes),
            _ => None,
        }
    }

    fn parse_icmp(protocol: Protocol, bytes: &[u8]) -> Option<Self> {
        let (kind, code) = (*bytes.first()?, *bytes.get(1)?);
        let version6 = protocol == Protocol::ICMPV6;
        let is_echo = match kind {
            0 | 8 => !version6,
            128 | 129 => version6,
            _ => false,
        };
        let is_neighbour = version6 && matches!(kind, 135 | 136);
        Some(Self::Icmp {
            protocol,
            kind,
            code,
            echo: if is_echo {
                number16(bytes, 4).zip(number16(bytes, 6))
            } else {
                None
            },
            target: if is_neighbour {
                array::<16>(bytes, 8).map(Ipv6Addr::from)
            } else {
                None
            },
            mtu: match (version6, kind, code) {
                (false, 3, 4) => number16(bytes, 6).map(u32::from),
                (true, 2, _) => number32(bytes, 4),
                _ => None,
            },
        })
    }

    /// What a line says behind the addresses.
    pub fn flags(&self) -> String {
        match *self {
            Self::Tcp { flags, .. } => tcp_flags(flags),
            Self::Udp { .. } => String::new(),
            Self::Sctp { chunk, .. } => chunk.map_or_else(String::new, sctp_chunk),
            Self::Icmp {
                protocol,
                kind,
                code,
                target,
                ..
            } => {
                let name = icmp_name(protocol, kind, code);
                match target {
                    Some(target) => format!("{name} {target}"),
                    None => name,
                }
            }
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = self.flags();
        match self {
            Self::Tcp {
                source_port,
                destination_port,
                sequence,
                acknowledgement,
                flags: _,
                window,
            } => write!(
                f,
                "tcp {source_port} -> {destination_port} [{flags}] seq {sequence} ack {acknowledgement} window {window}"
            ),
            Self::Udp {
                source_port,
                destination_port,
                length,
            } => write!(f, "udp {source_port} -> {destination_port} length {length}"),
            Self::Sctp {
                source_port,
                destination_port,
                chunk: _,
            } => write!(f, "sctp {source_port} -> {destination_port} {flags}"),
            Self::Icmp {
                protocol,
                echo,
                mtu,
                ..
            } => {
                write!(f, "{} {flags}", protocol.to_string().to_lowercase())?;
                if let Some((id, sequence)) = echo {
                    write!(f, " id {id} seq {sequence}")?;
                }
                if let Some(mtu) = mtu {
                    write!(f, " mtu {mtu}")?;
                }
                Ok(())
            }
        }
    }
}

/// Names of RFC 9260, section 3.2.
fn sctp_chunk(kind: u8) -> String {
    const NAMES: [&str; 12] = [
        "DATA",
        "INIT",
        "INIT ACK",
        "SACK",
        "HEARTBEAT",
        "HEARTBEAT ACK",
        "ABORT",
        "SHUTDOWN",
        "SHUTDOWN ACK",
        "ERROR",
        "COOKIE ECHO",
        "COOKIE ACK",
    ];
    match NAMES.get(usize::from(kind)) {
        Some(name) => (*name).to_owned(),
        None => format!("chunk {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_said_as_people_say_them() {
        assert_eq!(tcp_flags(0x12), "SYN, ACK");
        assert_eq!(tcp_flags(0x11), "FIN, ACK");
        assert_eq!(tcp_flags(0x18), "PSH, ACK");
        assert_eq!(tcp_flags(0), "");
    }
}
