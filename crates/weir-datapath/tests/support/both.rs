// SPDX-License-Identifier: Apache-2.0
//! One packet through both builds of the decision: the loaded program and the user-space code. Whatever either left
//! behind must be equal: answer, bytes, flow table, counters.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};

use weir_abi::counter::{Counter, metric_index};
use weir_abi::event::{EventRecord, kind};
use weir_abi::observation::Hook;
use weir_abi::{DropReason, FlowEntry, FlowKey, Generation, IfIndex, Seconds};
use weir_datapath::{Datapath, EventSource, TestRun, clock};
use weir_packet::memory::MemoryPacket;
use weir_verdict::memory::MemoryTables;
use weir_verdict::{Redirect, Tables as _, Verdict, Workspace, accelerate};
use zerocopy::IntoBytes as _;

/// `TC_ACT_OK`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT`
const PASS: i32 = 0;
const DROP: i32 = 2;
const REDIRECT: i32 = 7;
/// `XDP_PASS`, `XDP_TX`
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
/// On packets that the programs sent to a device: the only part of a redirect that a test run shows.
const MARK_DONE: u32 = 0x5700_0000;
/// Seconds that the two clocks may be apart: the programs read a coarse one, and time passes.
const CLOCK_SLACK: u32 = 2;

/// Both sides.
pub(crate) struct Both {
    pub(crate) datapath: Datapath,
    pub(crate) tables: MemoryTables,
    workspace: RefCell<Workspace>,
    events: RefCell<EventSource>,
    /// Whether the tables are compared after every packet.
    pub(crate) thorough: Cell<bool>,
    /// Whether packets from the network meet the program at the driver first.
    pub(crate) accelerated: Cell<bool>,
    /// Packets that went no further than there.
    pub(crate) driven: Cell<u32>,
    /// Rows whose difference was told already: each is told once, with the packet that made it.
    known: RefCell<BTreeSet<String>>,
}

impl Both {
    pub(crate) fn new(datapath: Datapath, tables: MemoryTables) -> Self {
        super::kernel_world::fill(&datapath.maps, &tables);
        let events = RefCell::new(EventSource::open(&datapath.maps).unwrap());
        let (workspace, known) = (RefCell::default(), RefCell::default());
        Self {
            datapath,
            tables,
            workspace,
            events,
            thorough: Cell::new(true),
            accelerated: Cell::new(false),
            driven: Cell::new(0),
            known,
        }
    }

    /// Runs a packet through both, which must agree; answers what became of it.
    pub(crate) fn run(
        &self,
        name: &str,
        hook: Hook,
        interface: IfIndex,
        frame: &[u8],
    ) -> (Verdict, Vec<u8>) {
        self.compare(hook, interface, frame)
            .unwrap_or_else(|problem| panic!("{name}: {problem}"))
    }

    /// The same with a packet of a pod that will be cut into segments with this much payload.
    pub(crate) fn run_segmented(
        &self,
        name: &str,
        interface: IfIndex,
        frame: &[u8],
        segment_size: u32,
    ) -> (Verdict, Vec<u8>) {
        self.compare_segmented(Hook::FromContainer, interface, frame, segment_size)
            .unwrap_or_else(|problem| panic!("{name}: {problem}"))
    }

    /// As [`Self::run`], with the difference as an error.
    pub(crate) fn compare(
        &self,
        hook: Hook,
        interface: IfIndex,
        frame: &[u8],
    ) -> Result<(Verdict, Vec<u8>), String> {
        if self.accelerated.get()
            && hook == Hook::FromNetdev
            && let Some(ended) = self.compare_at_driver(interface, frame)?
        {
            self.driven.set(self.driven.get() + 1);
            return Ok(ended);
        }
        self.compare_segmented(hook, interface, frame, 0)
    }

    /// What became of a frame at the driver, if it went no further.
    fn compare_at_driver(
        &self,
        interface: IfIndex,
        frame: &[u8],
    ) -> Result<Option<(Verdict, Vec<u8>)>, String> {
        self.tables.now.set(same_second());
        let output = self.datapath.programs.run_at_driver(interface, frame, 1);
        let output = output.map_err(|error| format!("{error} ({:?})", error.errno()))?;
        let mut packet = MemoryPacket::new(frame.to_vec());
        let mut workspace = self.workspace.borrow_mut();
        let fate = accelerate::forward(&mut packet, &self.tables, interface, &mut workspace);
        let verdict = fate.verdict();
        let expected = match verdict {
            Verdict::Pass => XDP_PASS,
            Verdict::Redirect(Redirect::Egress(to)) if to == interface => XDP_TX,
            Verdict::Redirect(_) | Verdict::Drop(_) | Verdict::Answer(..) => {
                return Err(format!("at the driver: {verdict:?}"));
            }
        };
        let mut problem = String::new();
        if self.thorough.get() {
            problem = self.new_difference();
        }
        if output.verdict != expected {
            let found = output.verdict;
            write!(problem, "\nkernel {found} memory {expected}").unwrap();
        }
        if output.frame != packet.bytes() {
            let (kernel, memory) = (hex(&output.frame), hex(packet.bytes()));
            write!(problem, "\nkernel\n{kernel}\nmemory\n{memory}").unwrap();
        }
        if verdict == Verdict::Pass && packet.bytes() != frame {
            problem += "\npassed on, and not as it came";
        }
        if !problem.is_empty() {
            return Err(format!("at the driver: {verdict:?}{problem}"));
        }
        Ok((verdict != Verdict::Pass).then_some((verdict, output.frame)))
    }

    fn compare_segmented(
        &self,
        hook: Hook,
        interface: IfIndex,
        frame: &[u8],
        segment_size: u32,
    ) -> Result<(Verdict, Vec<u8>), String> {
        let program = self.datapath.programs.get(hook);
        self.tables.now.set(same_second());
        let segments = if segment_size == 0 { 0 } else { 2 };
        let run = TestRun::new(frame).device(interface).ingress(interface);
        let output = run.gso(segment_size, segments).run(program);
        let output = output.map_err(|error| format!("{error} ({:?})", error.errno()))?;

        let packet = MemoryPacket::new(frame.to_vec());
        let mut packet = packet.with_segment_size(segment_size);
        let mut workspace = self.workspace.borrow_mut();
        let verdict = weir_verdict::run(&mut packet, &self.tables, hook, interface, &mut workspace);
        if let Verdict::Drop(reason) | Verdict::Answer(reason, _) = verdict {
            self.tables
                .count_packet(reason.number(), workspace.decision.direction, 0);
        }
        let (expected, mark) = match verdict {
            Verdict::Pass => (PASS, 0),
            Verdict::Drop(_) => (DROP, 0),
            Verdict::Redirect(redirect) | Verdict::Answer(_, redirect) => match redirect {
                Redirect::Egress(_) | Redirect::Neighbour(_) => (REDIRECT, MARK_DONE),
                Redirect::Peer(_) | Redirect::Ingress(_) => (REDIRECT, 0),
            },
        };
        let mut problem = if self.thorough.get() {
            self.new_difference()
        } else {
            String::new()
        };
        if (output.verdict, output.context.mark) != (expected, mark) {
            let found = (output.verdict, output.context.mark);
            write!(
                problem,
                "\nkernel {found:x?} memory {:x?}",
                (expected, mark)
            )
            .unwrap();
        }
        // What a dropped packet looks like is nobody's business.
        if expected != DROP && output.packet != packet.bytes() {
            let (kernel, memory) = (hex(&output.packet), hex(packet.bytes()));
            write!(problem, "\nkernel\n{kernel}\nmemory\n{memory}").unwrap();
        }
        problem += &self.wrong_events(hook, interface, frame, verdict, &workspace);
        if problem.is_empty() {
            Ok((verdict, output.packet))
        } else {
            Err(format!("{verdict:?}{problem}"))
        }
    }

    /// A drop sends one event with its reason and the packet, the first packets of a flow one with where they were
    /// seen, and no other packet any.
    fn wrong_events(
        &self,
        hook: Hook,
        interface: IfIndex,
        frame: &[u8],
        verdict: Verdict,
        workspace: &Workspace,
    ) -> String {
        let mut sent = Vec::new();
        self.events.borrow_mut().drain(16, |bytes| {
            let mut record = EventRecord::default();
            let length = bytes.len().min(size_of::<EventRecord>());
            record.as_mut_bytes()[..length].copy_from_slice(&bytes[..length]);
            if record.kind != kind::SIGNAL {
                sent.push(record);
            }
        });
        let expected = match verdict {
            Verdict::Drop(DropReason::MulticastHandled | DropReason::IgmpHandled) => None,
            Verdict::Drop(reason) | Verdict::Answer(reason, _) => {
                Some((kind::DROP, reason.number()))
            }
            Verdict::Pass | Verdict::Redirect(_) if workspace.decision.report => {
                Some((kind::TRACE, workspace.decision.observation as u8))
            }
            Verdict::Pass | Verdict::Redirect(_) => None,
        };
        let found: Vec<_> = sent
            .iter()
            .map(|record| (record.kind, record.subtype))
            .collect();
        if found != expected.into_iter().collect::<Vec<_>>() {
            return format!("\nevents {found:?} instead of {expected:?}");
        }
        let Some(record) = sent.first() else {
            return String::new();
        };
        if (record.hook, record.ifindex) != (hook as u8, interface) {
            return format!("\nan event of hook {} at {}", record.hook, record.ifindex);
        }
        let captured = record
            .capture
            .get(..usize::from(record.captured))
            .unwrap_or_default();
        let whole = record.packet_length as usize == frame.len() && frame.starts_with(captured);
        if matches!(verdict, Verdict::Drop(_)) && !whole {
            let length = record.packet_length;
            return format!(
                "\nthe event shows another packet ({length} bytes)\n{}",
                hex(captured)
            );
        }
        String::new()
    }

    fn new_difference(&self) -> String {
        let mut known = self.known.borrow_mut();
        let new = self
            .differences()
            .into_iter()
            .filter(|(row, _)| known.insert(row.clone()));
        new.map(|(row, sides)| row + &sides).collect()
    }

    /// Where the two sides' tables are not equal.
    fn differences(&self) -> Vec<(String, String)> {
        let mut text = Vec::new();
        let maps = &self.datapath.maps;
        let kernel: BTreeMap<FlowKey, FlowEntry> =
            maps.flows.entries().unwrap().into_iter().collect();
        compare(
            &mut text,
            "flow",
            &timeless(&kernel),
            &timeless(&self.tables.flows()),
        );
        compare(&mut text, "time-out", &kernel, &self.tables.flows());

        let sums = maps.metrics.sums().unwrap();
        let kernel: BTreeMap<u32, u64> = sums
            .into_iter()
            .map(|(place, metric)| (place, metric.packets))
            .collect();
        let packets = self.tables.packets.borrow();
        let memory: BTreeMap<u32, u64> = packets
            .iter()
            .map(|(&(reason, way), &count)| {
                (
                    metric_index(reason, weir_abi::counter::Direction::ALL[usize::from(way)]),
                    count,
                )
            })
            .collect();
        compare(&mut text, "metric", &kernel, &memory);

        let kernel: BTreeMap<u32, u64> = maps
            .counters
            .sums()
            .unwrap()
            .into_iter()
            // Only the kernel has a ring.
            .filter(|(place, _)| *place != Counter::EventsLost as u32)
            .collect();
        let memory: BTreeMap<u32, u64> = self
            .tables
            .counters
            .borrow()
            .iter()
            .map(|(&place, &count)| (place, count))
            .collect();
        compare(&mut text, "counter", &kernel, &memory);

        let kernel: BTreeMap<_, _> = maps
            .fragments
            .entries()
            .unwrap()
            .into_iter()
            .map(shown)
            .collect();
        let memory: BTreeMap<_, _> = self
            .tables
            .fragments
            .borrow()
            .iter()
            .map(|(key, row)| shown((*key, *row)))
            .collect();
        compare(&mut text, "fragment", &kernel, &memory);
        let kernel: BTreeMap<_, _> = maps
            .tunnel_mtu
            .entries()
            .unwrap()
            .into_iter()
            .map(|(key, row)| (key, row.mtu))
            .collect();
        let memory: BTreeMap<_, _> = self
            .tables
            .tunnel_mtu
            .borrow()
            .iter()
            .map(|(key, row)| (*key, row.mtu))
            .collect();
        compare(&mut text, "path MTU", &kernel, &memory);
        text
    }

    /// Moves a slot to its next generation on both sides.
    pub(crate) fn bump(&self, slot: weir_abi::Slot) {
        self.datapath.maps.bump(slot).unwrap();
        self.tables.bump(slot);
        let place = u32::from(slot.get());
        let kernel = self.datapath.maps.generations.get(&place).unwrap();
        assert_eq!(kernel, Some(self.tables.generation(slot)));
        assert_ne!(kernel, Some(Generation(0)));
    }

    /// Forgets a flow entry on both sides.
    pub(crate) fn evict(&self, key: &FlowKey) {
        assert!(self.datapath.maps.flows.delete(key).unwrap());
        self.tables.evict(key);
    }
}

/// The second that both sides read: the programs' clock is a few milliseconds late, so its end and its beginning are
/// waited out. A next hop that is not resolved is asked for again after a second, and both have to do so.
fn same_second() -> u32 {
    const SECOND: u64 = 1_000_000_000;
    loop {
        let now = clock::nanoseconds();
        if (SECOND / 50..SECOND / 10 * 9).contains(&(now % SECOND)) {
            return u32::try_from(now / SECOND).unwrap();
        }
        std::thread::yield_now();
    }
}

fn shown<K: Debug, V>((key, row): (K, V)) -> (String, V) {
    (format!("{key:?}"), row)
}

/// Entries without what depends on the second that they were written in.
fn timeless(flows: &BTreeMap<FlowKey, FlowEntry>) -> BTreeMap<FlowKey, FlowEntry> {
    let without = |entry: &FlowEntry| FlowEntry {
        expires: Seconds(0),
        last_report: Seconds(0),
        created: Seconds(0),
        ..*entry
    };
    flows
        .iter()
        .map(|(key, entry)| (*key, without(entry)))
        .collect()
}

/// Equal, or nearly so.
trait Like {
    fn like(&self, other: &Self) -> bool;
}

macro_rules! exact {
    ($($type:ty),*) => { $(impl Like for $type {
        fn like(&self, other: &Self) -> bool {
            self == other
        }
    })* };
}

exact!(u64, u32, weir_abi::fragment::FragmentRow);

impl Like for FlowEntry {
    fn like(&self, other: &Self) -> bool {
        let near = |a: Seconds, b: Seconds| a.get().abs_diff(b.get()) <= CLOCK_SLACK;
        let timed = self.expires != Seconds(0) || other.expires != Seconds(0);
        if timed {
            near(self.expires, other.expires) && near(self.created, other.created)
        } else {
            self == other
        }
    }
}

/// Adds what is not equal: the row's name, and how it stands on both sides.
fn compare<K: Ord + Debug, V: Like + Debug>(
    differences: &mut Vec<(String, String)>,
    what: &str,
    kernel: &BTreeMap<K, V>,
    memory: &BTreeMap<K, V>,
) {
    for key in kernel.keys().chain(memory.keys()).collect::<BTreeSet<_>>() {
        let (left, right) = (kernel.get(key), memory.get(key));
        let equal = left
            .zip(right)
            .is_some_and(|(left, right)| left.like(right));
        if !equal {
            let sides = format!("\n  kernel {left:?}\n  memory {right:?}");
            differences.push((format!("\n{what} {key:?}"), sides));
        }
    }
}

/// Sixteen bytes a line, so that a difference can be found.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        let end = if place % 16 == 15 { '\n' } else { ' ' };
        write!(text, "{byte:02x}{end}").unwrap();
    }
    text
}
