// SPDX-License-Identifier: Apache-2.0
//! Which of the official tests are run, and how a sample is drawn.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};

/// Left out everywhere, since no machine of this kind has it, and no other plugin would pass either.
///
/// Features: SCTP sockets (the kernel may lack them), a cloud that gives out load balancers, an ingress controller, the
/// Internet, measurements that judge nothing, counters of kube-proxy itself. Disruptive ones restart parts of the
/// cluster over SSH. The DNS tests rewrite the cluster's own DNS configuration.
const LEFT_OUT: &str = concat!(
    r"\[Feature:(SCTPConnectivity|LoadBalancer|Ingress|Networking-IPv4|Networking-IPv6|Networking-DNS",
    r"|PerformanceDNS|Networking-Performance|KubeProxyNFAcct)\]",
    r"|\[Disruptive\]|\[Provider:|DNS configMap nameserver"
);
const LABELS: &str = "!Alpha && !BetaOffByDefault && !Disruptive && !Flaky && !Slow";
const ALL: &str = r"\[sig-network\]";
/// Never drawn, because it is known not to pass (`docs/test-cluster.md` says why): a drawing finds what is not known.
/// Whole runs and its own name run it.
const KNOWN: &str = "KubeProxy should set TCP CLOSE_WAIT timeout";

/// What is asked for on the command line.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Wish {
    /// Only tests whose name matches
    #[arg(value_name = "REGEX")]
    focus: Option<String>,
    /// The tests that every Kubernetes must pass
    #[arg(long)]
    conformance: bool,
    /// The tests of network policy
    #[arg(long)]
    netpol: bool,
    /// Besides, so many drawn from the other tests of the network, and as many from those of network policy
    #[arg(long, value_name = "N", default_value_t = 0)]
    sample: usize,
    /// Repeats a drawing
    #[arg(long)]
    pub(super) seed: Option<u64>,
}

/// What a test is part of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Group {
    Conformance,
    Policy,
    Other,
}

impl Group {
    fn of(name: &str) -> Self {
        if name.contains("[sig-network] Netpol") {
            Self::Policy
        } else if name.contains("[Conformance]") {
            Self::Conformance
        } else {
            Self::Other
        }
    }
}

impl Wish {
    /// What is never run, and what the regular expression leaves, as flags of ginkgo and of the program with the tests.
    pub(super) fn narrow(&self, command: &mut Command, prefix: &str) {
        let focus = self.focus.as_deref().unwrap_or(ALL);
        command.args([
            format!("--{prefix}focus={focus}"),
            format!("--{prefix}skip={LEFT_OUT}"),
            format!("--{prefix}label-filter={LABELS}"),
        ]);
    }

    /// Chooses from the names of all tests. Where no group is asked for, it is all but those of network policy; a
    /// regular expression may name any.
    pub(super) fn choose(&self, names: &[String], seed: u64) -> Vec<String> {
        let named = |group: Group| match group {
            Group::Conformance => self.conformance,
            Group::Policy => self.netpol,
            Group::Other => false,
        };
        let unnamed = !self.conformance && !self.netpol && self.sample == 0;
        let taken = |name: &str| {
            let group = Group::of(name);
            named(group) || unnamed && (self.focus.is_some() || group != Group::Policy)
        };
        let mut chosen: Vec<String> = names.iter().filter(|name| taken(name)).cloned().collect();
        for group in [Group::Other, Group::Policy] {
            let rest = names
                .iter()
                .filter(|name| !taken(name) && Group::of(name) == group)
                .filter(|name| !name.contains(KNOWN));
            chosen.extend(draw(rest.cloned().collect(), self.sample, seed));
        }
        chosen.sort();
        chosen
    }
}

/// A regular expression that matches exactly these names: ginkgo puts the name of the suite in front.
pub(super) fn pattern(names: &[String]) -> String {
    let quoted: Vec<String> = names
        .iter()
        .map(|name| {
            name.chars()
                .flat_map(|c| {
                    let special = r"\.+*?()|[]{}^$".contains(c);
                    special.then_some('\\').into_iter().chain([c])
                })
                .collect()
        })
        .collect();
    format!("({})$", quoted.join("|"))
}

/// The seed that is asked for, or a new one.
pub(super) fn seed(wish: Option<u64>) -> Result<u64> {
    let new = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock stands before 1970")
            .map(|time| time.as_secs())
    };
    wish.map_or_else(new, Ok)
}

/// So many of the names; the same seed draws the same ones.
pub(super) fn draw(mut names: Vec<String>, count: usize, seed: u64) -> Vec<String> {
    names.sort();
    let mut state = seed;
    let mut drawn = Vec::new();
    while drawn.len() < count && !names.is_empty() {
        let length = u64::try_from(names.len()).unwrap_or(u64::MAX);
        let at = usize::try_from(next(&mut state) % length).unwrap_or_default();
        drawn.push(names.swap_remove(at));
    }
    drawn
}

/// The generator `SplitMix64`.
pub(super) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Wish {
        Wish {
            focus: None,
            conformance: false,
            netpol: false,
            sample: 0,
            seed: None,
        }
    }

    fn names() -> Vec<String> {
        let mut names = vec![
            "[sig-network] DNS should answer [Conformance]".to_owned(),
            "[sig-network] Services should serve [Conformance]".to_owned(),
        ];
        names.extend((0..20).map(|n| format!("[sig-network] Services other {n}")));
        names.extend((0..20).map(|n| format!("[sig-network] Netpol case {n}")));
        names
    }

    #[track_caller]
    fn check(
        wish: &Wish,
        seed: u64,
        conformance: usize,
        other: usize,
        policy: usize,
    ) -> Vec<String> {
        let chosen = wish.choose(&names(), seed);
        let count = |group| {
            chosen
                .iter()
                .filter(|name| Group::of(name) == group)
                .count()
        };
        assert_eq!(
            (
                count(Group::Conformance),
                count(Group::Other),
                count(Group::Policy)
            ),
            (conformance, other, policy)
        );
        chosen
    }

    #[test]
    fn groups_are_chosen_by_flags() {
        check(&wish(), 1, 2, 20, 0);
        let policy = Wish {
            netpol: true,
            ..wish()
        };
        check(&policy, 1, 0, 0, 20);
        let both = Wish {
            conformance: true,
            ..policy
        };
        check(&both, 1, 2, 0, 20);
        let named = Wish {
            focus: Some("Netpol".to_owned()),
            ..wish()
        };
        check(&named, 1, 2, 20, 20);
    }

    #[test]
    fn a_sample_is_drawn_from_what_is_not_chosen_anyway() {
        let sample = Wish {
            conformance: true,
            sample: 5,
            ..wish()
        };
        let first = check(&sample, 1, 2, 5, 5);
        assert_eq!(first, check(&sample, 1, 2, 5, 5));
        assert_ne!(first, check(&sample, 2, 2, 5, 5));
        let more = Wish {
            sample: 50,
            ..sample
        };
        check(&more, 1, 2, 20, 20);
    }

    #[test]
    fn what_is_known_not_to_pass_is_in_whole_runs_alone() {
        let mut names = names();
        names.push(format!("[sig-network] {KNOWN} [Privileged]"));
        let sample = Wish {
            sample: 100,
            ..wish()
        };
        let has = |wish: Wish| wish.choose(&names, 1).contains(&names[names.len() - 1]);
        assert!(!has(sample));
        assert!(has(wish()));
    }

    #[test]
    fn names_are_no_patterns() {
        let names = ["[sig-network] a (b.c)".to_owned(), "d".to_owned()];
        assert_eq!(pattern(&names), r"(\[sig-network\] a \(b\.c\)|d)$");
    }
}
