// SPDX-License-Identifier: Apache-2.0
//! Rules of the form that kube-proxy writes, for where it cannot be built: the same chains, maps and rules for each service
//! with a cluster address, and what every packet passes on its way to them.

mod iptables;
mod nftables;

use std::net::Ipv4Addr;

use anyhow::Result;

use super::objects::{self, Half, answers};
use super::side::Kind;
use crate::process::{command, stdout_of};

/// A service and the addresses behind it.
#[derive(Debug)]
struct Backed {
    number: u32,
    endpoints: Vec<Ipv4Addr>,
}

impl Backed {
    fn new(number: u32, last: u32, half: Option<Half>) -> Self {
        Self {
            number,
            endpoints: objects::endpoints(number, answers(number, last), half),
        }
    }
}

/// What a tool is given.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) tool: &'static [&'static str],
    pub(super) text: String,
}

/// Rules for all services up to that number; `fresh`: the first ones on this node.
pub(super) fn all(kind: Kind, fresh: bool, last: u32) -> Option<Script> {
    let services: Vec<Backed> = (0..=last)
        .map(|number| Backed::new(number, last, None))
        .collect();
    match kind {
        Kind::Iptables => Some(iptables::script(fresh, last, &services)),
        Kind::Nftables => Some(nftables::all(&services)),
        Kind::Weir => None,
    }
}

/// What kube-proxy writes when the last service has other endpoints.
pub(super) fn change(kind: Kind, service: u32, half: Half) -> Option<Script> {
    let service = Backed::new(service, service, Some(half));
    match kind {
        Kind::Iptables => Some(iptables::script(false, service.number, &[service])),
        Kind::Nftables => Some(nftables::change(&service)),
        Kind::Weir => None,
    }
}

/// The first of the ranges of a cluster with two families.
fn of_v4(ranges: &str) -> &str {
    ranges.split_once(',').map_or(ranges, |(first, _)| first)
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
