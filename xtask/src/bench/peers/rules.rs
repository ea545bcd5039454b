// SPDX-License-Identifier: Apache-2.0
//! Rules of the form that kube-proxy writes, for where it cannot be built: the same chains, maps and rules for each service
//! with a cluster address, and what every packet passes on its way to them.

mod iptables;
mod nftables;

use std::net::IpAddr;

use anyhow::Result;

use super::objects::{self, Half, answers};
use super::side::Kind;
use crate::bench::Family;
use crate::process::{command, stdout_of};

/// What marks packets that get the node's address on their way out.
const MARK: &str = "0x4000";

/// A service and the addresses behind it.
#[derive(Debug)]
struct Backed {
    number: u32,
    endpoints: Vec<IpAddr>,
}

impl Backed {
    fn new(family: Family, number: u32, last: u32, half: Option<Half>) -> Self {
        Self {
            number,
            endpoints: objects::endpoints(family, number, answers(number, last), half),
        }
    }
}

/// What a tool is given.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) program: &'static str,
    pub(super) arguments: &'static [&'static str],
    pub(super) text: String,
}

/// Rules for all services up to that number; `fresh`: the first ones on this node.
pub(super) fn all(kind: Kind, family: Family, fresh: bool, last: u32) -> Vec<Script> {
    let services: Vec<Backed> = (0..=last)
        .map(|number| Backed::new(family, number, last, None))
        .collect();
    match kind {
        Kind::Iptables => iptables::all(family, fresh, &services),
        Kind::Nftables => vec![nftables::all(family, &services)],
        Kind::Weir => Vec::new(),
    }
}

/// What kube-proxy writes when the last service has other endpoints.
pub(super) fn change(kind: Kind, family: Family, service: u32, half: Half) -> Vec<Script> {
    let service = Backed::new(family, service, service, Some(half));
    match kind {
        Kind::Iptables => vec![iptables::script(family, false, &[service])],
        Kind::Nftables => vec![nftables::change(family, &service)],
        Kind::Weir => Vec::new(),
    }
}

/// That of a cluster's ranges, one for each family, which is of this one.
fn range(family: Family, ranges: &'static str) -> &'static str {
    let (v4, v6) = ranges.split_once(',').unwrap_or((ranges, ranges));
    family.pick(v4, v6)
}

/// The versions of the tools that kube-proxy uses too.
pub(super) fn versions() -> Result<String> {
    let first_line = |program: &str| -> Result<String> {
        let text = stdout_of(command(program).arg("--version"))?;
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(format!(
        "{}, {}",
        first_line("iptables")?,
        first_line("nft")?
    ))
}
