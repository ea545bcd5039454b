// SPDX-License-Identifier: Apache-2.0
//! No address twice, none from outside, none again at once.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn ipam(ranges: &[&str]) -> Ipam {
    let mut ipam = Ipam::default();
    ipam.set_ranges(
        ranges
            .iter()
            .map(|text| PodCidr::parse(text).unwrap())
            .collect(),
    );
    ipam
}

fn owner() -> PodRef {
    PodRef::new("shop", "web").unwrap()
}

fn give(ipam: &mut Ipam, now: u64) -> Result<Vec<IpAddr>, IpamError> {
    ipam.allocate(&[], &owner(), |_| false, Duration::from_secs(now))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_pod_gets_an_address_of_each_family() {
    let mut pool = ipam(&["10.1.0.0/24", "fd00:1::/64"]);
    assert_eq!(
        give(&mut pool, 0).unwrap(),
        [ip("10.1.0.1"), ip("fd00:1::1")]
    );
    assert_eq!(
        give(&mut pool, 0).unwrap(),
        [ip("10.1.0.2"), ip("fd00:1::2")]
    );
    let pools: Vec<_> = pool.pools().collect();
    assert_eq!((pools[0].1, pools[0].2), (2, 254));
    assert_eq!((pools[1].1, pools[1].2), (2, u64::MAX));
    assert_eq!(give(&mut Ipam::default(), 0), Err(IpamError::NoRanges));
}

#[test]
fn a_full_range_is_a_clear_error_and_uses_nothing_of_the_other_family() {
    let mut pool = ipam(&["fd00:1::/64", "10.1.0.0/30"]);
    give(&mut pool, 0).unwrap();
    give(&mut pool, 0).unwrap();
    let error = give(&mut pool, 0).unwrap_err();
    assert_eq!(error.to_string(), "every address of 10.1.0.0/30 is in use");
    assert!(pool.pools().all(|(_, used, _)| used == 2));
    pool.release(ip("10.1.0.1"), Duration::from_secs(1));
    // Nothing else is left, so the address does not rest.
    assert_eq!(give(&mut pool, 2).unwrap()[0], ip("10.1.0.1"));
}

#[test]
fn a_second_range_takes_over() {
    let mut pool = ipam(&["10.1.0.0/30", "10.2.0.0/30"]);
    let found: Vec<_> = (0..4)
        .map(|_| give(&mut pool, 0).unwrap()[0].to_string())
        .collect();
    assert_eq!(found, ["10.1.0.1", "10.1.0.2", "10.2.0.1", "10.2.0.2"]);
}

#[test]
fn requested_addresses_are_honoured_or_refused_with_the_reason() {
    let mut pool = ipam(&["10.1.0.0/24"]);
    let mut ask = |text: &str| {
        let asked = pool.allocate(&[ip(text)], &owner(), |_| false, Duration::ZERO);
        asked.map_err(|error| error.to_string())
    };
    assert_eq!(ask("10.1.0.77").unwrap(), [ip("10.1.0.77")]);
    assert_eq!(
        ask("10.1.0.77").unwrap_err(),
        "address 10.1.0.77 is in use by pod shop/web"
    );
    assert!(
        ask("10.2.0.1")
            .unwrap_err()
            .contains("in none of this node's pod ranges (10.1.0.0/24)")
    );
    assert!(
        ask("10.1.0.0")
            .unwrap_err()
            .contains("names the range itself")
    );
    assert!(ask("10.1.0.255").is_err());
}

#[test]
fn an_address_that_somebody_waits_for_goes_to_him() {
    let mut pool = ipam(&["10.1.0.0/29"]);
    let waited = ip("10.1.0.1");
    let got = pool
        .allocate(&[], &owner(), |a| a == waited, Duration::ZERO)
        .unwrap();
    assert_eq!(got, [ip("10.1.0.2")]);
    assert_eq!(
        pool.allocate(&[waited], &owner(), |_| false, Duration::ZERO),
        Ok(vec![waited])
    );
}

#[test]
fn an_address_rests_after_use() {
    let mut pool = ipam(&["10.1.0.0/29"]);
    let first = give(&mut pool, 0).unwrap()[0];
    pool.release(first, Duration::from_secs(1));
    for _ in 0..5 {
        assert_ne!(give(&mut pool, 30).unwrap()[0], first);
    }
    assert_eq!(give(&mut pool, 62).unwrap()[0], first);
}

#[test]
fn the_next_agent_gives_no_address_again_at_once() {
    let ranges = ["10.1.0.0/29", "fd00:1::/64"];
    let mut before = ipam(&ranges);
    let first = give(&mut before, 100).unwrap();
    let second = give(&mut before, 100).unwrap();
    for address in &first {
        before.release(*address, Duration::from_secs(110));
    }
    let text = serde_json::to_string(&before.remembered()).unwrap();
    let after = |now: u64| {
        let mut after = ipam(&ranges);
        let remembered = serde_json::from_str(&text).unwrap();
        after.remember(remembered, Duration::from_secs(now));
        after.restore(second[0], owner());
        after.restore(second[1], owner());
        after
    };
    let mut soon = after(120);
    for _ in 0..4 {
        let given = give(&mut soon, 120).unwrap();
        assert!(
            !given.contains(&first[0]) && !given.contains(&second[0]),
            "{given:?}"
        );
        assert!(!given.contains(&first[1]), "{given:?}");
    }
    assert!(
        give(&mut after(120), 120)
            .unwrap()
            .contains(&ip("10.1.0.3"))
    );
    // The machine has started anew, and its clock with it.
    assert_eq!(after(5).released.len(), 0);
}

#[test]
fn what_makes_no_sense_is_not_remembered() {
    let text = r#"{"last": [["10.1.0.0/29", "10.9.0.1"], ["x", "10.1.0.2"]], "released": [["10.1.0.1", 9]]}"#;
    let mut pool = ipam(&["10.1.0.0/29"]);
    pool.remember(serde_json::from_str(text).unwrap(), Duration::from_secs(1));
    assert!(pool.last.is_empty());
    assert_eq!(give(&mut pool, 1).unwrap(), [ip("10.1.0.2")]);
}

proptest! {
    #[test]
    fn a_restart_at_any_moment_changes_no_choice(steps in vec((any::<bool>(), 0usize..8, 0u64..40, any::<bool>()), 1..60)) {
        let ranges = ["10.1.0.0/28", "fd00:1::/64"];
        let (mut steady, mut restarted) = (ipam(&ranges), ipam(&ranges));
        let mut held: Vec<Vec<IpAddr>> = Vec::new();
        let mut now = 0;
        for (take, which, wait, restart) in steps {
            now += wait;
            if restart {
                let before = restarted.remembered();
                restarted = ipam(&ranges);
                restarted.remember(before, Duration::from_secs(now));
                for address in held.iter().flatten() {
                    restarted.restore(*address, owner());
                }
            }
            if take {
                let given = give(&mut steady, now);
                prop_assert_eq!(&given, &give(&mut restarted, now));
                held.extend(given);
            } else if !held.is_empty() {
                for address in held.swap_remove(which % held.len()) {
                    steady.release(address, Duration::from_secs(now));
                    restarted.release(address, Duration::from_secs(now));
                }
            }
        }
    }

    #[test]
    fn no_address_is_given_twice(steps in vec((any::<bool>(), 0usize..8, 0u64..100), 1..80)) {
        let mut pool = ipam(&["10.1.0.0/29", "10.3.0.0/30", "fd00:1::/126"]);
        let ranges = ["10.1.0.0/29", "10.3.0.0/30", "fd00:1::/126"].map(|t| PodCidr::parse(t).unwrap());
        let mut held: Vec<Vec<IpAddr>> = Vec::new();
        let mut now = 0;
        for (take, which, wait) in steps {
            now += wait;
            if take {
                match give(&mut pool, now) {
                    Ok(addresses) => held.push(addresses),
                    // 3 IPv6 addresses are the tightest limit.
                    Err(error) => prop_assert!(held.len() == 3, "{error}"),
                }
            } else if !held.is_empty() {
                for address in held.swap_remove(which % held.len()) {
                    pool.release(address, Duration::from_secs(now));
                }
            }
            let all: Vec<_> = held.iter().flatten().collect();
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            prop_assert!(all.iter().all(|a| ranges.iter().any(|range| range.contains(**a))));
        }
    }
}
