// SPDX-License-Identifier: Apache-2.0
//! May these two talk? Asked for the first packet of a connection, and again when something that the
//! answer depends on has changed.
//!
//! Egress of the side that opened the connection and ingress of the other one, each where it is an
//! endpoint of this node: for local delivery both in one pass. Replies are judged as the connection
//! that they belong to, so a change cuts both directions.

use crate::decision::{Decision, Outcome, Party, Workspace};
use crate::tables::{Repeat, Tables};
use weir_abi::endpoint::flags::{ENFORCE_EGRESS, ENFORCE_INGRESS};
use weir_abi::event::policy_flags;
use weir_abi::observation::Hook;
use weir_abi::policy::{PARTS_MAX, PeerKind, PolicyDirection, PolicyKey, PortRule, rule_flags};
use weir_abi::{BlockGroup, DropReason, EndpointId, Identity, PolicyCookie, Port, Protocol};

/// Kinds of peers that one question is about: [`PeerKind`] has no more.
const PEERS_MAX: u32 = 3;
/// Rows that it can meet: each kind of peer can have several parts.
const ROWS_MAX: u32 = PEERS_MAX * PARTS_MAX as u32;

/// Whether either end is an endpoint that policies isolate.
#[inline(always)]
pub const fn is_asked(decision: &Decision) -> bool {
    (decision.source.flags | decision.destination.flags) & (ENFORCE_EGRESS | ENFORCE_INGRESS) != 0
}

/// Step of the slow path once both ends are known, where [`is_asked`].
#[inline(always)]
pub fn check<T: Tables>(tables: &T, workspace: &mut Workspace) -> Outcome {
    let Workspace {
        decision,
        summary,
        arrival,
        ..
    } = workspace;
    if matches!(arrival.hook, Hook::ToNetdev) {
        return Outcome::Forward;
    }
    let protocol = summary.key.protocol;
    let (from, to, port) = if decision.reply {
        let port = summary.key.source_port;
        (decision.destination, decision.source, port)
    } else {
        let port = decision.after.destination_port;
        (decision.source, decision.destination, port)
    };
    // A pod always reaches itself, also through a service.
    if from.endpoint == to.endpoint && from.endpoint != EndpointId::NONE {
        return Outcome::Forward;
    }
    if from.flags & ENFORCE_EGRESS != 0 {
        decision.policy |= policy_flags::EGRESS_ASKED;
        let answer = ask(tables, &from, PolicyDirection::Egress, &to, protocol, port);
        if !answer.allowed() {
            decision.policy |= policy_flags::EGRESS_DENIED;
            return Outcome::Drop(reason(&answer, &to));
        }
        decision.egress_cookie = answer.cookie;
    }
    // The node itself always reaches its pods: kubelet's probes depend on it.
    if to.flags & ENFORCE_INGRESS != 0 && from.identity != Identity::HOST {
        decision.policy |= policy_flags::INGRESS_ASKED;
        let answer = ask(tables, &to, PolicyDirection::Ingress, &from, protocol, port);
        if !answer.allowed() {
            decision.policy |= policy_flags::INGRESS_DENIED;
            return Outcome::Drop(reason(&answer, &from));
        }
        decision.ingress_cookie = answer.cookie;
    }
    if !decision.continued {
        count(tables, decision, summary.l3_length);
    }
    Outcome::Forward
}

#[inline(always)]
fn count<T: Tables>(tables: &T, decision: &Decision, bytes: u32) {
    for cookie in [decision.egress_cookie, decision.ingress_cookie] {
        if cookie != PolicyCookie::NONE {
            tables.count_policy(cookie, bytes);
        }
    }
}

#[inline(always)]
fn reason(answer: &Answer, peer: &Party) -> DropReason {
    if answer.denied {
        DropReason::PolicyDeny
    } else if peer.identity == Identity::UNKNOWN {
        DropReason::UnknownPeerIdentity
    } else {
        DropReason::PolicyDenied
    }
}

/// The rule that decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    /// [`PolicyCookie::NONE`]: no rule matched.
    pub cookie: PolicyCookie,
    /// The rule denies.
    pub denied: bool,
}

impl Answer {
    /// Whether the connection may be.
    #[inline(always)]
    pub const fn allowed(&self) -> bool {
        self.cookie.0 != 0 && !self.denied
    }
}

/// Asks one side's set about the other side.
#[inline(always)]
pub fn ask<T: Tables>(
    tables: &T,
    own: &Party,
    direction: PolicyDirection,
    peer: &Party,
    protocol: Protocol,
    port: Port,
) -> Answer {
    let mut search = Search {
        tables,
        key: PolicyKey::new(own.policy_set, direction, PeerKind::Any, 0),
        identity: peer.identity,
        blocks: peer.blocks,
        protocol: u64::from(protocol.0),
        port: match protocol {
            Protocol::TCP | Protocol::UDP | Protocol::SCTP => u64::from(port.get()),
            _ => NO_PORT,
        },
        rank: 0,
        cookie: 0,
    };
    // Nearly always one row holds all that there is about a peer. A loop that the kernel runs, which
    // is a call for each row, is for the others, and for them only once: the verifier follows each.
    let mut continues = search.look();
    for _ in 1..PEERS_MAX {
        if !search.next_peer() {
            continues |= search.look();
        }
    }
    if continues != 0 {
        // From the start: among equal rules the first one wins, in the order of the rows.
        (search.rank, search.cookie) = (0, 0);
        search.key = PolicyKey::new(own.policy_set, direction, PeerKind::Any, 0);
        tables.repeat(ROWS_MAX, &mut search);
    }
    let [a, b, c, d, ..] = search.cookie.to_le_bytes();
    Answer {
        cookie: PolicyCookie(u32::from_le_bytes([a, b, c, d])),
        denied: search.rank & 1 != 0,
    }
}

/// What a packet without ports has: only rules for every port match it.
const NO_PORT: u64 = 0x1_0000;

/// All ones where `a < b`, else zero; both below 2^63.
#[inline(always)]
#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the sign is the answer"
)]
fn below(a: u64, b: u64) -> u64 {
    opaque(((opaque(a.wrapping_sub(b)) as i64) >> 63) as u64)
}

/// Keeps the compiler from seeing what a number means: it would make branches of it.
#[inline(always)]
#[cfg(target_arch = "bpf")]
fn opaque(number: u64) -> u64 {
    let mut number = number;
    // An instruction, if an idle one: the kernel refuses line information of which two entries
    // point to the same place.
    // SAFETY: copies a register to itself.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack));
    }
    number
}

#[cfg(not(target_arch = "bpf"))]
const fn opaque(number: u64) -> u64 {
    number
}

/// The look-ups of one question.
struct Search<'a, T> {
    tables: &'a T,
    key: PolicyKey,
    identity: Identity,
    blocks: BlockGroup,
    protocol: u64,
    port: u64,
    /// How strong the rule is that was found: two times its precedence, plus one where it denies,
    /// plus two; 0: none.
    rank: u64,
    cookie: u64,
}

impl<T: Tables> Repeat for Search<'_, T> {
    #[inline(always)]
    fn once(&mut self, _turn: u32) -> bool {
        let part = self.key.part.wrapping_add(1);
        if self.look() != 0 && part < PARTS_MAX {
            self.key.part = part;
            return false;
        }
        self.next_peer()
    }
}

impl<T: Tables> Search<'_, T> {
    /// Considers the rules of one row; other than 0 where another part follows.
    #[inline(always)]
    fn look(&mut self) -> u64 {
        let Some(row) = self.tables.policy(&self.key) else {
            return 0;
        };
        let before = (self.rank, self.cookie);
        let mut left = row.count;
        for rule in &row.rules {
            if left == 0 {
                break;
            }
            left = left.wrapping_sub(1);
            self.consider(rule);
        }
        // The row's memory may have passed to another one while it was read.
        let other = u64::from(row.set.0 ^ self.key.set.0) | u64::from(row.peer ^ self.key.peer);
        let own = !below(0, other);
        self.rank = (self.rank & own) | (before.0 & !own);
        self.cookie = (self.cookie & own) | (before.1 & !own);
        u64::from(row.continues) & own
    }

    /// Takes a rule that matches and is not weaker than what was found before. Without branches:
    /// the verifier would follow each of them through the rules that come after.
    #[inline(always)]
    fn consider(&mut self, rule: &PortRule) {
        let protocol = u64::from(rule.protocol.0);
        let first = u64::from(rule.first_port);
        let last = u64::from(rule.last_port);
        let same_protocol = !below(0, protocol) | !below(0, protocol ^ self.protocol);
        let every_port = !below(0, first) & !below(last, 0xffff);
        let in_range = !below(self.port, first) & !below(last, self.port);
        // Deny is the stronger of two rules with one precedence.
        let deny = u64::from(rule.flags & rule_flags::DENY);
        let rank = u64::from(rule.precedence)
            .wrapping_mul(2)
            .wrapping_add(deny)
            .wrapping_add(2);
        let takes = same_protocol & (every_port | in_range) & below(self.rank, rank);
        self.rank = (rank & takes) | (self.rank & !takes);
        self.cookie = (u64::from(rule.cookie.0) & takes) | (self.cookie & !takes);
    }

    /// On to the next key; `true` after the last one.
    #[inline(always)]
    fn next_peer(&mut self) -> bool {
        self.key.part = 0;
        if self.key.peer_kind == PeerKind::Any as u8 {
            self.key.peer_kind = PeerKind::Identity as u8;
            self.key.peer = self.identity.0;
            return false;
        }
        if self.key.peer_kind == PeerKind::Identity as u8 && self.blocks != BlockGroup::NONE {
            self.key.peer_kind = PeerKind::Blocks as u8;
            self.key.peer = self.blocks.0;
            return false;
        }
        true
    }
}
