// SPDX-License-Identifier: Apache-2.0
//! A synchronous rtnetlink connection. Requests are methods on [`Netlink`], one file per kind of object.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel adds attributes and message types with every version"
)]

pub(crate) mod address;
pub(crate) mod link;
pub(crate) mod neighbour;
pub(crate) mod route;
pub(crate) mod watch;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::{Error, NetNamespace, Result};

/// The kernel sends dumps in datagrams of at most 32 KiB to a reader that offers as much.
const BUFFER_SIZE: usize = 64 * 1024;

/// A connection to the routing part of the kernel, in the network namespace that it was opened in.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// What a request is about, for error messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) action: &'static str,
    pub(crate) object: &'a str,
}

impl Subject<'_> {
    fn kernel(self, source: io::Error) -> Error {
        Error::kernel(self.action, self.object, source)
    }
}

impl Netlink {
    /// Connects to the kernel in the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let failed = |source| Error::kernel("open", "netlink socket", source);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_SIZE],
        })
    }

    /// Connects to the kernel in another network namespace; the caller stays where it is.
    pub fn open_in(namespace: &NetNamespace) -> Result<Self> {
        namespace.run_in(Self::open)?
    }

    /// Sends a request that changes something and waits for the kernel's verdict.
    pub(crate) fn change(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        subject: Subject<'_>,
    ) -> Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags, subject)?;
        self.receive(subject, |_| ())
    }

    /// Asks for all objects of a kind.
    pub(crate) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        subject: Subject<'_>,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<()> {
        self.send(message, NLM_F_REQUEST | NLM_F_DUMP, subject)?;
        self.receive(subject, each)
    }

    /// Asks for one object; the answer comes before the acknowledgement.
    pub(crate) fn get(
        &mut self,
        message: RouteNetlinkMessage,
        subject: Subject<'_>,
    ) -> Result<Option<RouteNetlinkMessage>> {
        let mut answer = None;
        self.send(message, NLM_F_REQUEST | NLM_F_ACK, subject)?;
        match self.receive(subject, |message| answer = Some(message)) {
            Ok(()) => Ok(answer),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        subject: Subject<'_>,
    ) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket
            .send(&bytes, 0)
            .map_err(|source| subject.kernel(source))?;
        Ok(())
    }

    /// Reads until the request with the current sequence number is answered in full.
    fn receive(
        &mut self,
        subject: Subject<'_>,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<()> {
        loop {
            let length = self
                .read_datagram()
                .map_err(|source| subject.kernel(source))?;
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let (sequence, message_length) = frame(rest, subject)?;
                let (bytes, tail) = rest.split_at(message_length);
                rest = tail.get(padding(message_length)..).unwrap_or_default();
                // An answer to a request that was given up.
                if sequence != self.sequence {
                    continue;
                }
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) {
                    Ok(message) => match message.payload {
                        NetlinkPayload::Done(_) => return Ok(()),
                        NetlinkPayload::Error(error) => {
                            return match error.code {
                                None => Ok(()),
                                Some(_) => Err(subject.kernel(error.to_io())),
                            };
                        }
                        NetlinkPayload::InnerMessage(inner) => each(inner),
                        _ => {}
                    },
                    // One object of a dump that this version cannot read must not hide all others.
                    Err(error) => {
                        tracing::warn!(action = subject.action, object = subject.object, %error, "netlink message skipped");
                    }
                }
            }
        }
    }

    fn read_datagram(&mut self) -> io::Result<usize> {
        loop {
            match self.socket.recv(&mut self.buffer.as_mut_slice(), 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Sequence number and length of the first message of a datagram.
fn frame(bytes: &[u8], subject: Subject<'_>) -> Result<(u32, usize)> {
    let number = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|four| four.try_into().ok())
            .map(u32::from_ne_bytes)
    };
    let length = number(0).and_then(|length| usize::try_from(length).ok());
    match (length, number(8)) {
        (Some(length), Some(sequence)) if (16..=bytes.len()).contains(&length) => {
            Ok((sequence, length))
        }
        _ => Err(Error::Protocol {
            action: subject.action,
            object: subject.object.to_owned(),
            source: "a message is cut off".into(),
        }),
    }
}

/// Messages of a datagram start at multiples of four.
fn padding(length: usize) -> usize {
    length.next_multiple_of(4) - length
}
