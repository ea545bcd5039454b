// SPDX-License-Identifier: Apache-2.0
//! A stream of changes of the host's network.
//!
//! The kernel drops notifications when a reader is slow; that is reported as [`Change::Lost`], upon which the reader
//! has to list everything again.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    BUFFER_SIZE, Subject, address::address_of, frame, link::link_of, neighbour::neighbour_of,
    padding, route::route_of,
};
use crate::{Address, Error, Link, Neighbour, NetNamespace, Result, Route};

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An interface is new or different.
    Link(Link),
    /// An interface is gone.
    LinkGone(Link),
    /// An address is new or different.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route of the main table is new or different.
    Route(Route),
    /// A route of the main table is gone.
    RouteGone(Route),
    /// A neighbour is new or different.
    Neighbour(Neighbour),
    /// A neighbour is gone.
    NeighbourGone(Neighbour),
    /// Changes were lost: what is known must be read again.
    Lost,
}

/// A subscription to changes in one network namespace.
pub struct Watch {
    socket: Socket,
    buffer: Vec<u8>,
    pending: VecDeque<Change>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
];

const SUBJECT: Subject<'static> = Subject {
    action: "watch",
    object: "network changes",
};

impl Watch {
    /// Subscribes in the network namespace of the calling thread. Open it before listing what is there, so that no
    /// change falls between.
    pub fn open() -> Result<Self> {
        let failed = |source| Error::kernel(SUBJECT.action, SUBJECT.object, source);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed)?;
        }
        socket.set_non_blocking(true).map_err(failed)?;
        Ok(Self {
            socket,
            buffer: vec![0; BUFFER_SIZE],
            pending: VecDeque::new(),
        })
    }

    /// Subscribes in another network namespace.
    pub fn open_in(namespace: &NetNamespace) -> Result<Self> {
        namespace.run_in(Self::open)?
    }

    /// Waits for the next change, at most for the given time (for ever when absent). None when the time is over.
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Change>> {
        loop {
            if let Some(change) = self.try_next()? {
                return Ok(Some(change));
            }
            let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
                PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
            });
            let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(None),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(Error::kernel(SUBJECT.action, SUBJECT.object, errno)),
            }
        }
    }

    /// The next change that has arrived already. With [`AsFd`] this fits any event loop: when the descriptor is
    /// readable, take changes until there are none.
    pub fn try_next(&mut self) -> Result<Option<Change>> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Ok(Some(change));
            }
            match self.socket.recv(&mut self.buffer.as_mut_slice(), 0) {
                Ok(length) => self.parse(length)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Some(Change::Lost));
                }
                Err(error) => return Err(Error::kernel(SUBJECT.action, SUBJECT.object, error)),
            }
        }
    }

    fn parse(&mut self, length: usize) -> Result<()> {
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let (_, message_length) = frame(rest, SUBJECT)?;
            let (bytes, tail) = rest.split_at(message_length);
            rest = tail.get(padding(message_length)..).unwrap_or_default();
            match NetlinkMessage::deserialize(bytes) {
                Ok(NetlinkMessage {
                    payload: NetlinkPayload::InnerMessage(message),
                    ..
                }) => {
                    self.pending.extend(change_of(&message));
                }
                Ok(_) => {}
                // What cannot be read may have been important.
                Err(error) => {
                    tracing::warn!(%error, "netlink notification not understood");
                    self.pending.push_back(Change::Lost);
                }
            }
        }
        Ok(())
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn change_of(message: &RouteNetlinkMessage) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(Change::Link(link_of(message))),
        RouteNetlinkMessage::DelLink(message) => Some(Change::LinkGone(link_of(message))),
        RouteNetlinkMessage::NewAddress(message) => address_of(message).map(Change::Address),
        RouteNetlinkMessage::DelAddress(message) => address_of(message).map(Change::AddressGone),
        RouteNetlinkMessage::NewRoute(message) => route_of(message).map(Change::Route),
        RouteNetlinkMessage::DelRoute(message) => route_of(message).map(Change::RouteGone),
        RouteNetlinkMessage::NewNeighbour(message) => neighbour_of(message).map(Change::Neighbour),
        RouteNetlinkMessage::DelNeighbour(message) => {
            neighbour_of(message).map(Change::NeighbourGone)
        }
        _ => None,
    }
}
