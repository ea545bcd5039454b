// SPDX-License-Identifier: Apache-2.0
//! Connections through one service: how many in a second, and how long each takes to be open.

use anyhow::{Context as _, Result};

use super::pods::Pod;
use super::side::{Kind, Side, Still};
use crate::bench::Bench;
use crate::bench::report::median;
use crate::bench::traffic::short::Opened;
use crate::process::stdout_of;

/// What a client meets on its way: a side as it comes, or Weir where sockets are not translated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    Iptables,
    Nftables,
    Weir,
    WeirPerPacket,
}

impl Way {
    const ALL: [Self; 4] = [
        Self::Iptables,
        Self::Nftables,
        Self::Weir,
        Self::WeirPerPacket,
    ];

    fn kind(self) -> Kind {
        match self {
            Self::Iptables => Kind::Iptables,
            Self::Nftables => Kind::Nftables,
            Self::Weir | Self::WeirPerPacket => Kind::Weir,
        }
    }

    fn client(self) -> Pod {
        match self {
            Self::Iptables | Self::Nftables | Self::Weir => Pod::Client,
            Self::WeirPerPacket => Pod::Outside,
        }
    }
}

/// The rounds of every way.
#[derive(Debug)]
pub(super) struct Rates(Vec<(Way, Vec<Opened>)>);

/// Measures all ways in turns.
pub(super) fn measure(bench: &Bench, sides: &[Side], service: u32) -> Result<Rates> {
    let mut rates = Rates(Way::ALL.map(|way| (way, Vec::new())).into());
    // The first round opens flows and fills caches; it does not count.
    for round in 0..=bench.rounds {
        for (way, opened) in &mut rates.0 {
            let side = sides
                .iter()
                .find(|side| side.kind == way.kind())
                .context("a side is missing")?;
            let _still = Still::but(side.kind, sides)?;
            let mut client = side.ask(way.client(), "open", service)?;
            client.args(["--for-ms", &bench.for_ms.to_string()]);
            let one = stdout_of(&mut client)?.parse()?;
            if round > 0 {
                opened.push(one);
            }
        }
    }
    Ok(rates)
}

impl Rates {
    fn of(&self, way: Way) -> impl Iterator<Item = &Opened> {
        self.0
            .iter()
            .filter(move |(one, _)| *one == way)
            .flat_map(|(_, opened)| opened)
    }

    /// The middle of what the rounds of a way were in some respect.
    pub(super) fn median(&self, way: Way, what: impl Fn(&Opened) -> f64) -> Result<f64> {
        let values: Vec<f64> = self.of(way).map(what).collect();
        median(&values).context("no round was measured")
    }

    /// The middle of the ratios of rates in each round: a machine that slows down half way moves both sides of a ratio.
    pub(super) fn ratio(&self, of: Way, to: Way) -> Result<f64> {
        let ratios: Vec<f64> = self
            .of(of)
            .zip(self.of(to))
            .map(|(of, to)| of.rate / to.rate)
            .collect();
        median(&ratios).context("no round was measured")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_neighbours_in_time() {
        let rounds = |rates: [f64; 3]| {
            rates
                .map(|rate| Opened {
                    rate,
                    median: 1e9 / rate,
                    p99: 2e9 / rate,
                })
                .to_vec()
        };
        // The machine slowed down by half after the first round.
        let rates = Rates(vec![
            (Way::Weir, rounds([300.0, 150.0, 150.0])),
            (Way::Nftables, rounds([200.0, 100.0, 100.0])),
        ]);
        let ratio = rates.ratio(Way::Weir, Way::Nftables).expect("rounds");
        assert!((ratio - 1.5).abs() < 1e-9);
        let rate = rates.median(Way::Nftables, |one| one.rate).expect("rounds");
        assert!((rate - 100.0).abs() < 1e-9);
        assert!(rates.ratio(Way::Weir, Way::Iptables).is_err());
    }
}
