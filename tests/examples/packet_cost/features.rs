// SPDX-License-Identifier: Apache-2.0
//! What services and policies cost a packet: with few and with ten thousand of them.

use anyhow::Result;
use weir_abi::endpoint::flags::{ENFORCE_EGRESS, ENFORCE_INGRESS, READY};
use weir_abi::policy::{PeerKind, PolicyDirection, PolicyKey, PolicyRow, PortRule};
use weir_abi::service::{BackendRow, BackendRun, FrontendKey, FrontendKind, FrontendRow};
use weir_abi::{
    Address, EndpointId, EndpointRow, FrontendId, Identity, IfIndex, MacAddress, PolicyCookie,
    PolicySet, Port, Protocol, ServiceId,
};
use weir_datapath::{Datapath, Maps};

use super::{Bench, DROP, Family, LINK, REDIRECT, ROUNDS};

/// Services beside the first one, and rules beside the one that decides.
const MANY: u32 = 10_000;
const SET: PolicySet = PolicySet(1);
/// Pods that policy isolates: one that may talk to the server, and one that may not.
pub(crate) const ALLOWED: u16 = 100;
const DENIED: u16 = 101;
/// New flows in a table that is not full of them.
const FLOWS: std::ops::Range<u16> = 2_000..4_000;

/// Measures on a table that has no other flows; `own_cost` is what a run costs beside its packet.
pub(crate) fn measure(bench: &Bench, own_cost: f64) -> Result<()> {
    let Bench {
        datapath, family, ..
    } = bench;
    let family = *family;
    let case = |name: &str, client, to: Address, port: u16| -> Result<()> {
        let frame = |syn| family.frame_to(client, 50_000, to, port, syn);
        bench.expect(&frame(true), REDIRECT)?;
        let single = bench.alone(&vec![frame(false); ROUNDS * 20])?;
        bench.report(&format!("{name}-established"), single - own_cost, single);
        let new: Vec<Vec<u8>> = FLOWS
            .map(|source| family.frame_to(client, source, to, port, true))
            .collect();
        let new = bench.alone(&new)?;
        bench.report(&format!("{name}-new"), new - own_cost, new);
        Ok(())
    };
    // A refused packet stays as it is, so that it can be measured as an established one is: in a row. By itself it
    // finds the whole slow path cold.
    let denial = |name: &str| -> Result<()> {
        let frame = family.frame_to(DENIED, 50_000, family.pod(0), 80, true);
        bench.expect(&frame, DROP)?;
        let in_a_row = bench.in_a_row(&frame)?;
        bench.report(name, in_a_row, in_a_row);
        let single = bench.alone(&vec![frame; ROUNDS * 20])?;
        bench.report(&format!("{name}-alone"), single - own_cost, single);
        Ok(())
    };
    add_isolated(datapath, family)?;
    case("plain", 1, family.pod(0), 80)?;
    add_services(datapath, family, 0..1)?;
    case("service", 2, family.service(0), 80)?;
    add_services(datapath, family, 1..MANY)?;
    case("service-10k", 3, family.service(MANY - 1), 80)?;
    add_rule(datapath, Identity(2_000))?;
    denial("policy-denial")?;
    for identity in 0..MANY {
        add_rule(datapath, Identity(10_000 + identity))?;
    }
    denial("policy-denial-10k")
}

fn add_services(datapath: &Datapath, family: Family, range: std::ops::Range<u32>) -> Result<()> {
    for number in range {
        let place = 1 + number;
        let service = ServiceId(1 + number);
        let backend = BackendRow {
            address: family.pod(0),
            service,
            port: Port::new(80),
            reserved: [0; 2],
        };
        datapath.maps.backends.upsert(&place, &backend)?;
        let run = BackendRun {
            first: place,
            count: 1,
            maglev: 0,
        };
        let row = FrontendRow {
            id: FrontendId(service.0),
            service,
            internal: run,
            external: run,
            affinity_timeout: 0,
            kind: FrontendKind::ClusterIp as u8,
            flags: 0,
            reserved: [0; 2],
        };
        let key = FrontendKey::new(family.service(number), Port::new(80), Protocol::TCP);
        datapath.maps.frontends.upsert(&key, &row)?;
    }
    Ok(())
}

/// Two pods under one set: the server's identity is allowed to the first one's set alone.
fn add_isolated(datapath: &Datapath, family: Family) -> Result<()> {
    for (pod, set) in [(ALLOWED, SET), (DENIED, PolicySet(2))] {
        let row = EndpointRow {
            ifindex: IfIndex(LINK),
            identity: Identity(300),
            id: EndpointId(pod + 1),
            flags: READY | ENFORCE_INGRESS | ENFORCE_EGRESS,
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            policy_set: set,
            ..EndpointRow::default()
        };
        datapath.maps.endpoints.upsert(&family.pod(pod), &row)?;
    }
    put_rule(&datapath.maps, SET, Identity::FIRST_POD)
}

/// Another peer that the second pod may talk to.
fn add_rule(datapath: &Datapath, peer: Identity) -> Result<()> {
    put_rule(&datapath.maps, PolicySet(2), peer)
}

pub(crate) fn put_rule(maps: &Maps, set: PolicySet, peer: Identity) -> Result<()> {
    let rule = PortRule {
        cookie: PolicyCookie(1),
        first_port: 80,
        last_port: 80,
        precedence: 0,
        protocol: Protocol::TCP,
        flags: 0,
    };
    let key = PolicyKey::new(set, PolicyDirection::Egress, PeerKind::Identity, peer.0);
    for (key, row) in PolicyRow::parts(key, &[rule]).into_iter().flatten() {
        maps.policy.upsert(&key, &row)?;
    }
    Ok(())
}
