// SPDX-License-Identifier: Apache-2.0
//! From what was measured to what is printed, with the targets.

use anyhow::{Context as _, Result};

use super::change::Changes;
use super::rates::{Rates, Way};
use super::side::Kind;
use crate::bench::report::{Figure, Target, median};
use crate::bench::traffic::short::Opened;

/// Everything that was measured at one number of services.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) services: u32,
    pub(super) rates: Rates,
    pub(super) changes: Changes,
    /// MiB of each kind of side, where it has a program.
    pub(super) memory: Vec<(Kind, Option<f64>)>,
}

pub(super) fn all(measured: &Measured) -> Result<Vec<Figure>> {
    let mut figures = rates(measured)?;
    figures.push(open_after(
        "half of the connections open after",
        measured,
        |one| one.median,
    )?);
    figures.push(open_after(
        "99 of 100 connections open after",
        measured,
        |one| one.p99,
    )?);
    figures.push(changes(&measured.changes)?);
    figures.push(memory(&measured.memory)?);
    Ok(figures)
}

fn target(services: u32, way: Way, beside: Way) -> Target {
    match (services, way, beside) {
        (1, Way::Weir, Way::Nftables) => Target::AtLeast(1.0),
        (10_000.., Way::Weir, Way::Iptables) => Target::AtLeast(3.0),
        (10_000.., Way::Weir, Way::Nftables) => Target::AtLeast(1.3),
        _ => Target::None,
    }
}

fn rates(measured: &Measured) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (way, called) in [(Way::Weir, "Weir"), (Way::WeirPerPacket, "Weir per packet")] {
        for (beside, theirs) in [(Way::Nftables, "nftables"), (Way::Iptables, "iptables")] {
            let rate = |way| measured.rates.median(way, |one| one.rate);
            figures.push(Figure {
                name: format!("connect rate, {called} / {theirs}"),
                value: measured.rates.ratio(way, beside)?,
                unit: "x",
                target: target(measured.services, way, beside),
                note: format!("({:.0}/s / {:.0}/s)", rate(way)?, rate(beside)?),
            });
        }
    }
    Ok(figures)
}

fn open_after(name: &str, measured: &Measured, what: fn(&Opened) -> f64) -> Result<Figure> {
    let microseconds = |way| Ok::<_, anyhow::Error>(measured.rates.median(way, what)? / 1e3);
    Ok(Figure {
        name: name.to_owned(),
        value: microseconds(Way::Weir)?,
        unit: "us",
        target: Target::None,
        note: format!(
            "(per packet {:.1}, nftables {:.1}, iptables {:.1})",
            microseconds(Way::WeirPerPacket)?,
            microseconds(Way::Nftables)?,
            microseconds(Way::Iptables)?
        ),
    })
}

fn changes(changes: &Changes) -> Result<Figure> {
    let milliseconds = |values: &[f64]| {
        let seconds = median(values).context("no change was measured")?;
        Ok::<_, anyhow::Error>(seconds * 1e3)
    };
    let of = |kind| milliseconds(find(&changes.took, kind)?);
    Ok(Figure {
        name: "changed slice decides connections after".to_owned(),
        value: of(Kind::Weir)?,
        unit: "ms",
        target: Target::None,
        note: format!(
            "(nftables {:.1}, iptables {:.1}; {:.1} of each until it was written)",
            of(Kind::Nftables)?,
            of(Kind::Iptables)?,
            milliseconds(&changes.written)?
        ),
    })
}

fn memory(memory: &[(Kind, Option<f64>)]) -> Result<Figure> {
    let of = |kind| find(memory, kind).copied();
    let note = match (of(Kind::Nftables)?, of(Kind::Iptables)?) {
        (Some(nftables), Some(iptables)) => {
            format!("(kube-proxy: nftables {nftables:.1}, iptables {iptables:.1})")
        }
        _ => "(no kube-proxy)".to_owned(),
    };
    Ok(Figure {
        name: "memory, weir agent".to_owned(),
        value: of(Kind::Weir)?.context("Weir has no agent")?,
        unit: "MiB",
        target: Target::None,
        note,
    })
}

fn find<T>(values: &[(Kind, T)], kind: Kind) -> Result<&T> {
    values
        .iter()
        .find_map(|(one, value)| (*one == kind).then_some(value))
        .with_context(|| format!("{kind:?} was not measured"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_for_one_service_and_for_ten_thousand() {
        let check = |services, way, beside, expected| {
            assert_eq!(target(services, way, beside), expected);
        };
        check(1, Way::Weir, Way::Nftables, Target::AtLeast(1.0));
        check(1, Way::Weir, Way::Iptables, Target::None);
        check(1_000, Way::Weir, Way::Nftables, Target::None);
        check(10_000, Way::Weir, Way::Nftables, Target::AtLeast(1.3));
        check(10_000, Way::Weir, Way::Iptables, Target::AtLeast(3.0));
        check(10_000, Way::WeirPerPacket, Way::Iptables, Target::None);
    }
}
