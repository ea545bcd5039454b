// SPDX-License-Identifier: Apache-2.0
//! What becomes of a packet, once as people read it and once as the kernel's build carries it.

use weir_abi::{DropReason, IfIndex};

/// Where a rewritten packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Redirect {
    /// Into the namespace behind the other end of this link, at once (`bpf_redirect_peer`).
    Peer(IfIndex),
    /// Out of this device, as it is (`bpf_redirect`).
    Egress(IfIndex),
    /// Out of this device, MAC addresses by the kernel (`bpf_redirect_neigh`).
    Neighbour(IfIndex),
    /// In through this device (`bpf_redirect` with `BPF_F_INGRESS`).
    Ingress(IfIndex),
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on along the path it is on.
    Pass,
    Redirect(Redirect),
    /// It is gone, for this reason.
    Drop(DropReason),
    /// It is gone for this reason, but its sender is told by the packet that it becomes.
    Answer(DropReason, Redirect),
}

/// A [`Verdict`], or none yet, with every field filled in.
///
/// A variant of an enum leaves the fields of the others undefined, and where the compiler joins
/// ways it may take any register for such a field, also one that holds a pointer: then the verifier
/// refuses the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fate {
    what: u32,
    reason: u32,
    how: u32,
    to: IfIndex,
}

const NOT_DECIDED: u32 = 0;
const PASS: u32 = 1;
const REDIRECT: u32 = 2;
const DROP: u32 = 3;
const ANSWER: u32 = 4;

const PEER: u32 = 1;
const EGRESS: u32 = 2;
const NEIGHBOUR: u32 = 3;
const INGRESS: u32 = 4;

impl Fate {
    /// Nothing decided: on to the next step.
    pub const OPEN: Self = Self::plain(NOT_DECIDED);
    /// [`Verdict::Pass`].
    pub const PASS: Self = Self::plain(PASS);

    #[inline(always)]
    const fn plain(what: u32) -> Self {
        Self {
            what,
            reason: 0,
            how: 0,
            to: IfIndex::NONE,
        }
    }

    /// [`Verdict::Drop`].
    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self {
            what: DROP,
            reason: reason.number() as u32,
            how: 0,
            to: IfIndex::NONE,
        }
    }

    /// [`Verdict::Redirect`].
    #[inline(always)]
    pub const fn redirect(redirect: Redirect) -> Self {
        let (how, to) = split(redirect);
        Self {
            what: REDIRECT,
            reason: 0,
            how,
            to,
        }
    }

    /// [`Verdict::Answer`], back out of the device that the packet came in by.
    #[inline(always)]
    pub const fn answer(reason: DropReason, to: IfIndex) -> Self {
        Self {
            what: ANSWER,
            reason: reason.number() as u32,
            how: EGRESS,
            to,
        }
    }

    /// Whether the next step is to be taken.
    #[inline(always)]
    pub const fn is_open(self) -> bool {
        self.what == NOT_DECIDED
    }

    /// Whether the packet's sender is to be told.
    #[inline(always)]
    pub const fn is_answer(self) -> bool {
        self.what == ANSWER
    }

    /// The number of the reason that the packet is gone for; 0: it is not.
    #[inline(always)]
    pub const fn reason(self) -> u8 {
        let [number, ..] = self.reason.to_le_bytes();
        number
    }

    /// An answer that could not be made is a drop; others stay.
    #[inline(always)]
    #[must_use]
    pub const fn without_answer(self) -> Self {
        Self {
            what: DROP,
            reason: self.reason,
            how: 0,
            to: IfIndex::NONE,
        }
    }

    /// The packet goes nowhere.
    #[inline(always)]
    pub const fn is_drop(self) -> bool {
        self.what == DROP
    }

    /// Where the packet goes, if it is redirected: how, and through which device.
    #[inline(always)]
    pub const fn way_out(self) -> Option<Redirect> {
        match self.how {
            PEER => Some(Redirect::Peer(self.to)),
            EGRESS => Some(Redirect::Egress(self.to)),
            NEIGHBOUR => Some(Redirect::Neighbour(self.to)),
            INGRESS => Some(Redirect::Ingress(self.to)),
            _ => None,
        }
    }

    /// As people read it.
    pub fn verdict(self) -> Verdict {
        let reason = DropReason::from_number(self.reason());
        match (self.what, reason, self.way_out()) {
            (REDIRECT, _, Some(redirect)) => Verdict::Redirect(redirect),
            (DROP, Some(reason), _) => Verdict::Drop(reason),
            (ANSWER, Some(reason), Some(redirect)) => Verdict::Answer(reason, redirect),
            _ => Verdict::Pass,
        }
    }
}

#[inline(always)]
const fn split(redirect: Redirect) -> (u32, IfIndex) {
    match redirect {
        Redirect::Peer(to) => (PEER, to),
        Redirect::Egress(to) => (EGRESS, to),
        Redirect::Neighbour(to) => (NEIGHBOUR, to),
        Redirect::Ingress(to) => (INGRESS, to),
    }
}
