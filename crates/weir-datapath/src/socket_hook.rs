// SPDX-License-Identifier: Apache-2.0
//! The calls of sockets that have a program.

use crate::sys::link::SocketCall;

/// The socket calls that services are translated at; each is a program of this name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SocketHook {
    /// `connect` with an IPv4 address.
    Connect4,
    /// `connect` with an IPv6 address.
    Connect6,
    /// `sendmsg` and the like of UDP, with an IPv4 address.
    Send4,
    /// The same with an IPv6 address.
    Send6,
    /// `recvmsg` and the like of UDP, from an IPv4 address.
    Receive4,
    /// The same from an IPv6 address.
    Receive6,
    /// `getpeername`, IPv4.
    PeerName4,
    /// `getpeername`, IPv6.
    PeerName6,
}

impl SocketHook {
    /// All of them. What asks for the peer's name comes first: a socket that is translated must find its way back.
    pub const ALL: &[Self] = &[
        Self::PeerName4,
        Self::PeerName6,
        Self::Receive4,
        Self::Receive6,
        Self::Send4,
        Self::Send6,
        Self::Connect4,
        Self::Connect6,
    ];

    /// The name of the program and of the link's pin.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Send4 => "sendmsg4",
            Self::Send6 => "sendmsg6",
            Self::Receive4 => "recvmsg4",
            Self::Receive6 => "recvmsg6",
            Self::PeerName4 => "getpeername4",
            Self::PeerName6 => "getpeername6",
        }
    }

    /// The hook of a program's name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|hook| hook.name() == name)
    }

    /// What the kernel calls it.
    pub(crate) const fn call(self) -> SocketCall {
        match self {
            Self::Connect4 => SocketCall::Connect4,
            Self::Connect6 => SocketCall::Connect6,
            Self::Send4 => SocketCall::Send4,
            Self::Send6 => SocketCall::Send6,
            Self::Receive4 => SocketCall::Receive4,
            Self::Receive6 => SocketCall::Receive6,
            Self::PeerName4 => SocketCall::PeerName4,
            Self::PeerName6 => SocketCall::PeerName6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again() {
        for &hook in SocketHook::ALL {
            assert_eq!(SocketHook::from_name(hook.name()), Some(hook));
        }
        assert_eq!(SocketHook::from_name("connect5"), None);
    }
}
