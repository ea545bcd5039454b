// SPDX-License-Identifier: Apache-2.0
//! Watches the kernel's network and tells the loop what matters to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use weir_net::{Change, IfIndex, MacAddress, Neighbour, Watch};

use super::Input;
use super::devices::{is_own, is_pod_link};

/// Changes come in swarms: the loop is told once for all that come within this time.
const SWARM: Duration = Duration::from_millis(20);
/// No swarm delays the loop for longer than this.
const LONGEST_SWARM: Duration = Duration::from_millis(200);
/// The stop flag is looked at this often.
const STOP: Duration = Duration::from_secs(2);

/// What a change means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Meaning {
    /// Links of pods have to be compared.
    links: bool,
    /// The node's own links, addresses and routes have to be compared.
    node: bool,
    /// Flows may go a wrong way.
    next_hops: bool,
}

/// Watches until told to stop, or nobody listens.
pub(crate) fn watch(
    mut watch: Watch,
    inputs: &Sender<Input>,
    stop: &AtomicBool,
) -> weir_net::Result<()> {
    let mut known = Known::default();
    while !stop.load(Ordering::Relaxed) {
        let Some(first) = watch.next(Some(STOP))? else {
            continue;
        };
        let mut meaning = known.meaning(first);
        let since = Instant::now();
        while since.elapsed() < LONGEST_SWARM
            && let Some(more) = watch.next(Some(SWARM))?
        {
            let more = known.meaning(more);
            meaning.links |= more.links;
            meaning.node |= more.node;
            meaning.next_hops |= more.next_hops;
        }
        let Meaning {
            links,
            node,
            next_hops,
        } = meaning;
        let matters = links || node || next_hops;
        if matters && inputs.send(Input::Network { node, next_hops }).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Neighbours and pod links, to tell changes from repetitions.
#[derive(Default)]
struct Known {
    neighbours: BTreeMap<(IfIndex, IpAddr), MacAddress>,
    pod_links: BTreeSet<IfIndex>,
}

impl Known {
    fn meaning(&mut self, change: Change) -> Meaning {
        const NOTHING: Meaning = Meaning {
            links: false,
            node: false,
            next_hops: false,
        };
        const PODS: Meaning = Meaning {
            links: true,
            node: false,
            next_hops: false,
        };
        const OWN: Meaning = Meaning {
            links: false,
            node: true,
            next_hops: false,
        };
        const ALL: Meaning = Meaning {
            links: true,
            node: true,
            next_hops: true,
        };
        match change {
            Change::Link(link) if is_pod_link(&link.name) => {
                self.pod_links.insert(link.index);
                PODS
            }
            Change::LinkGone(link) if is_pod_link(&link.name) => {
                self.pod_links.remove(&link.index);
                PODS
            }
            Change::Link(link) | Change::LinkGone(link) if is_own(&link.name) => OWN,
            Change::Link(_) | Change::LinkGone(_) | Change::Lost => ALL,
            Change::Address(address) | Change::AddressGone(address) => {
                if self.pod_links.contains(&address.link) {
                    NOTHING
                } else {
                    ALL
                }
            }
            Change::Route(route) | Change::RouteGone(route) => {
                let own = route
                    .link
                    .is_some_and(|link| self.pod_links.contains(&link));
                if own { NOTHING } else { ALL }
            }
            Change::Neighbour(neighbour) => self.neighbour(&neighbour),
            Change::NeighbourGone(neighbour) => {
                let known = self
                    .neighbours
                    .remove(&(neighbour.link, neighbour.ip))
                    .is_some();
                Meaning {
                    next_hops: known,
                    ..NOTHING
                }
            }
        }
    }

    /// Only another MAC address counts: states come and go all the time.
    fn neighbour(&mut self, neighbour: &Neighbour) -> Meaning {
        let key = (neighbour.link, neighbour.ip);
        let next_hops = match neighbour.mac {
            Some(mac) => self
                .neighbours
                .insert(key, mac)
                .is_some_and(|old| old != mac),
            None => self.neighbours.remove(&key).is_some(),
        };
        Meaning {
            next_hops,
            ..Meaning::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_net::{Link, NeighbourState, Route};

    fn link(index: u32, name: &str) -> Link {
        Link {
            index: IfIndex::new(index),
            name: name.to_owned(),
            kind: "veth".to_owned(),
            mac: None,
            mtu: 1500,
            up: true,
            running: true,
            noarp: false,
            loopback: false,
            master: None,
            peer: None,
        }
    }

    fn check(known: &mut Known, change: Change, node: bool, next_hops: bool) {
        let shown = format!("{change:?}");
        let found = known.meaning(change);
        assert_eq!((found.node, found.next_hops), (node, next_hops), "{shown}");
    }

    #[test]
    fn pod_links_come_and_go_without_a_new_decision_for_every_flow() {
        let mut known = Known::default();
        check(
            &mut known,
            Change::Link(link(7, "weir0000abcd")),
            false,
            false,
        );
        let of_pod = Route::device("10.0.0.0/24".parse().unwrap(), IfIndex::new(7));
        check(&mut known, Change::Route(of_pod), false, false);
        check(
            &mut known,
            Change::LinkGone(link(7, "weir0000abcd")),
            false,
            false,
        );
        check(&mut known, Change::Link(link(4, "weir_host")), true, false);
        check(&mut known, Change::Link(link(2, "eth0")), true, true);
        let underlay = Route::device("10.0.0.0/24".parse().unwrap(), IfIndex::new(2));
        check(&mut known, Change::RouteGone(underlay), true, true);
        check(&mut known, Change::Lost, true, true);
    }

    #[test]
    fn a_neighbour_counts_when_its_mac_address_changes() {
        let mut known = Known::default();
        let neighbour = |mac: Option<u8>, state| {
            Change::Neighbour(Neighbour {
                link: IfIndex::new(2),
                ip: IpAddr::from([172, 18, 0, 3]),
                mac: mac.map(|last| MacAddress::new([2, 0, 0, 0, 0, last])),
                state,
            })
        };
        check(
            &mut known,
            neighbour(Some(1), NeighbourState::Usable),
            false,
            false,
        );
        check(
            &mut known,
            neighbour(Some(1), NeighbourState::Usable),
            false,
            false,
        );
        check(
            &mut known,
            neighbour(Some(2), NeighbourState::Usable),
            false,
            true,
        );
        check(
            &mut known,
            neighbour(None, NeighbourState::Failed),
            false,
            true,
        );
        check(
            &mut known,
            neighbour(None, NeighbourState::Failed),
            false,
            false,
        );
    }
}
