// SPDX-License-Identifier: Apache-2.0
//! The packet table: every path and every drop reason that the programs can raise, in both families. Rows come in
//! order; later ones meet the flows that earlier ones left.

#[path = "table/direct.rs"]
mod direct;
#[path = "table/pods.rs"]
mod pods;
#[path = "table/policy.rs"]
mod policy;
#[path = "table/refused.rs"]
mod refused;
#[path = "table/services.rs"]
mod services;
#[path = "table/ways.rs"]
mod ways;

use weir_abi::{DropReason, IfIndex, MacAddress};
use weir_datapath::Hook;
use weir_verdict::{Redirect, Verdict};

use super::judge::faults;
use super::raw::{Ip, UDP, ethernet, udp, vxlan};
use super::tuple::{innermost, named, tuple};
use super::world::{Links, NEIGHBOUR, NODE, OTHER_NODE, ip, pod_mac};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// What has to become of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// On along the path it is on.
    Pass,
    /// Into a pod.
    ToPod(IfIndex),
    /// Into the node's stack.
    ToHost,
    /// Out of the underlay.
    ToNetwork,
    /// Back to the pod that sent it, as an answer to its question.
    Reply,
    /// Back to the pod that sent it, as an error.
    Error(DropReason),
    Drop(DropReason),
}

/// One packet of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) hook: Hook,
    pub(crate) interface: IfIndex,
    pub(crate) frame: Vec<u8>,
    pub(crate) expected: Expected,
    /// Source and destination of the packet that is sent on, where the row says.
    pub(crate) sent: Option<[(&'static str, u16); 2]>,
    /// The far end of the tunnel that it is sent by.
    pub(crate) through: Option<&'static str>,
    /// The backend that it names on the way there.
    pub(crate) names: Option<(&'static str, u16)>,
}

impl Row {
    /// Whether the packet ended where it should, and is right where it is sent on.
    pub(crate) fn check(&self, links: &Links, verdict: Verdict, sent: &[u8]) -> Result<(), String> {
        let ended = self
            .end(links, verdict)
            .ok_or_else(|| format!("unexpected {verdict:?}"))?;
        if ended != self.expected {
            return Err(format!("{ended:?} instead of {:?}", self.expected));
        }
        let goes_on = !matches!(ended, Expected::Drop(_) | Expected::Pass);
        let mut faults = if goes_on { faults(sent) } else { Vec::new() };
        if let Some(ends) = self.sent {
            let tuple = innermost(sent);
            let found = [
                (tuple.source, tuple.source_port),
                (tuple.destination, tuple.destination_port),
            ];
            if found != ends.map(|(address, port)| (ip(address), port)) {
                faults.push(format!("sent {found:?} instead of {ends:?}"));
            }
        }
        if self
            .through
            .is_some_and(|node| tuple(sent).destination != ip(node))
        {
            faults.push(format!("sent to {}", tuple(sent).destination));
        }
        if self
            .names
            .is_some_and(|(address, port)| named(sent) != Some((ip(address), port)))
        {
            faults.push(format!("names {:?}", named(sent)));
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults.join(", "))
        }
    }

    fn end(&self, links: &Links, verdict: Verdict) -> Option<Expected> {
        let (redirect, error) = match verdict {
            Verdict::Pass => return Some(Expected::Pass),
            Verdict::Drop(reason) => return Some(Expected::Drop(reason)),
            Verdict::Answer(reason, redirect) => (redirect, Some(reason)),
            Verdict::Redirect(redirect) => (redirect, None),
        };
        let from_pod = self.hook == Hook::FromContainer;
        match (redirect, error) {
            (Redirect::Egress(to), Some(reason)) if to == self.interface => {
                Some(Expected::Error(reason))
            }
            (_, Some(_)) => None,
            (Redirect::Ingress(to), None) => (to == links.host).then_some(Expected::ToHost),
            (Redirect::Neighbour(to), None) => {
                (to == links.underlay).then_some(Expected::ToNetwork)
            }
            (Redirect::Egress(to), None) if to == links.underlay => Some(Expected::ToNetwork),
            (Redirect::Egress(to), None) if from_pod && to == self.interface => {
                Some(Expected::Reply)
            }
            (Redirect::Peer(to) | Redirect::Egress(to), None) => Some(Expected::ToPod(to)),
        }
    }
}

/// The rows of one family in one routing mode.
pub(crate) fn rows(links: &Links, family: usize, native: bool) -> Vec<Row> {
    let mut table = Table {
        links: *links,
        family,
        native,
        rows: Vec::new(),
    };
    table.between_pods();
    table.with_the_node();
    table.with_other_nodes();
    table.with_the_world();
    table.refused_addresses();
    table.gateway();
    table.fragments();
    table.too_large_or_too_old();
    table.malformed();
    table.icmp_errors();
    table.services_of_pods();
    table.services_from_outside();
    table.services_of_nodes();
    table.policies();
    if !native {
        table.tunnel();
    }
    table.rows
}

/// The rows where backends answer clients directly.
pub(crate) fn direct_rows(links: &Links, family: usize, native: bool) -> Vec<Row> {
    let mut table = Table {
        links: *links,
        family,
        native,
        rows: Vec::new(),
    };
    table.sent_on();
    table.relayed_all_the_same();
    table.received();
    table.forged();
    table.rows
}

struct Table {
    links: Links,
    family: usize,
    native: bool,
    rows: Vec<Row>,
}

impl Table {
    fn add(&mut self, name: &'static str, hook: Hook, frame: Vec<u8>, expected: Expected) {
        let interface = match hook {
            Hook::FromContainer => self.links.pod_a,
            Hook::FromNetdev | Hook::ToNetdev => self.links.underlay,
            Hook::FromHost => self.links.host,
        };
        self.rows.push(Row {
            name,
            hook,
            interface,
            frame,
            expected,
            sent: None,
            through: None,
            names: None,
        });
    }

    /// What the packet of the last row looks like when it is sent on.
    fn sent(&mut self, from: (&'static str, u16), to: (&'static str, u16)) {
        self.rows.last_mut().unwrap().sent = Some([from, to]);
    }

    /// The same where there are no ports.
    fn sent_between(&mut self, from: &'static str, to: &'static str) {
        self.sent((from, 0), (to, 0));
    }

    /// Which node the packet of the last row is sent to, in tunnel mode.
    fn through(&mut self, node: &'static str) {
        self.rows.last_mut().unwrap().through = (!self.native).then_some(node);
    }

    /// What pod A sends.
    fn pod(&mut self, name: &'static str, packet: &[u8], expected: Expected) {
        let frame = ethernet(pod_mac(0x0a), MacAddress::GATEWAY, packet);
        self.add(name, Hook::FromContainer, frame, expected);
    }

    /// What pod B sends.
    fn pod_b(&mut self, name: &'static str, packet: &[u8], expected: Expected) {
        let frame = ethernet(pod_mac(0x0b), MacAddress::GATEWAY, packet);
        let interface = self.links.pod_b;
        self.rows.push(Row {
            name,
            hook: Hook::FromContainer,
            interface,
            frame,
            expected,
            sent: None,
            through: None,
            names: None,
        });
    }

    /// What the isolated pod sends.
    fn pod_c(&mut self, name: &'static str, packet: &[u8], expected: Expected) {
        let frame = ethernet(pod_mac(0x0d), MacAddress::GATEWAY, packet);
        self.pod_b(name, packet, expected);
        self.rows.last_mut().unwrap().frame = frame;
    }

    /// What a pod of the other node sends, by the tunnel where there is one.
    fn remote(&mut self, name: &'static str, packet: &[u8], expected: Expected) {
        if self.native {
            return self.network(name, packet, expected);
        }
        let (from, to) = (OTHER_NODE[0], NODE[0]);
        let datagram = udp(from, to, [50_000, 8472], &vxlan([0, 0, 1], packet));
        let outer = Ip::new(from, to, UDP).packet(&datagram);
        self.network(name, &outer, expected);
    }

    /// What the node sends to the network.
    fn towards_network(&mut self, name: &'static str, packet: &[u8], expected: Expected) {
        let frame = ethernet(pod_mac(1), NEIGHBOUR, packet);
        self.add(name, Hook::ToNetdev, frame, expected);
    }

    /// What the network brings.
    fn network(&mut self, name: &'static str, packet: &[u8], expected: Expected) {
        let frame = ethernet(NEIGHBOUR, pod_mac(1), packet);
        self.add(name, Hook::FromNetdev, frame, expected);
    }

    /// What the node sends through `weir_host`.
    fn host(&mut self, name: &'static str, packet: &[u8], expected: Expected) {
        let frame = ethernet(pod_mac(2), MacAddress::HOST, packet);
        self.add(name, Hook::FromHost, frame, expected);
    }

    fn to(&self, names: [&'static str; 2]) -> &'static str {
        names[self.family]
    }

    fn to_a(&self) -> Expected {
        Expected::ToPod(self.links.pod_a)
    }

    fn to_b(&self) -> Expected {
        Expected::ToPod(self.links.pod_b)
    }

    fn echo_types(&self) -> [u8; 2] {
        [[8, 0], [128, 129]][self.family]
    }
}
