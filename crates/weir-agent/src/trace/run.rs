// SPDX-License-Identifier: Apache-2.0
//! What a program makes of a packet: by the kernel, or by the same code here.

use weir_abi::event::{EventRecord, kind};
use weir_abi::observation::Hook;
use weir_abi::{
    Address, DropReason, EndpointId, Identity, IfIndex, ObservationPoint, PolicyCookie, Port,
    ServiceId,
};
use weir_api::trace::Evaluated;
use weir_datapath::{DryOutput, DryRun};
use weir_packet::memory::MemoryPacket;
use weir_verdict::{Verdict, Workspace};

use super::view::View;

/// `TC_ACT_REDIRECT`
const REDIRECT: i32 = 7;

/// What became of a packet at one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) evaluated: Evaluated,
    pub(super) dropped: Option<DropReason>,
    /// Its sender is told.
    pub(super) rejected: bool,
    pub(super) redirected: bool,
    pub(super) observation: Option<ObservationPoint>,
    pub(super) source: (Identity, EndpointId),
    pub(super) destination: (Identity, EndpointId),
    pub(super) egress_cookie: PolicyCookie,
    pub(super) ingress_cookie: PolicyCookie,
    /// Bits of `policy_flags`.
    pub(super) policy: u8,
    pub(super) service: ServiceId,
    /// Where it goes instead of where it was sent to.
    pub(super) translated: Option<(Address, Port)>,
    pub(super) extended: i32,
    pub(super) packet: Vec<u8>,
}

impl Seen {
    /// Whether two answers are the same, as far as people see it.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        (self.dropped, self.policy, self.translated)
            == (other.dropped, other.policy, other.translated)
    }

    /// Whether flows of others left it no mapping. Their rows are too many to read back: the same code here has none.
    pub(super) fn finds_no_mapping(&self) -> bool {
        self.dropped == Some(DropReason::NoMasqueradeMapping)
    }
}

/// Asks the programs of this node.
pub(super) fn by_kernel(
    dry_run: &DryRun,
    hook: Hook,
    interface: IfIndex,
    frame: &[u8],
) -> weir_datapath::Result<Seen> {
    let output = dry_run.run(hook, interface, frame)?;
    Ok(of_record(output))
}

fn of_record(output: DryOutput) -> Seen {
    let DryOutput {
        verdict,
        packet,
        record,
    } = output;
    let EventRecord { subtype, .. } = record;
    let is_drop = record.kind == kind::DROP;
    let translated = (record.translated_destination != Address::UNSPECIFIED).then_some((
        record.translated_destination,
        record.translated_destination_port,
    ));
    Seen {
        evaluated: Evaluated::Kernel,
        dropped: DropReason::from_number(subtype).filter(|_| is_drop),
        rejected: is_drop && verdict == REDIRECT,
        redirected: !is_drop && verdict == REDIRECT,
        observation: ObservationPoint::from_number(subtype).filter(|_| !is_drop),
        source: (record.source_identity, record.source_endpoint),
        destination: (record.destination_identity, record.destination_endpoint),
        egress_cookie: record.egress_cookie,
        ingress_cookie: record.ingress_cookie,
        policy: record.policy,
        service: record.service,
        translated,
        extended: record.extended,
        packet,
    }
}

/// Runs the programs' code over rows in memory.
pub(super) fn by_code(view: &View, hook: Hook, interface: IfIndex, frame: &[u8]) -> Seen {
    let mut packet = MemoryPacket::new(frame.to_vec());
    let mut workspace = Box::<Workspace>::default();
    let verdict = weir_verdict::run(&mut packet, &view.tables, hook, interface, &mut workspace);
    let decision = &workspace.decision;
    let (dropped, rejected, redirected) = match verdict {
        Verdict::Pass => (None, false, false),
        Verdict::Redirect(_) => (None, false, true),
        Verdict::Drop(reason) => (Some(reason), false, false),
        Verdict::Answer(reason, _) => (Some(reason), true, false),
    };
    let after = &decision.after;
    Seen {
        evaluated: Evaluated::Compiled,
        dropped,
        rejected,
        redirected,
        observation: dropped.is_none().then_some(decision.observation),
        source: (decision.source.identity, decision.source.endpoint),
        destination: (decision.destination.identity, decision.destination.endpoint),
        egress_cookie: decision.egress_cookie,
        ingress_cookie: decision.ingress_cookie,
        policy: decision.policy,
        service: decision.service,
        translated: decision
            .translated
            .then_some((after.destination, after.destination_port)),
        extended: decision.extended,
        packet: packet.bytes().to_vec(),
    }
}
